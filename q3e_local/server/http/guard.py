"""What every request passes before a route sees it: host, origin, key, size, time, and a server that is stopping.

Pure ASGI, around whatever app it is given. Knows HTTP; nothing of models. A body is read whole before the app is
called, so that slow and oversized ones never reach a route.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable

from q3e_local.server.http.asgi import App, Headers, Message, Receive, RequestHeaders, Scope, Send
from q3e_local.server.http.in_flight import Running
from q3e_local.server.http.refusal import OPEN_PATHS, RETRY_AFTER_S, Refusal, Wording, answer
from q3e_local.server.settings import ServerSettings
from q3e_local.wording import address

# Ollama's defaults. The user may add more.
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - compared, not bound
_DEFAULT_ORIGINS = (
    *(f"{scheme}://{host}{port}" for host in _LOCAL_HOSTS for scheme in ("http", "https") for port in ("", ":*")),
    *(f"{scheme}://*" for scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file")),
)
_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,2000}")

_IDLE_S = 20.0  # without a byte of the body
_SLOWEST_BYTES_S = 16 * 1024  # of a body, once the idle time is granted
_MAX_HELD_BYTES = 512 * 1024 * 1024  # of all bodies together


class Guard:
    """The app, guarded. `running` are the requests with it now; once `stopping` is set, new ones are turned away."""

    def __init__(
        self,
        app: App,
        settings: ServerSettings,
        wording: Wording,
        *,
        idle_s: float = _IDLE_S,
        max_held_bytes: int = _MAX_HELD_BYTES,
    ) -> None:
        self._app, self._wording = app, wording
        self._max_body_bytes = settings.max_body_bytes
        # A page cannot reach a Unix socket, and clients call a server on all addresses by names that it cannot know.
        self._checks_host = settings.unix_socket is None and not settings.is_public
        self._origins = _Origins((*_DEFAULT_ORIGINS, *settings.origins))
        self._keys = [_digest(key.encode("ascii")) for key in settings.api_keys]
        self._own_name = socket.gethostname().lower()
        self._idle_s, self._max_held_bytes, self._held_bytes = idle_s, max_held_bytes, 0
        self.stopping = False
        self.running = Running(wording)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = RequestHeaders(scope["headers"])
        cors = self._cors(headers, scope)
        refusal = self._refuse(scope, headers, cors)
        if refusal is not None:
            await answer(scope, receive, send, refusal, self._wording(scope["path"], refusal), cors or [])
            return
        if scope["method"] == "OPTIONS" and (cors or not headers.first(b"origin")):
            await _preflight(send, headers, cors or [])
            return
        async with self.running.one(scope, receive, send, cors or []) as request:
            held = _Held(self)
            try:
                if headers.has_body:
                    body = await self._read(headers, receive, held)
                    if isinstance(body, Refusal):
                        worded = self._wording(scope["path"], body)
                        await answer(scope, receive, request.send, body, worded, cors or [])
                        return
                    if body is None:  # the client went away
                        return
                    receive = _replay(body, receive)
                request.is_read = True
                await self._app(scope, receive, _with_headers(request.send, cors) if cors else request.send)
            finally:
                held.release()

    def _refuse(self, scope: Scope, headers: RequestHeaders, cors: Headers | None) -> Refusal | None:
        if self.stopping:
            return Refusal(503, "the server is stopping", "unavailable", retry_after_s=RETRY_AFTER_S)
        if len(headers.all(b"host")) > 1:
            return Refusal(400, "the request has more than one Host header")
        if self._checks_host and not self._is_own(headers.first(b"host"), scope):
            return Refusal(
                403, "this server answers requests to this machine only; the Host header names another", "forbidden"
            )
        if cors is None:
            return Refusal(
                403, "this web page may not use the server; its origin can be allowed with --origins", "forbidden"
            )
        if (
            self._keys
            and scope["method"] != "OPTIONS"
            and scope["path"] not in OPEN_PATHS
            and not self._knows(headers)
        ):
            return Refusal(401, "Invalid API Key", "no key")
        return None

    def _is_own(self, header: bytes, scope: Scope) -> bool:
        host = address.split_host(header.decode("latin-1").strip())
        if host in ("", "localhost", self._own_name) or host.endswith((".localhost", ".local", ".internal")):
            return True
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False
        local = scope.get("server")
        return ip.is_loopback or ip.is_private or ip.is_unspecified or (local is not None and host == local[0])

    def _cors(self, headers: RequestHeaders, scope: Scope) -> Headers | None:
        """What to add to the answer for a page of this origin; None where it may not ask."""
        origin = headers.first(b"origin")
        if not origin:
            return []
        text = origin.decode("latin-1")
        host = headers.first(b"host").decode("latin-1")
        # A page that this server sent. On a public address, a foreign name may have been rebound to this machine, so
        # the name has to be a name of this machine too.
        if text in (f"http://{host}", f"https://{host}") and self._is_own(host.encode("latin-1"), scope):
            return [(b"vary", b"Origin")]
        if not self._origins.allow(text):
            return None
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"*"),
            (b"vary", b"Origin"),
        ]

    def _knows(self, headers: RequestHeaders) -> bool:
        scheme, _, given = headers.first(b"authorization").partition(b" ")
        if scheme.lower() != b"bearer":
            given = b""
        found = False
        for candidate in (given.strip(), headers.first(b"x-api-key").strip()):
            digest = _digest(candidate)
            for key in self._keys:  # every key, so that the time does not say which one fits
                found |= hmac.compare_digest(digest, key)
        return found

    async def _read(self, headers: RequestHeaders, receive: Receive, held: _Held) -> bytes | Refusal | None:
        limit = self._max_body_bytes
        too_large = Refusal(413, f"the request body is larger than {limit} bytes")
        announced = headers.first(b"content-length")
        if announced.isdigit() and int(announced) > limit:
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
            if not held.add(len(chunk)):
                return Refusal(
                    503, "the server holds too many large requests", "unavailable", retry_after_s=RETRY_AFTER_S
                )
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks) if len(chunks) > 1 else chunk


class _Held:
    """The bytes of a request's body, counted with the bytes of all bodies."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._n_bytes = guard, 0

    def add(self, n_bytes: int) -> bool:
        guard = self._guard
        if guard._held_bytes + n_bytes > guard._max_held_bytes:
            return False
        guard._held_bytes += n_bytes
        self._n_bytes += n_bytes
        return True

    def release(self) -> None:
        self._guard._held_bytes -= self._n_bytes
        self._n_bytes = 0


class _Origins:
    """An allow list as Ollama reads it: exact, or with one `*`; `*` alone is everyone."""

    def __init__(self, patterns: Iterable[str]) -> None:
        exact, wild = set(), []
        for pattern in patterns:
            before, star, after = pattern.strip().lower().rstrip("/").partition("*")
            if not star:
                exact.add(before)
            else:
                wild.append((before, after))
        self._exact, self._wild = frozenset(exact), tuple(wild)

    def allow(self, origin: str) -> bool:
        origin = origin.lower()
        return origin in self._exact or any(
            len(origin) >= len(before) + len(after) and origin.startswith(before) and origin.endswith(after)
            for before, after in self._wild
        )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then the connection's messages, of which only the end is left."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send, headers: Headers) -> Send:
    async def added(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return added


async def _preflight(send: Send, headers: RequestHeaders, cors: Headers) -> None:
    asked = headers.first(b"access-control-request-headers")
    answer: Headers = [*cors, (b"allow", _METHODS)]
    if headers.first(b"access-control-request-method"):
        answer += [
            (b"access-control-allow-methods", _METHODS),
            # Every header that the page wants to send: x-stainless-*, OpenAI-Beta, X-Api-Key. Its origin decides.
            (b"access-control-allow-headers", asked if _HEADER_NAMES.fullmatch(asked) else b"*"),
            (b"access-control-max-age", b"43200"),
        ]
        if headers.first(b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": answer})
    await send({"type": "http.response.body", "body": b""})
