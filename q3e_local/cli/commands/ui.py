"""`q3e-local ui`: the server's page in the browser, with a server of its own where none answers."""

from __future__ import annotations

import threading
import webbrowser
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from q3e_local.cli import candidates
from q3e_local.cli.exit_codes import DONE
from q3e_local.cli.terminal import say
from q3e_local.errors import OptionError
from q3e_local.search.places import SUFFIX, names
from q3e_local.wording.address import parse

if TYPE_CHECKING:
    from q3e_local.server.settings import ServerSettings

_LOOK_S = 5.0  # for a server that may be there


@click.command()
@click.option(
    "--index", "indexes", metavar="INDEX", multiple=True, shell_complete=candidates.index_or_file,
    help="Search this index, a name or a .q3e file; may be repeated. [default: all that q3e-local index list has]",
)  # fmt: skip
@click.option(
    "-m", "--model", "models", metavar="MODEL", multiple=True, shell_complete=candidates.model_or_file,
    help="Load this model at the start of a server that is started here; may be repeated.",
)  # fmt: skip
@click.option("--server", metavar="ADDRESS", help="The server to open. [env: Q3E_SERVER, OLLAMA_HOST]")
@click.option("--port", type=int, help="Start a server on this port, whether one runs or not; 0 is any free port.")
@click.option("--no-open", is_flag=True, help="Print the address, and leave the browser alone.")
def ui(
    indexes: tuple[str, ...], models: tuple[str, ...], server: str | None, port: int | None, no_open: bool
) -> int:  # fmt: skip
    """Open the server's page in the browser: search, compare, look, map, models.

    A server that runs already is used. Where none answers, one is started here, and Ctrl-C stops it.

    \b
      q3e-local ui
      q3e-local ui --index papers.q3e
      q3e-local ui --server http://192.168.1.20:11434
    """
    if server is not None and port is not None:
        raise OptionError("--server is for a server that runs, --port for one to start; give one of them")
    running = None if port is not None else _running(server, indexes)
    if running is not None:
        if models:
            raise OptionError(
                f"the server at {running} runs already, and --model is for one to start: load {models[0]} in the "
                f"page, or start another server beside it with: q3e-local ui --port 0 -m {models[0]}"
            )
        _open(running, no_open)
        return DONE
    if server is not None:
        raise OptionError(f"no q3e-local server answers at {server}; start one with: q3e-local ui")
    from q3e_local.server.local.local_service import LocalService
    from q3e_local.server.run import serve

    chosen = _settings(indexes, models, port)
    return serve(chosen, LocalService, ready=partial(_open_beside, no_open=no_open))


def _running(server: str | None, indexes: tuple[str, ...]) -> str | None:
    """The address of a server of ours that runs; None where there is none.

    Raises OptionError where it does not search an index that is wanted.
    """
    from q3e_local.remote.connection import (
        Server,
        ServerRefusedError,
        ServerUnreachableError,
        server_address,
    )

    text = server_address(server)
    if text.startswith("unix:"):
        raise OptionError(f"a browser cannot open {text}; start a server with a port: q3e-local ui --port 0")
    with closing(Server(text, answer_s=_LOOK_S, patience_s=0)) as connection:
        try:
            served = {index["name"] for index in connection.ask("GET", "/api/indexes")["indexes"]}
        except ServerUnreachableError:
            return None
        except ServerRefusedError as error:
            if error.status != 401:
                raise
            return connection.name  # the page asks for the key
        missing = [index for index in indexes if _name_of(index) not in served]
        if missing:
            raise OptionError(
                f"the server at {connection.name} does not search {missing[0]}; start another beside it with: "
                f"q3e-local ui --port 0 --index {missing[0]}"
            )
        return connection.name


def _settings(indexes: tuple[str, ...], models: tuple[str, ...], port: int | None) -> ServerSettings:
    """The settings of a server to start, those of the environment among them.

    Without an index in the options or in Q3E_INDEXES there are all indexes that have a name and can be searched here.
    """
    from q3e_local.server.local.indexes import Indexes
    from q3e_local.server.settings import settings

    chosen = settings({"indexes": indexes, "models": models, "port": port})
    if chosen.unix_socket is not None:
        raise OptionError("a browser cannot open a Unix socket; unset Q3E_UNIX_SOCKET")
    if chosen.indexes:
        return chosen
    named = replace(chosen, indexes=tuple(names()))
    with Indexes(named, lambda name, error: say(f"the index {name} is left out: {error}")) as usable:
        return replace(chosen, indexes=usable.names)


def _name_of(index: str) -> str:
    """The name under which a server has an index."""
    return Path(index).name.removesuffix(SUFFIX)


def _open(address: str, no_open: bool) -> None:
    """Print the page's address and open it. An address such as 0.0.0.0 is one to listen on, not one to open."""
    page = f"{parse(address).to_connect()}/ui"
    click.echo(page)
    if not no_open and not webbrowser.open(page):
        say("no browser was found; open the address above in one")


def _open_beside(address: str, no_open: bool) -> None:
    """As `_open`, on a thread: a browser in the terminal would hold up the server that it is to show."""
    threading.Thread(target=_open, args=(address, no_open), daemon=True).start()
