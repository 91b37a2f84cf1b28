"""One server from its start to its end: sockets, uvicorn, signals, and the lines that say so.

Knows uvicorn and signals; what is served comes from the app and the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from q3e_local import __version__, store
from q3e_local.address import Address
from q3e_local.catalog import DEFAULT_MODEL
from q3e_local.server import listen, logs
from q3e_local.server.guard import App, Guard
from q3e_local.server.metrics import Metrics
from q3e_local.server.naming import Names
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings

STOP_S = 30.0  # what is running may take, once asked to stop
_KEEP_CONNECTION_S = 75  # longer than clients keep theirs, so that it is not us who close under a request
_HEADERS_S = 20.0
_MAX_HEADER_BYTES = 64 * 1024
_STALLED_S = 30.0  # a client that takes nothing of its answer
_CLOSE_S = 10.0
_MAX_FILES = 8192

_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]


class RunningService(Service, Protocol):
    """A service with an end."""

    async def close(self) -> None:
        """Stop every worker and give back all memory."""


Make = Callable[[ServerSettings], RunningService]
MakeApp = Callable[[Service, ServerSettings], App]


def serve(settings: ServerSettings, make_service: Make, make_app: MakeApp, stop_s: float = STOP_S) -> int:
    """Serve until a signal, and answer the exit code: 0, or 130 where a second Ctrl-C cut it short.

    Raises ListenError for an address that cannot be had, and what loading `settings.models` raises.
    """
    logs.set_up(settings.log_format)
    names = Names(settings.aliases, settings.models)
    for model in settings.models:
        names.resolve(model)  # what nobody knows, or is not here, is told before anything starts
    _allow_many_connections()
    sockets = listen.listen(settings)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(settings, sockets, make_service, make_app, stop_s))
    finally:
        listen.close(sockets, settings.unix_socket)


async def _serve(
    settings: ServerSettings, sockets: list[socket.socket], make_service: Make, make_app: MakeApp, stop_s: float
) -> int:
    service = make_service(settings)
    metrics = Metrics(service)
    guard = Guard(metrics.route(make_app(service, settings)), settings)
    watched = logs.Watch(guard, [logs.log_access, metrics.observe])
    server = _Server(_config(watched), guard, stop_s)
    try:
        with server.signals():
            await _load(service, settings, server)
            if not server.should_exit:
                server.on_started = lambda: _announce(settings, sockets)
                await server.serve(sockets)
    finally:
        # Bounded: a worker that does not end must not keep us from it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5 if server.force_exit else _CLOSE_S):
                await service.close()
    logs.LOGGER.info("stopped")
    return 130 if server.force_exit else 0


async def _load(service: Service, settings: ServerSettings, server: _Server) -> None:
    """Load what was asked for before the first request is taken; a signal ends it."""
    for model in settings.models:
        logs.LOGGER.info("loading %s", model)
        loading = asyncio.ensure_future(service.load(model, None))
        while not loading.done() and not server.should_exit:
            await asyncio.wait([loading], timeout=0.1)
        if server.should_exit:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return
        await loading


class _Server(uvicorn.Server):
    """uvicorn's, with an end of our own: new requests are told to come back while those that run are finished."""

    def __init__(self, config: uvicorn.Config, guard: Guard, stop_s: float) -> None:
        super().__init__(config)
        self._guard, self._stop_s = guard, stop_s
        self.on_started: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take the signals for the whole time, loading included, and do not raise them again at the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first asks, a second Ctrl-C insists."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self.on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what runs while new requests are refused, then close."""
        self._guard.stopping = True
        n_running = self._guard.n_running
        if n_running:
            what = "1 request" if n_running == 1 else f"{n_running} requests"
            logs.LOGGER.info("stopping; finishing %s (Ctrl-C again stops at once)", what)
        until = time.monotonic() + self._stop_s
        while self._guard.n_running and not self.force_exit and time.monotonic() < until:
            await asyncio.sleep(0.05)
        if self._guard.n_running:
            logs.LOGGER.warning("requests that were not finished: %d", self._guard.n_running)
            # Nobody is waited for any longer.
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        await super().shutdown(sockets)


class _Connection(HttpToolsProtocol):
    """uvicorn's, with limits it does not have: time and room for headers, and for an answer that nobody takes."""

    _waiting: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _n_header_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._n_header_bytes = 0
        if self._waiting is None:
            self._wait_for_headers()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_stall()

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def _watch_stall(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(_STALLED_S, self._abort_when_stalled, left)

    def _stop_watching(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _abort_when_stalled(self, before: int) -> None:
        # Closing would first send what is left, which a client that takes nothing holds up for ever.
        if self.transport.get_write_buffer_size() == before:
            self.transport.abort()
        else:
            self._watch_stall()

    def _wait_for_headers(self) -> None:
        self._waiting = self.loop.call_later(_HEADERS_S, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_slow(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()

    def _count(self, n_bytes: int) -> None:
        self._n_header_bytes += n_bytes
        if self._n_header_bytes > _MAX_HEADER_BYTES:
            raise httptools.HttpParserError("the headers are too large")


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        cast(Any, app),
        http=_Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("server", f"q3e-local/{__version__}")],
        proxy_headers=False,
        timeout_keep_alive=_KEEP_CONNECTION_S,
        timeout_graceful_shutdown=5,
    )


def _allow_many_connections() -> None:
    """Raise our own limit of open files, which is 256 on some systems, as far as we may."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(_MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for Windows
        return None
    return cast(Callable[[], asyncio.AbstractEventLoop], uvloop.new_event_loop)


def _announce(settings: ServerSettings, sockets: list[socket.socket]) -> None:
    """Say where, what and how, and a line to try."""
    port = sockets[0].getsockname()[1] if settings.unix_socket is None else 0
    url = str(Address("http", settings.host or "0.0.0.0", port))  # noqa: S104 - shown
    where = url if settings.unix_socket is None else f"unix:{settings.unix_socket}"
    model = _model_to_try(settings)
    alive = settings.keep_alive_s
    n_keys = len(settings.api_keys)
    keys = f"{n_keys}, one of which the last line takes from Q3E_API_KEY" if n_keys else "none needed"
    lines = [
        f"q3e-local {__version__} listens on {where}",
        f"models: {', '.join(settings.models) or f'loaded on first use, such as {model}'}; at most "
        f"{settings.max_loaded} in memory, unloaded " + (f"after {_span(alive)} unused" if alive >= 0 else "never"),
        f"keys: {keys}; queue: {settings.max_queue:,} texts; "
        f"texts a request: {settings.max_items:,}; body: {settings.max_body_bytes // 1024:,} KiB",
        f"try: {_curl(settings, port, model)}",
    ]
    if settings.log_format == "json":
        fields = {"address": where, "models": list(settings.models), "version": __version__, "pid": os.getpid()}
        logs.LOGGER.info("listening", extra={"fields": fields})
    else:
        for line in lines:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - what a person waits for
    if settings.is_public and not settings.api_keys:
        logs.LOGGER.warning(
            "every machine that reaches %s may use this server; ask for a key with --api-key or Q3E_API_KEY", where
        )


def _model_to_try(settings: ServerSettings) -> str:
    """A name that works here: one that is loaded, the usual one, or whatever there is."""
    if settings.models:
        given = settings.models[0]
        # A file is asked for by the name it is shown under.
        is_file = given.lower().endswith(".gguf")
        return Names(settings.aliases, settings.models).resolve(given).located.name if is_file else given
    here = [one.name for one in store.installed()]
    if DEFAULT_MODEL in here or not here:
        return DEFAULT_MODEL
    return next((name for name in here if name != "demo"), "demo")


def _curl(settings: ServerSettings, port: int, model: str) -> str:
    body = json.dumps({"model": model, "input": "Why is the sky blue?"})
    if sys.platform == "win32":
        escaped = body.replace('"', '\\"')
        quoted, variable = f'"{escaped}"', "%Q3E_API_KEY%"
    else:
        quoted, variable = f"'{body}'", "$Q3E_API_KEY"
    key = f'-H "Authorization: Bearer {variable}" ' if settings.api_keys else ""
    if settings.unix_socket is not None:
        return f"curl --unix-socket {settings.unix_socket} {key}http://localhost/api/embed -d {quoted}"
    return f"curl {key}{Address('http', settings.host, port).to_connect()}/api/embed -d {quoted}"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
