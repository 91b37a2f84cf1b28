"""The files of a user service: a systemd unit, a launchd agent.

Knows how each of them writes a command and an environment, and which command tells the state of the service; nothing
of what the service does.
"""

from __future__ import annotations

import os
import plistlib
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from q3e_local.errors import OptionError

_LABEL = "local.q3e.serve"
_ANSWER_S = 10.0  # for a service manager
# Reads the settings before it becomes the server, since launchd has no place for variables that others must not read.
_READ_SETTINGS = 'if [ -r "$0" ]; then set -a; . "$0"; set +a; fi; exec "$@"'


@dataclass(frozen=True)
class Unit:
    """Where the file goes, and the commands that switch the service on and off and tell its state."""

    path: Path
    enable: tuple[str, ...]
    disable: tuple[str, ...]
    state: tuple[str, ...]


def unit() -> Unit:
    """The kind of user service that this system has. Raises OptionError on Windows, which has no user services."""
    if sys.platform == "win32":
        raise OptionError(
            "a user service is not supported on Windows; in the Task Scheduler make a task that runs at log on: "
            "q3e-local serve"
        )
    if sys.platform == "darwin":
        path = Path.home() / "Library" / "LaunchAgents" / f"{_LABEL}.plist"
        target = f"gui/{os.getuid()}" if hasattr(os, "getuid") else "gui/$UID"
        return Unit(
            path,
            (f"launchctl bootstrap {target} {shlex.quote(str(path))}", f"tail -f {shlex.quote(str(_mac_log()))}"),
            (f"launchctl bootout {target}/{_LABEL}",),
            ("launchctl", "print", f"{target}/{_LABEL}"),
        )
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Unit(
        config / "systemd" / "user" / "q3e-local.service",
        (
            "systemctl --user daemon-reload",
            "systemctl --user enable --now q3e-local",
            "journalctl --user -fu q3e-local",
        ),
        ("systemctl --user disable --now q3e-local", "systemctl --user daemon-reload"),
        ("systemctl", "--user", "is-active", "q3e-local"),
    )


def content(command: Sequence[str], environment: Mapping[str, str], settings: Path) -> str:
    """The file that runs a command with this environment and the variables in the file `settings`, if it is there.

    Raises OptionError for what such a file cannot hold.
    """
    if sys.platform == "darwin":
        return _launchd(command, environment, settings)
    return _systemd(command, environment, settings)


def command_of(unit: Unit) -> list[str] | None:
    """The command in the file; None where there is no file. Raises OSError or ValueError."""
    try:
        content = unit.path.read_bytes()
    except FileNotFoundError:
        return None
    if sys.platform == "darwin":
        arguments: list[str] = plistlib.loads(content)["ProgramArguments"]
        return arguments[4:]
    lines = content.decode("utf-8").splitlines()
    line = next((line for line in lines if line.startswith("ExecStart=")), "")
    return [part.replace("%%", "%").replace("$$", "$") for part in shlex.split(line.removeprefix("ExecStart="))]


def state(unit: Unit) -> str:
    """What the service manager says about the service: `active`, `inactive`, `failed`, or why it says nothing."""
    try:
        answer = subprocess.run(unit.state, capture_output=True, text=True, timeout=_ANSWER_S, check=False)  # noqa: S603
    except FileNotFoundError:
        return f"unknown: there is no {unit.state[0]} here"
    except subprocess.TimeoutExpired:
        return f"unknown: {unit.state[0]} does not answer"
    if sys.platform == "darwin":
        running = "state = running" in answer.stdout
        return "active" if running else "inactive" if answer.returncode == 0 else "not switched on"
    if answer.stdout.strip():
        return answer.stdout.strip()
    return f"unknown: {(answer.stderr.strip() or 'nothing is said').splitlines()[-1]}"


def _systemd(command: Sequence[str], environment: Mapping[str, str], settings: Path) -> str:
    lines = [
        "[Unit]",
        "Description=q3e-local: Qwen3-Embedding on this machine",
        "",
        "[Service]",
        f"ExecStart={' '.join(_quoted(part) for part in command)}",
        *(f"Environment={_quoted(f'{name}={value}', dollar='$')}" for name, value in environment.items()),
        # `-`: the file may be missing. The rest of the line is one path, spaces and all.
        f"EnvironmentFile=-{_without_control(str(settings)).replace('%', '%%')}",
        "Restart=on-failure",
        "RestartSec=5",
        # Options that the server refused once, it refuses again.
        "RestartPreventExitStatus=2",
        # Longer than the server takes to finish its work.
        "TimeoutStopSec=60",
        "KillMode=mixed",
        "NoNewPrivileges=yes",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return "\n".join(lines)


def _quoted(text: str, dollar: str = "$$") -> str:
    """A word for a unit file, in which `%` has a meaning, and in a command `$` too."""
    text = _without_control(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", dollar)
    return escaped if escaped == text and not set(text) & set(" '\t;") else f'"{escaped}"'


def _without_control(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise OptionError(f"{text!r} cannot stand in a unit file")
    return text


def _launchd(command: Sequence[str], environment: Mapping[str, str], settings: Path) -> str:
    plist = {
        "Label": _LABEL,
        "ProgramArguments": ["/bin/sh", "-c", _READ_SETTINGS, str(settings), *command],
        "EnvironmentVariables": dict(environment),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": 60,
        "ProcessType": "Interactive",  # Background would put it on the slow cores
        "StandardErrorPath": str(_mac_log()),
    }
    return plistlib.dumps(plist, sort_keys=False).decode("utf-8")


def _mac_log() -> Path:
    return Path.home() / "Library" / "Logs" / "q3e-local.log"
