"""Answers that no route has a part in, in the shape that clients of the path read.

Knows HTTP and which family of errors a path belongs to; nothing of why a request is refused.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from q3e_local.server.http.asgi import Headers, Receive, RequestHeaders, Scope, Send

RETRY_AFTER_S = 5
OPEN_PATHS = ("/health", "/v1/health")  # no key needed: monitors have none

_LINGER_S = 2.0


@dataclass(frozen=True)
class Refusal:
    """An answer that no route has a part in."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    retry_after_s: int | None = None


def error_body(path: str, refusal: Refusal) -> bytes:
    """The error as clients of this path read it: Ollama's text, OpenAI's object, TEI's two fields, llama-server's."""
    error: Any
    if path.startswith("/v1/") and path not in OPEN_PATHS:
        error = {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.code}
        return _json({"error": error})
    if path in ("/embed", "/similarity", "/info", "/decode", "/embed_all"):
        kind = {429: "Overloaded", 503: "Unhealthy"}.get(refusal.status, "Validation")
        return _json({"error": refusal.message, "error_type": kind})
    if path in (
        "/embedding",
        "/embeddings",
        "/tokenize",
        "/detokenize",
        "/props",
        "/models",
        "/health",
        "/v1/health",
    ):
        kind = {401: "authentication_error", 403: "permission_error", 503: "unavailable_error"}.get(
            refusal.status, "invalid_request_error"
        )
        return _json({"error": {"code": refusal.status, "message": refusal.message, "type": kind}})
    return _json({"error": refusal.message})


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


async def answer(
    scope: Scope, receive: Receive, send: Send, refusal: Refusal, cors: Headers, *, is_read: bool = False
) -> None:
    """Send the refusal. With `is_read` the request's body has come whole already."""
    body = error_body(scope["path"], refusal)
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
