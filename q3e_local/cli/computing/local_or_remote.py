"""What computes for a command: the model in this process, or a running server.

Knows the options that choose between them, by the names they have on the command line.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from q3e_local.cache.choose import chosen
from q3e_local.cli.computing.engine_options import EngineOptions
from q3e_local.cli.computing.loading import load
from q3e_local.cli.progress import status
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import OptionError

if TYPE_CHECKING:
    from q3e_local.cli.computing.remote.embedder import RemoteEmbedder


def computing(
    model: str,
    server: str | None,
    offline: bool,
    quiet: bool,
    cache: bool | None,
    engine: EngineOptions,
) -> Embedder | RemoteEmbedder:
    """The model in this process, or a server's. Raises OptionError for both."""
    if server:
        return on_server(model, server, cache, engine)
    return load(model, offline, quiet, cache=chosen(cache), self_tuning=True, **engine.config)


def on_server(
    model: str, server: str, cache: bool | None, engine: EngineOptions, *, may_explain: bool = False
) -> RemoteEmbedder:
    """A server's model: of a file, the one that it serves under the file's name.

    Raises OptionError for options of a model in this process. With `may_explain`, the command's --explain says
    more than what an engine chose.
    """
    if cache is not None:
        raise OptionError("--cache and --no-cache are for a model in this process; the server has its own")
    if engine.is_given and not (may_explain and not engine.has_settings):
        raise OptionError(
            "--threads, --explain and their like are for a model in this process; the server has its own"
        )
    from q3e_local.cli.computing.remote.connection import Server
    from q3e_local.cli.computing.remote.embedder import RemoteEmbedder
    from q3e_local.server.served_names import served_as

    return RemoteEmbedder(Server(server), served_as(model))


def check_request(embedder: Embedder | RemoteEmbedder, request: EmbedRequest, quiet: bool) -> None:
    """Refuse a request before an output is opened. Raises OptionError with the name of the flag.

    A server is asked, which may have to load its model first.
    """
    try:
        with nullcontext() if isinstance(embedder, Embedder) else status("waiting for the server", quiet):
            embedder.check(request)
    except OptionError as error:
        flag = {"dim": "--dimensions", "max_tokens": "--max-tokens"}.get(error.option, error.option)
        raise OptionError(error.under(flag)) from None
