"""The lines of a server that is ready: where it listens, its models, indexes and limits, and a command to try.

Knows settings, and the models and indexes that are here; nothing of how they are served.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys

from q3e_local import __version__
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models.names import served_as
from q3e_local.server.http import logs
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.served_names import kind_of, to_try
from q3e_local.server.settings import ServerSettings
from q3e_local.wording.address import Address


def announce(settings: ServerSettings, sockets: list[socket.socket], indexes: Indexes) -> None:
    """Print or log the lines, and warn where everyone may use the server."""
    where, port = address(settings, sockets), _port(settings, sockets)
    models = [served_as(model) for model in settings.models]
    kind: ModelKind = kind_of(models[0], settings) if models else "embedder"
    model = to_try(settings, kind)
    alive = settings.keep_alive_s
    n_keys = len(settings.api_keys)
    keys = f"{n_keys}, one of which the last line takes from Q3E_API_KEY" if n_keys else "none needed"
    shown = [f"{index.name} ({index.n_chunks_at_start:,} chunks, {index.made.space})" for index in indexes]
    lines = [
        f"q3e-local {__version__} listens on {where}",
        f"models: {', '.join(models) or f'loaded on first use, such as {model}'}; at most "
        f"{settings.max_loaded} in memory, unloaded " + (f"after {_span(alive)} unused" if alive >= 0 else "never"),
        *([f"indexes: {'; '.join(shown)}"] if indexes.names else []),
        f"keys: {keys}; queue: {settings.max_queue:,} texts; "
        f"texts a request: {settings.max_items:,}; body: {settings.max_body_bytes // 1024:,} KiB",
        f"try: {_to_try(settings, port, model, kind)}",
    ]
    if settings.log_format == "json":
        what = {"models": models, "indexes": indexes.names}
        fields = {"address": where, **what, "version": __version__, "pid": os.getpid()}
        logs.LOGGER.info("listening", extra={"fields": fields})
    else:
        for line in lines:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - a person waits for these lines
    if settings.is_public and not settings.api_keys:
        logs.LOGGER.warning(
            "every machine that reaches %s may use this server%s; ask for a key with --api-key or Q3E_API_KEY",
            where,
            ", and read what its indexes hold" if indexes.names else "",
        )


def address(settings: ServerSettings, sockets: list[socket.socket]) -> str:
    """The address that clients reach these sockets by."""
    if settings.unix_socket is not None:
        return f"unix:{settings.unix_socket}"
    return str(Address("http", settings.host or "0.0.0.0", _port(settings, sockets)))  # noqa: S104 - shown


def curl(settings: ServerSettings, variable: str | None = None) -> str:
    """The beginning of a command that calls this server with the key in Q3E_API_KEY, for a POSIX shell.

    `variable` is how another shell writes that variable.
    """
    parts = ["curl"]
    if settings.unix_socket is not None:
        parts.append(f"--unix-socket {shlex.quote(str(settings.unix_socket))}")
    if settings.api_keys:
        first_key = "${Q3E_API_KEY%%,*}" if len(settings.api_keys) > 1 else "$Q3E_API_KEY"
        parts.append(f'-H "Authorization: Bearer {variable or first_key}"')
    return " ".join(parts)


def _port(settings: ServerSettings, sockets: list[socket.socket]) -> int:
    return sockets[0].getsockname()[1] if settings.unix_socket is None else 0


def _to_try(settings: ServerSettings, port: int, model: str, kind: ModelKind) -> str:
    question, path = "Why is the sky blue?", "/api/embed" if kind == "embedder" else "/v1/rerank"
    fields: dict[str, object] = {"input": question}
    if kind == "reranker":
        fields = {"query": question, "documents": ["Air scatters blue light.", "Grass is green."]}
    body = json.dumps({"model": model, **fields})
    if sys.platform == "win32":
        escaped = body.replace('"', '\\"')
        quoted, variable = f'"{escaped}"', "%Q3E_API_KEY%"
    else:
        quoted, variable = shlex.quote(body), None
    url = "http://localhost" if settings.unix_socket else Address("http", settings.host, port).to_connect()
    return f"{curl(settings, variable)} {url}{path} -d {quoted}"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
