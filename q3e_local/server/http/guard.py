"""The checks before any route: host, origin, key, size and time of the body, and whether the server is stopping.

Pure ASGI, around any app. A body is read whole before the app is called, so that slow and oversized bodies never
reach a route. Knows HTTP; nothing of models.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from q3e_local.server.http.in_flight import Request, Running
from q3e_local.server.http.page import is_page
from q3e_local.server.http.refusal import OPEN_PATHS, Refusal, Wording, answer, has_body
from q3e_local.server.settings import ServerSettings
from q3e_local.wording import address

# Ollama's defaults. The user may add more.
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - compared, not bound
_DEFAULT_ORIGINS = (
    *(f"{scheme}://{host}{port}" for host in _LOCAL_HOSTS for scheme in ("http", "https") for port in ("", ":*")),
    *(f"{scheme}://*" for scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file")),
)
_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,2000}")

RawHeaders = list[tuple[bytes, bytes]]

_IDLE_S = 20.0  # without a byte of the body
_SLOWEST_BYTES_S = 16 * 1024  # of a body, once the idle time is granted
_MAX_HELD_BYTES = 512 * 1024 * 1024  # of all bodies together


class Guard:
    """The app behind the checks. `running` are its requests; once `stopping` is set, new requests are refused."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        wording: Wording,
        *,
        idle_s: float = _IDLE_S,
        max_held_bytes: int = _MAX_HELD_BYTES,
    ) -> None:
        self._app, self._wording = app, wording
        self._max_body_bytes = settings.max_body_bytes
        # No web page reaches a Unix socket, and a server on all addresses cannot know the names that clients use.
        self._checks_host = settings.unix_socket is None and not settings.is_public
        self._origins = _pattern((*_DEFAULT_ORIGINS, *settings.origins))
        self._keys = [_digest(key.encode("ascii")) for key in settings.api_keys]
        self._own_name = socket.gethostname().lower()
        self._idle_s, self._max_held_bytes, self._held_bytes = idle_s, max_held_bytes, 0
        self.stopping = False
        self.running = Running(wording)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        cors = self._cors(headers, scope)
        if cors:
            send = _with_headers(send, cors)
        refusal = self._refuse(scope, headers, cors)
        if refusal is not None:
            await answer(scope, receive, send, refusal, self._wording)
            return
        if scope["method"] == "OPTIONS" and (cors or not headers.get("origin")):
            await _preflight(send, headers)
            return
        async with self.running.one(scope, receive, send) as request:
            try:
                if has_body(headers):
                    body = await self._read(headers, receive, request)
                    if isinstance(body, Refusal):
                        await answer(scope, receive, request.send, body, self._wording)
                        return
                    if body is None:  # the client went away
                        return
                    receive = _replay(body, receive)
                request.is_read = True
                await self._app(scope, receive, request.send)
            finally:
                self._held_bytes -= request.n_held_bytes

    def _refuse(self, scope: Scope, headers: Headers, cors: RawHeaders | None) -> Refusal | None:
        if self.stopping:
            return Refusal(503, "the server is stopping")
        if len(headers.getlist("host")) > 1:
            return Refusal(400, "the request has more than one Host header")
        if self._checks_host and not self._is_own(headers.get("host", ""), scope):
            return Refusal(403, "this server answers requests to this machine only; the Host header names another")
        if cors is None:
            return Refusal(403, "this web page may not use the server; its origin can be allowed with --origins")
        # The page holds nothing of this machine, and a browser cannot send a key before the page has asked for it.
        is_open = scope["method"] == "OPTIONS" or scope["path"] in OPEN_PATHS or is_page(scope)
        if self._keys and not is_open and not self._knows(headers):
            return Refusal(401, "Invalid API Key")
        return None

    def _is_own(self, header: str, scope: Scope) -> bool:
        host = address.split_host(header.strip())
        if host in ("", "localhost", self._own_name) or host.endswith((".localhost", ".local", ".internal")):
            return True
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False
        local = scope.get("server")
        return ip.is_loopback or ip.is_private or ip.is_unspecified or (local is not None and host == local[0])

    def _cors(self, headers: Headers, scope: Scope) -> RawHeaders | None:
        """What to add to the answer for a page of this origin; None where the page may not use the server."""
        origin, host = headers.get("origin", ""), headers.get("host", "")
        if not origin:
            return []
        # A page that this server sent. On a public address, a foreign name may have been rebound to this machine, so
        # the name has to be a name of this machine too.
        if origin in (f"http://{host}", f"https://{host}") and self._is_own(host, scope):
            return [(b"vary", b"Origin")]
        if not self._origins.fullmatch(origin.lower()):
            return None
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"*"),
            (b"vary", b"Origin"),
        ]

    def _knows(self, headers: Headers) -> bool:
        """Whether the request has one of the keys."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        sent = [bearer if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        digests = [_digest(key.strip().encode("latin-1")) for key in sent]
        # Every key is compared, so that the time does not say which one fits.
        return sum(hmac.compare_digest(digest, key) for digest in digests for key in self._keys) > 0

    async def _read(self, headers: Headers, receive: Receive, request: Request) -> bytes | Refusal | None:
        """The whole body, or why it is refused; None where the client went away."""
        limit = self._max_body_bytes
        too_large = Refusal(413, f"the request body is larger than {limit} bytes")
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            return too_large
        loop = asyncio.get_running_loop()
        started = loop.time()
        chunks: list[bytes] = []
        n_bytes = 0
        while True:
            # Idle time for the next piece; and in all no slower than the slowest.
            time_left = started + 2 * self._idle_s + n_bytes / _SLOWEST_BYTES_S - loop.time()
            try:
                async with asyncio.timeout(min(self._idle_s, max(0.0, time_left))):
                    message = await receive()
            except TimeoutError:
                return Refusal(408, "the request body came too slowly")
            if message["type"] != "http.request":
                return None
            chunk = message.get("body", b"")
            n_bytes += len(chunk)
            if n_bytes > limit:
                return too_large
            if self._held_bytes + len(chunk) > self._max_held_bytes:
                return Refusal(503, "the server holds too many large requests")
            self._held_bytes += len(chunk)
            request.n_held_bytes += len(chunk)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks) if len(chunks) > 1 else chunk


def _pattern(origins: Iterable[str]) -> re.Pattern[str]:
    """An allow list as Ollama reads it: each origin exact, or with one `*`; `*` alone is everyone."""
    stripped = (origin.strip().lower().rstrip("/") for origin in origins)
    return re.compile("|".join(".*".join(map(re.escape, origin.split("*", 1))) for origin in stripped))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then the connection's messages, of which only the end is left."""
    is_sent = False

    async def replayed() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send, headers: RawHeaders) -> Send:
    async def added(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return added


async def _preflight(send: Send, headers: Headers) -> None:
    answer = [(b"allow", _METHODS)]
    if headers.get("access-control-request-method"):
        # Every header that the page wants to send: x-stainless-*, OpenAI-Beta, X-Api-Key. Its origin decides.
        names = headers.get("access-control-request-headers", "")
        answer += [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", names.encode("ascii") if _HEADER_NAMES.fullmatch(names) else b"*"),
            (b"access-control-max-age", b"43200"),
        ]
        if headers.get("access-control-request-private-network") == "true":
            answer.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": answer})
    await send({"type": "http.response.body", "body": b""})
