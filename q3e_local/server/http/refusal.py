"""Answers that no route has a part in: how a refusal is sent so that it reaches a client that is still sending.

Knows HTTP; nothing of why a request is refused, nor of the shape in which clients of the path read an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from q3e_local.server.http.asgi import Headers, Receive, RequestHeaders, Scope, Send

RETRY_AFTER_S = 5
OPEN_PATHS = ("/health", "/v1/health")  # no key needed: monitors have none

_LINGER_S = 2.0


@dataclass(frozen=True)
class Refusal:
    """An answer that no route has a part in."""

    status: int
    message: str
    kind: Literal["refused", "forbidden", "no key", "unavailable"] = "refused"
    retry_after_s: int | None = None


Wording = Callable[[str, Refusal], bytes]
"""A refusal as clients of a path read it: a JSON value in their dialect's shape."""


async def answer(
    scope: Scope, receive: Receive, send: Send, refusal: Refusal, body: bytes, cors: Headers, *, is_read: bool = False
) -> None:
    """Send the refusal with this body. With `is_read` the request's body has come whole already."""
    headers: Headers = [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", str(len(body)).encode("ascii")),
        *cors,
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode("ascii")))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    has_body = RequestHeaders(scope["headers"]).has_body
    if refusal.status in (408, 503) or has_body:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    lingers = has_body and not is_read and refusal.status != 408
    await send({"type": "http.response.body", "body": body, "more_body": lingers})
    if lingers:
        # A client that is still sending would lose the answer to a reset; so take what comes, for a moment.
        try:
            async with asyncio.timeout(_LINGER_S):
                while True:
                    message = await receive()
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        break
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
