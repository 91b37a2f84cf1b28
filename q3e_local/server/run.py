"""One server from its start to its end: sockets, uvicorn, and an end that answers what it cannot finish.

Knows uvicorn; what is served comes from the app and the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NoReturn, Protocol, cast

import uvicorn

from q3e_local import __version__
from q3e_local.server.app import refusal_body
from q3e_local.server.http import listen, logs
from q3e_local.server.http.announce import address, announce
from q3e_local.server.http.asgi import App
from q3e_local.server.http.connection import Connection
from q3e_local.server.http.guard import Guard
from q3e_local.server.http.metrics import Metrics
from q3e_local.server.http.preload import Preload
from q3e_local.server.http.signals import Signals
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.served_names import ServedNames, served_as
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings

STOP_S = 30.0  # what is running may take, once asked to stop
_KEEP_CONNECTION_S = 75  # longer than clients keep theirs, so that it is not us who close under a request
_CLOSE_S = 10.0
_MAX_FILES = 8192

# At the end, in this order.
_TELL_S = 1.0  # requests that were given up get their answer
_LAST_S = 0.5  # a connection that was accepted may still bring its request
_FLUSH_S = 5.0  # clients take what is on its way to them
_AT_ONCE_S = 0.5  # each of these, when asked to stop a second time


class RunningService(Service, Protocol):
    """A service with an end."""

    async def close(self) -> None:
        """Stop every worker and give back all memory."""


Make = Callable[[ServerSettings], RunningService]
MakeApp = Callable[[Service, ServerSettings, Indexes], App]


def serve(settings: ServerSettings, make_service: Make, make_app: MakeApp, stop_s: float = STOP_S) -> int:
    """Serve until a signal, and answer the exit code 0.

    A second signal, or work that was not finished in time, ends the process right here, with 130 or 143 after a
    second signal. Raises ListenError for an address that cannot be had, what ServedNames.check and Indexes raise,
    and what loading `settings.models` raises.
    """
    logs.set_up(settings.log_format, settings.explain)
    # What nobody knows, is not here or cannot run is told before anything starts.
    for doubt in (*ServedNames(settings).check(), *settings.doubts()):
        logs.LOGGER.warning(doubt)
    _allow_many_connections()
    with Indexes(settings) as indexes, Signals() as signals:
        sockets = listen.listen(settings)
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                is_done = runner.run(_serve(settings, sockets, indexes, make_service, make_app, stop_s, signals))
                if not is_done:
                    listen.close(sockets, settings.unix_socket)
                    _leave(signals.exit_code)
        finally:
            listen.close(sockets, settings.unix_socket)
    return 0


async def _serve(
    settings: ServerSettings,
    sockets: list[socket.socket],
    indexes: Indexes,
    make_service: Make,
    make_app: MakeApp,
    stop_s: float,
    signals: Signals,
) -> bool:
    """Whether all that ran came to its end."""
    service = make_service(settings)
    metrics, preload = Metrics(service, indexes), Preload(service, [served_as(given) for given in settings.models])
    guard = Guard(preload.route(metrics.route(make_app(service, settings, indexes))), settings, refusal_body)
    watched = logs.Watch(guard, [logs.log_access, metrics.observe])

    async def begin() -> None:
        if settings.models:
            logs.LOGGER.info("open at %s", address(settings, sockets))
        await preload.load()
        announce(settings, sockets, indexes)

    server = _Server(_config(watched), guard, signals, stop_s, begin)
    try:
        await server.serve(sockets)
    finally:
        # Bounded: a worker that does not end must not keep us from it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AT_ONCE_S if signals.insisted else _CLOSE_S):
                await service.close()
    server.raise_failure()
    logs.LOGGER.info("stopped")
    return server.finished_all and not signals.insisted


def _leave(code: int) -> NoReturn:
    """End without waiting for threads that still work on what nobody waits for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


class _Server(uvicorn.Server):
    """uvicorn's, with a start and an end of our own.

    It listens, then begins. At the end new requests are told to come back while those that run are finished.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        guard: Guard,
        signals: Signals,
        stop_s: float,
        begin: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self.finished_all = True
        self._guard, self._signals, self._stop_s, self._begin = guard, signals, stop_s, begin
        self._beginning: asyncio.Future[None] | None = None
        signals.on_signal = self._heed
        self._heed()  # one may have come before

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to us."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then begin; a beginning that fails is the end."""
        await super().startup(sockets)
        self._beginning = asyncio.ensure_future(self._begin())
        self._beginning.add_done_callback(lambda _: self._heed())

    def raise_failure(self) -> None:
        """Raise what the beginning raised, if it failed."""
        if self._has_failed:
            assert self._beginning is not None
            self._beginning.result()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what runs while new requests are refused, then close."""
        self._guard.stopping = True
        if self._beginning is not None:
            self._beginning.cancel()
        await self._finish()
        await self._stop_listening(sockets or [])
        # What was accepted, and whose request is on its way, is refused too and not left without an answer.
        await self._until(lambda: not any(one.awaits_request for one in self._connections), _LAST_S)
        for one in self._connections:
            one.shutdown()
        await self._until(lambda: not self._connections, _FLUSH_S)
        for one in self._connections:
            one.transport.abort()
        await super().shutdown(sockets)

    async def _finish(self) -> None:
        running = self._guard.running
        if running:
            what = "1 request" if len(running) == 1 else f"{len(running)} requests"
            logs.LOGGER.info("stopping; finishing %s (Ctrl-C again stops at once)", what)
        until = time.monotonic() + self._stop_s
        while running and not self._signals.insisted and time.monotonic() < until:
            await asyncio.sleep(0.02)
        if running:
            self.finished_all = False
            logs.LOGGER.warning("requests that were not finished: %d", len(running))
            running.give_up()
            await self._until(lambda: not running, _TELL_S)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        # subtle: the loop gives up its listeners a turn later than it accepts for the last time, and whoever connects
        # between the two would be reset. So these stay open until all are in.
        kept = [one.dup() for one in sockets]
        for listener in self.servers:
            listener.close()
        for one in sockets:
            one.close()
        await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        for client in listen.close_taking(kept):
            client.setblocking(False)
            with contextlib.suppress(OSError):  # it is gone
                await loop.connect_accepted_socket(self._connection, client)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        """Wait for this, but not longer; what came in by now is looked at in any case."""
        began = time.monotonic()
        await asyncio.sleep(0.01)
        while not true():
            if time.monotonic() - began > (min(seconds, _AT_ONCE_S) if self._signals.insisted else seconds):
                break
            await asyncio.sleep(0.02)

    @property
    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self.server_state.connections))

    @property
    def _has_failed(self) -> bool:
        done = self._beginning
        return done is not None and done.done() and not done.cancelled() and done.exception() is not None

    def _heed(self) -> None:
        self.should_exit = self._signals.asked or self._has_failed
        self.force_exit = self._signals.insisted


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
        timeout_graceful_shutdown=1,
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
