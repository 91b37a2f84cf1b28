"""The answer to a request that is refused before a route, sent so that it reaches a client that is still sending.

Knows HTTP; nothing of why a request is refused, nor of the shape in which clients of the path read an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from q3e_local.server.errors import StoppingError

OPEN_PATHS = ("/health", "/v1/health")  # no key needed: monitors have none

_LINGER_S = 2.0


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused before a route sees it."""

    status: int
    message: str


Wording = Callable[[str, Refusal], bytes]
"""A refusal as clients of a path read it: JSON in the shape of their dialect."""


def has_body(headers: Headers) -> bool:
    """Whether a body comes with a request."""
    return headers.get("content-length", "0") not in ("", "0") or "transfer-encoding" in headers


async def answer(
    scope: Scope, receive: Receive, send: Send, refusal: Refusal, wording: Wording, *, is_read: bool = False
) -> None:
    """Send the refusal in this wording. `is_read`: the request's body has come whole already."""
    body = wording(scope["path"], refusal)
    headers = [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", str(len(body)).encode("ascii")),
    ]
    if refusal.status == 503:
        headers.append((b"retry-after", str(StoppingError.retry_after_s).encode("ascii")))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    comes_with_body = has_body(Headers(scope=scope))
    if refusal.status in (408, 503) or comes_with_body:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    lingers = comes_with_body and not is_read and refusal.status != 408
    await send({"type": "http.response.body", "body": body, "more_body": lingers})
    if lingers:
        # uvicorn closes the connection once the answer is whole. A reset would take the answer from a client that is
        # still sending, so what comes is read for a moment.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
