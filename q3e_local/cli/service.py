"""`q3e-local service`: a user service, so that the server starts with the laptop.

Writes one file and runs nothing: which command switches it on is told, and left to the user.
"""

from __future__ import annotations

import os
import plistlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from q3e_local.cli import DONE
from q3e_local.errors import OptionError, OutputError

_LABEL = "local.q3e.serve"
# What decides where models are, and how this server runs; keys are not among them, they belong into no such file.
_KEPT = ("Q3E_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT")


@dataclass(frozen=True)
class _Unit:
    path: Path
    content: str
    enable: tuple[str, ...]
    disable: tuple[str, ...]


@click.group()
def service() -> None:
    """Start the server when you log in: a systemd user unit, or a launchd agent on macOS.

    What comes behind -- are options of `q3e-local serve`.

    \b
      q3e-local service print
      q3e-local service install -- -m qwen3-embedding:4b --keep-alive 1h
    """


@service.command("print")
@click.argument("options", metavar="[-- SERVE-OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def print_(options: tuple[str, ...]) -> int:
    """Show the file that install would write."""
    unit = _unit(options)
    click.echo(f"# {unit.path}", err=True)
    click.echo(unit.content, nl=False)
    return DONE


@service.command()
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.argument("options", metavar="[-- SERVE-OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def install(force: bool, options: tuple[str, ...]) -> int:
    """Write the file, and say how to switch it on."""
    unit = _unit(options)
    partial = unit.path.with_name(f".{unit.path.name}.{os.getpid()}.partial")
    try:
        if unit.path.exists() and not force and unit.path.read_text(encoding="utf-8") != unit.content:
            raise OutputError(f"{unit.path} exists with other content; replace it with --force")
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(unit.content, encoding="utf-8")
        partial.replace(unit.path)
    except OSError as error:
        raise OutputError(f"cannot write {unit.path}: {error.strerror}") from None
    click.echo(f"wrote {unit.path}")
    click.echo("switch it on with:")
    for line in unit.enable:
        click.echo(f"  {line}")
    return DONE


@service.command()
def uninstall() -> int:
    """Remove the file, and say how to switch a running service off."""
    unit = _unit(())
    try:
        unit.path.unlink()
    except FileNotFoundError:
        click.echo(f"there is no {unit.path}", err=True)
        return DONE
    except OSError as error:
        raise OutputError(f"cannot remove {unit.path}: {error.strerror}") from None
    click.echo(f"removed {unit.path}")
    click.echo("switch the running service off with:")
    for line in unit.disable:
        click.echo(f"  {line}")
    return DONE


def _unit(options: Sequence[str]) -> _Unit:
    if any(option.split("=", 1)[0] == "--api-key" for option in options):
        raise OptionError(
            "a key in this file could be read by others; put Q3E_API_KEY into the service's environment"
        )
    _check(options)
    command = (sys.executable, "-m", "q3e_local", "serve", *options)
    environment = {name: os.environ[name] for name in _KEPT if os.environ.get(name)}
    if sys.platform == "win32":
        raise OptionError(
            "a user service is not supported on Windows; in the Task Scheduler make a task that runs at log on: "
            "q3e-local serve"
        )
    if sys.platform == "darwin":
        return _launchd(command, environment)
    return _systemd(command, environment)


def _check(options: Sequence[str]) -> None:
    """Options that serve does not know are better refused now than at the next log in."""
    from q3e_local.cli.serve import serve

    serve.make_context("q3e-local serve", list(options))


def _systemd(command: Sequence[str], environment: dict[str, str]) -> _Unit:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    lines = [
        "[Unit]",
        "Description=q3e-local: Qwen3-Embedding on this machine",
        "",
        "[Service]",
        f"ExecStart={' '.join(_systemd_quoted(part) for part in command)}",
        *(f"Environment={_systemd_quoted(f'{name}={value}', dollar='$')}" for name, value in environment.items()),
        "Restart=on-failure",
        "RestartSec=5",
        # Longer than the server takes to finish what runs.
        "TimeoutStopSec=60",
        "KillMode=mixed",
        "NoNewPrivileges=yes",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return _Unit(
        config / "systemd" / "user" / "q3e-local.service",
        "\n".join(lines),
        (
            "systemctl --user daemon-reload",
            "systemctl --user enable --now q3e-local",
            "journalctl --user -fu q3e-local",
        ),
        ("systemctl --user disable --now q3e-local", "systemctl --user daemon-reload"),
    )


def _systemd_quoted(text: str, dollar: str = "$$") -> str:
    """One word of a unit file: `%` means something there, and `$` does in a command."""
    if any(ord(character) < 32 for character in text):
        raise OptionError(f"{text!r} cannot stand in a unit file")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", dollar)
    return escaped if escaped == text and not set(text) & set(" '\t;") else f'"{escaped}"'


def _launchd(command: Sequence[str], environment: dict[str, str]) -> _Unit:
    log = Path.home() / "Library" / "Logs" / "q3e-local.log"
    path = Path.home() / "Library" / "LaunchAgents" / f"{_LABEL}.plist"
    plist = {
        "Label": _LABEL,
        "ProgramArguments": list(command),
        "EnvironmentVariables": environment,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": 60,
        "ProcessType": "Interactive",  # Background would put it on the slow cores
        "StandardErrorPath": str(log),
    }
    content = plistlib.dumps(plist, sort_keys=False).decode("utf-8")
    target = f"gui/{os.getuid()}" if hasattr(os, "getuid") else "gui/$UID"
    return _Unit(
        path,
        content,
        (f"launchctl bootstrap {target} {shlex.quote(str(path))}", f"tail -f {shlex.quote(str(log))}"),
        (f"launchctl bootout {target}/{_LABEL}",),
    )
