"""A line for each request on stderr, as text or JSON: method, path, status, time, texts, tokens.

Stands around the guard, so that refused requests have a line too. Never sees a text or a key, and writes no query
string.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGGER = logging.getLogger("q3e_local.server")
_ACCESS = LOGGER.getChild("access")

# Set by the dialects on every answer that embeds.
TEXTS_HEADER, TOKENS_HEADER = b"x-q3e-texts", b"x-q3e-prompt-tokens"

_CLIENT_GONE = 499  # nginx's and Ollama's, not HTTP's, for a client that did not wait
_MAX_PATH = 200


@dataclass(frozen=True)
class Seen:
    """A request that is over. `route` is a declared path or `other`, so that metrics have few labels."""

    method: str
    path: str
    route: str
    status: int
    seconds: float
    n_texts: int
    n_tokens: int
    client: str


class Watch:
    """The app. Every `observer` is called with each request once it is over."""

    def __init__(self, app: ASGIApp, observers: Sequence[Callable[[Seen], None]]) -> None:
        self._app, self._observers = app, tuple(observers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status, n_texts, n_tokens = 0, 0, 0

        async def watched(message: Message) -> None:
            nonlocal status, n_texts, n_tokens
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message.get("headers", ()):
                    if name == TEXTS_HEADER and value.isdigit():
                        n_texts = int(value)
                    elif name == TOKENS_HEADER and value.isdigit():
                        n_tokens = int(value)
            await send(message)

        failed = False
        try:
            await self._app(scope, receive, watched)
        except Exception:
            failed = True
            raise
        finally:
            seen = Seen(
                method=scope["method"],
                path=_printable(scope),
                route=_route(scope),
                status=status or (500 if failed else _CLIENT_GONE),
                seconds=time.perf_counter() - started,
                n_texts=n_texts,
                n_tokens=n_tokens,
                client=scope["client"][0] if scope.get("client") else "unix",
            )
            for observe in self._observers:
                observe(seen)


def log_access(seen: Seen) -> None:
    if not _ACCESS.isEnabledFor(logging.INFO):
        return
    fields = asdict(seen)
    milliseconds = fields.pop("seconds") * 1000
    del fields["route"]
    fields["milliseconds"] = round(milliseconds, 2)
    s = "s" if seen.n_texts != 1 else ""
    texts = f" {seen.n_texts} text{s} {seen.n_tokens} tokens" if seen.n_texts else ""
    line = f"{seen.method} {seen.path} {seen.status} {milliseconds:.1f} ms{texts}"
    _ACCESS.info("%s", line, extra={"fields": fields})


def set_up(form: str, explain: bool = False) -> None:
    """Send the server's and uvicorn's lines to stderr in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    for name, level in {"q3e_local": logging.INFO, "uvicorn": logging.WARNING}.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    logging.getLogger("q3e_local.settings").setLevel(logging.INFO if explain else logging.WARNING)
    # llama.cpp remarks on settings that are meant to be so.
    logging.getLogger("q3e_local.llama").setLevel(logging.WARNING)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return line if record.levelno < logging.WARNING else f"{record.levelname}: {line}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str).decode("utf-8")


def _printable(scope: Scope) -> str:
    """The path as it came, with its percent signs, so that it cannot steer a terminal or break a line."""
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    text = raw[:_MAX_PATH].decode("ascii", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def _route(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"
