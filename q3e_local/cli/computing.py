"""What computes for a command: the model in this process, or a running server.

Knows the options that choose between them, by the names they have on the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from q3e_local.cache.choose import chosen
from q3e_local.cli.engine_options import EngineOptions
from q3e_local.cli.loading import load
from q3e_local.embedder import Embedder
from q3e_local.errors import OptionError
from q3e_local.request import EmbedRequest

if TYPE_CHECKING:
    from q3e_local.remote import RemoteEmbedder


def computing(
    model: str,
    server: str | None,
    offline: bool,
    quiet: bool,
    cache: bool | None,
    engine: EngineOptions,
) -> Embedder | RemoteEmbedder:
    """The model in this process, or a server's. Raises OptionError for both."""
    if not server:
        return load(model, offline, quiet, cache=chosen(cache), self_tuning=True, **engine.config)
    if cache is not None:
        raise OptionError("--cache and --no-cache are for a model in this process; the server has its own")
    if engine.is_given:
        raise OptionError(
            "--threads, --explain and their like are for a model in this process; the server has its own"
        )
    from q3e_local.remote import RemoteEmbedder, Server

    return RemoteEmbedder(Server(server), model)


def check_request(embedder: Embedder | RemoteEmbedder, request: EmbedRequest) -> None:
    """Refuse a request before an output is opened. Raises OptionError with the name of the flag."""
    try:
        embedder.check(request)
    except OptionError as error:
        flag = {"dim": "--dimensions", "max_tokens": "--max-tokens"}.get(error.option, error.option)
        raise OptionError(error.under(flag)) from None
