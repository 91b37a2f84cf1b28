"""One server from its start to its end: sockets, uvicorn, signals, and the lines that say so.

Knows uvicorn and signals; what is served comes from the app and the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol, cast

import uvicorn

from q3e_local import __version__
from q3e_local.server import listen, logs
from q3e_local.server.announce import announce
from q3e_local.server.connection import Connection
from q3e_local.server.guard import App, Guard
from q3e_local.server.metrics import Metrics
from q3e_local.server.naming import Names
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings

STOP_S = 30.0  # what is running may take, once asked to stop
_KEEP_CONNECTION_S = 75  # longer than clients keep theirs, so that it is not us who close under a request
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
                server.on_started = lambda: announce(settings, sockets)
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


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        cast(Any, app),
        http=Connection,
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
