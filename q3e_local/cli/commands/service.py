"""`q3e-local service`: a user service, so that the server starts with the laptop.

Writes one file and changes nothing else: says which command switches the service on, and leaves that to the user.
Checks the options as `serve` will, so that the user learns what is wrong with them now, and not at the next log in.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from q3e_local.cli.commands import units
from q3e_local.cli.commands.serve import SERVER_VARIABLES, chosen_settings, serve
from q3e_local.cli.exit_codes import DONE, FAILED
from q3e_local.errors import OptionError, OutputError, Q3EError
from q3e_local.files import config_folder, land
from q3e_local.models import installed
from q3e_local.wording.address import Address

_PATIENCE_S = 5.0  # with a server that has to say whether it is there
# Variables that decide where models and settings are; the first two are no paths.
_KEPT = ("HF_HUB_OFFLINE", "HF_ENDPOINT")
_KEPT_PATHS = (
    "Q3E_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME",
)  # fmt: skip


@click.group()
def service() -> None:
    """Start the server when you log in: a systemd user unit, or a launchd agent on macOS.

    What comes behind -- are options of `q3e-local serve`. Of this shell's variables it takes over where models are
    (Q3E_HOME, HF_HOME and the like). Others go into serve.env in the config folder, NAME=VALUE on each line, as the
    keys it is to ask for: Q3E_API_KEY.

    \b
      q3e-local service print
      q3e-local service install -- -m qwen3-embedding:4b --keep-alive 1h
      q3e-local service status
    """


@service.command("print")
@click.argument("options", metavar="[-- SERVE-OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def print_(options: tuple[str, ...]) -> None:
    """Show the file that install would write."""
    unit, content = units.unit(), _content(options)
    click.echo(f"# {unit.path}", err=True)
    click.echo(content, nl=False)


@service.command()
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.argument("options", metavar="[-- SERVE-OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def install(force: bool, options: tuple[str, ...]) -> None:
    """Write the file, and say how to switch it on."""
    unit, content = units.unit(), _content(options)
    try:
        if unit.path.exists() and not force and unit.path.read_text(encoding="utf-8") != content:
            raise OutputError(f"{unit.path} exists with other content; replace it with --force")
        land(unit.path, content)
    except OSError as error:
        raise OutputError(f"cannot write {unit.path}: {error.strerror}") from None
    click.echo("\n  ".join((f"wrote {unit.path}\nswitch it on with:", *unit.enable)))


@service.command()
def uninstall() -> None:
    """Remove the file, and say how to switch a running service off."""
    unit = units.unit()
    try:
        unit.path.unlink()
    except FileNotFoundError:
        click.echo(f"there is no {unit.path}", err=True)
        return
    except OSError as error:
        raise OutputError(f"cannot remove {unit.path}: {error.strerror}") from None
    click.echo("\n  ".join((f"removed {unit.path}\nswitch the running service off with:", *unit.disable)))


@service.command()
@click.option(
    "--server", metavar="URL", help="Where the server answers. [default: as in the file, else as for `q3e-local ps`]"
)
def status(server: str | None) -> int:
    """Say whether the file is there, whether the service runs, and whether its server answers.

    Exits with 0 if the server answers, else with 1.
    """
    from q3e_local.remote import connection

    unit = units.unit()
    try:
        command = units.command_of(unit)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"cannot read {unit.path}: {error}; write it again: q3e-local service install") from None
    missing = "not there; write it with: q3e-local service install"
    click.echo(f"file     {unit.path}: {missing if command is None else 'there'}")
    click.echo(f"service  {units.state(unit)}")
    address = connection.server_address(server or _address(command))
    running = connection.Server(address, answer_s=_PATIENCE_S, patience_s=0)
    try:
        loaded = running.ask("GET", "/health")["loaded"]
        said = f"{running.name} answers; {', '.join(model['name'] for model in loaded) or 'no model is loaded'}"
        code = DONE
    except connection.ServerRefusedError as error:
        is_loading = error.fields.get("status") == "loading model"
        said = f"{running.name} answers; it is loading its models" if is_loading else str(error)
        code = DONE if is_loading else FAILED
    except connection.ServerUnreachableError as error:
        said, code = str(error), FAILED
    finally:
        running.close()
    click.echo(f"server   {said}")
    if code != DONE and command is not None:
        click.echo("switch it on, and see what it says, with:", err=True)
        for line in unit.enable:
            click.echo(f"  {line}", err=True)
    return code


def _address(command: Sequence[str] | None) -> str | None:
    """Where the server of this command listens, as far as its options say it."""
    if command is None or "serve" not in command:
        return None
    try:
        options = command[command.index("serve") + 1 :]
        chosen = chosen_settings(serve.make_context("q3e-local serve", list(options)).params, {})
    except (Q3EError, click.ClickException):
        return None  # the server refuses them too, and the service manager has its log
    if chosen.unix_socket is not None:
        return f"unix:{chosen.unix_socket}"
    return str(Address(host=chosen.host, port=chosen.port))


def _content(options: Sequence[str]) -> str:
    """The content of the file. Says on stderr which settings it lacks."""
    if any(option.split("=", 1)[0] == "--api-key" for option in options):
        raise OptionError(f"others can read a key in this file; {_how_to_set_a_key()}")
    params = serve.make_context("q3e-local serve", list(options)).params
    from q3e_local.server.local.indexes import Indexes
    from q3e_local.server.served_names import ServedNames

    # As the service will see them: without the variables of this shell.
    chosen = chosen_settings(params, {})
    for doubt in (*ServedNames(chosen).check(), *chosen.doubts()):
        click.echo(f"WARNING: {doubt}", err=True)
    Indexes(chosen).close()
    _say_what_is_left_out()
    environment = {name: os.environ[name] for name in _KEPT if os.environ.get(name)}
    environment |= {name: _absolute(os.environ[name]) for name in _KEPT_PATHS if os.environ.get(name)}
    return units.content((sys.executable, "-m", "q3e_local", "serve", *_options(params)), environment, _settings())


def _options(params: dict[str, Any]) -> list[str]:
    """The options as words of a command line, with paths that mean the same from every folder."""
    from q3e_local.server.local.indexes import path_of

    written = []
    for option in serve.params:
        value = params[option.name or ""]
        for each in value if isinstance(value, tuple) else (value,):
            if each is None or (each is False and not option.secondary_opts):
                continue
            if isinstance(each, bool):
                written.append(option.opts[0] if each else option.secondary_opts[0])
                continue
            is_path = (
                option.name == "unix_socket"
                or (option.name == "models" and installed.path_of(each) is not None)
                or (option.name == "indexes" and path_of(each) is not None)
            )
            written += [option.opts[0], _absolute(str(each)) if is_path else str(each)]
    return written


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _settings() -> Path:
    """The file with variables for the service alone, which no other user needs to read."""
    return (config_folder() / "serve.env").absolute()


def _how_to_set_a_key() -> str:
    file = _settings()
    folder, quoted = shlex.quote(str(file.parent)), shlex.quote(str(file))
    return (
        f"write a line Q3E_API_KEY='...' into {file}, which the service reads and nobody else may:\n"
        f"  mkdir -p {folder} && touch {quoted} && chmod 600 {quoted}"
    )


def _say_what_is_left_out() -> None:
    """Name the settings of this shell that the service will not have, and a settings file that others can read."""
    file = _settings()
    left_out = [name for name in SERVER_VARIABLES if os.environ.get(name) and name != "Q3E_API_KEY"]
    if left_out:
        click.echo(
            f"not taken over from this shell: {', '.join(left_out)}; give them as options behind --, or write them "
            f"into {file}",
            err=True,
        )
    if os.environ.get("Q3E_API_KEY") and not file.exists():
        click.echo(f"not taken over from this shell: Q3E_API_KEY; {_how_to_set_a_key()}", err=True)
    if file.exists() and os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        click.echo(f"WARNING: others can read {file}; chmod 600 {shlex.quote(str(file))}", err=True)
