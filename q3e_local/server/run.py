"""A server from its start to its end: sockets, uvicorn, and an end that answers each request that it cannot finish.

Knows uvicorn's server, whose steps it calls and does not override; the app and the service know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, cast

import uvicorn

from q3e_local import __version__
from q3e_local.models.names import served_as
from q3e_local.server.app import create_app, refusal_body
from q3e_local.server.http import listen, logs
from q3e_local.server.http.announce import address, announce
from q3e_local.server.http.connection import Connection
from q3e_local.server.http.guard import Guard
from q3e_local.server.http.metrics import Metrics
from q3e_local.server.http.preload import Preload
from q3e_local.server.http.signals import Signals
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.served_names import ServedNames
from q3e_local.server.service import RunningService
from q3e_local.server.settings import ServerSettings

STOP_S = 30.0  # for the requests that run when the server is asked to stop
_KEEP_CONNECTION_S = 75  # longer than clients keep connections, so that no client's next request meets a closed one
_CLOSE_S = 10.0  # for the service
_MAX_FILES = 8192

# The steps of the end, in this order, and how long each may take.
_TELL_S = 1.0  # requests that were given up get their answer
_LAST_S = 0.5  # a connection that was accepted may still bring its request
_FLUSH_S = 5  # clients take the answers that are on their way
_AT_ONCE_S = 0.5  # each step, once the server is asked to stop a second time


Make = Callable[[ServerSettings], RunningService]


def serve(
    settings: ServerSettings, make_service: Make, stop_s: float = STOP_S, ready: Callable[[str], None] | None = None
) -> int:
    """Serve until a signal, and answer the exit code 0. `ready` gets the address once requests are answered.

    A second signal, or work that was not finished in time, ends the process right here, with 130 or 143 after a
    second signal. Raises ListenError for an address that cannot be had, what ServedNames.check and Indexes raise,
    and what loading `settings.models` raises.
    """
    logs.set_up(settings.log_format, settings.explain)
    # A model that is unknown, is not here or cannot run is reported before anything starts.
    for doubt in (*ServedNames(settings).check(), *settings.doubts()):
        logs.LOGGER.warning(doubt)
    _allow_many_connections()
    with Indexes(settings) as indexes, Signals() as signals:
        sockets = listen.listen(settings)
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                is_done = runner.run(_serve(settings, sockets, indexes, make_service, stop_s, signals, ready))
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
    stop_s: float,
    signals: Signals,
    ready: Callable[[str], None] | None,
) -> bool:
    """Serve to the end. Answers whether every request that ran was finished."""
    service = make_service(settings)
    metrics, preload = Metrics(service, indexes), Preload(service, [served_as(model) for model in settings.models])
    app = create_app(service, settings, indexes, metrics)
    guard = Guard(preload.route(app), settings, refusal_body)
    watched = logs.Watch(guard, [logs.log_access, metrics.observe])

    async def begin() -> None:
        if settings.models:
            logs.LOGGER.info("open at %s", address(settings, sockets))
        await preload.load()
        announce(settings, sockets, indexes)
        if ready is not None:
            ready(address(settings, sockets))

    serving = _Serving(_config(watched), guard, signals, stop_s)
    try:
        await serving.run(sockets, begin)
    finally:
        # Bounded, because a worker that does not end must not keep the server from its end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AT_ONCE_S if signals.insisted else _CLOSE_S):
                await service.close()
    logs.LOGGER.info("stopped")
    return serving.finished_all and not signals.insisted


def _leave(code: int) -> NoReturn:
    """End the process without waiting for threads whose results nobody needs any more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


class _Serving:
    """A uvicorn server, from its first connection to its last.

    uvicorn's `startup`, `main_loop` and `shutdown` are called as they are. uvicorn's `serve` is not, because it takes
    the signals, and closes the listening sockets first: a client that comes while requests are finished would be
    refused its connection, and here it gets a 503 that says when to come back.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard, signals: Signals, stop_s: float) -> None:
        self.finished_all = True  # until a request has to be given up
        self._config, self._server = config, uvicorn.Server(config)
        self._guard, self._signals, self._stop_s = guard, signals, stop_s

    async def run(self, sockets: list[socket.socket], begin: Callable[[], Awaitable[None]]) -> None:
        """Listen, begin, and serve until a signal. Raises what `begin` raises, once everything is closed."""
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup(sockets)
        beginning = asyncio.ensure_future(begin())

        def heed() -> None:
            """Stop at a signal, or when the beginning failed."""
            self._server.should_exit = self._signals.asked or _failed(beginning)
            self._server.force_exit = self._signals.insisted

        self._signals.on_signal = heed
        beginning.add_done_callback(lambda _: heed())
        heed()  # a signal may have come before
        await self._server.main_loop()
        self._guard.stopping = True
        beginning.cancel()
        await self._finish()
        await self._close(sockets)
        if _failed(beginning):
            beginning.result()

    async def _finish(self) -> None:
        """Wait for the requests that run, while new requests are refused; give up requests that take too long."""
        running = self._guard.running
        if running:
            what = "1 request" if len(running) == 1 else f"{len(running)} requests"
            logs.LOGGER.info("stopping; finishing %s (Ctrl-C again stops at once)", what)
        await self._until(lambda: not running or self._signals.insisted, self._stop_s)
        if running:
            self.finished_all = False
            logs.LOGGER.warning("requests that were not finished: %d", len(running))
            running.give_up()
            await self._until(lambda: not running, _TELL_S)

    async def _close(self, sockets: list[socket.socket]) -> None:
        await self._stop_listening(sockets)
        # A request that is on its way is refused too: uvicorn's shutdown would close its connection unanswered.
        await self._until(lambda: not any(each.awaits_request for each in self._connections()), _LAST_S)
        closing = asyncio.ensure_future(self._server.shutdown(sockets))
        await self._until(closing.done, _FLUSH_S)
        for connection in self._connections():
            connection.transport.abort()  # the client does not take its answer, and uvicorn would only cancel tasks
        await closing

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        # subtle: the loop gives up its listeners a turn later than it accepts for the last time, and a client that
        # connects between the two would be reset. So copies of the sockets stay open until all clients are taken.
        kept = [each.dup() for each in sockets]
        for listener in self._server.servers:
            listener.close()
        for each in sockets:
            each.close()
        await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        for client in listen.close_taking(kept):
            client.setblocking(False)
            with contextlib.suppress(OSError):  # it is gone
                await loop.connect_accepted_socket(self._connection, client)

    def _connection(self) -> Connection:
        """What uvicorn makes of a client that it accepts."""
        return Connection(config=self._config, server_state=self._server.server_state, app_state={})

    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self._server.server_state.connections))

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        """Wait until this is true, but not longer. The loop has a turn before, to take in what has already come."""
        began = time.monotonic()
        await asyncio.sleep(0.01)
        while not true():
            if time.monotonic() - began > (min(seconds, _AT_ONCE_S) if self._signals.insisted else seconds):
                break
            await asyncio.sleep(0.02)


def _failed(beginning: asyncio.Future[None]) -> bool:
    return beginning.done() and not beginning.cancelled() and beginning.exception() is not None


def _config(app: logs.Watch) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("server", f"q3e-local/{__version__}")],
        proxy_headers=False,
        # limit_concurrency stays off: it counts idle connections too, and its 503 has no dialect's shape.
        timeout_keep_alive=_KEEP_CONNECTION_S,
        timeout_graceful_shutdown=_FLUSH_S + 1,
    )


def _allow_many_connections() -> None:
    """Raise this process's limit of open files, which is 256 on macOS, as far as the system lets it."""
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
