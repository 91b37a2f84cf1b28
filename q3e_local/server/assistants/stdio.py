"""The tools over stdin and stdout: a server for the one program that has started this process.

stdout carries the protocol alone. While it runs, the SDK points file descriptor 1 at stderr, so that whatever prints,
here or in a model's process, goes there. Knows streams and signals; nothing of what the tools do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace

from q3e_local.errors import IndexFileError
from q3e_local.search import places
from q3e_local.server.assistants import need_sdk
from q3e_local.server.assistants.tools import Tools
from q3e_local.server.http import logs
from q3e_local.server.http.signals import Signals
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.served_names import ServedNames
from q3e_local.server.service import RunningService
from q3e_local.server.settings import ServerSettings

_CLOSE_S = 10.0


def serve(settings: ServerSettings, make_service: Callable[[ServerSettings], RunningService]) -> int:
    """Serve until stdin ends, or until a signal, and answer the exit code 0. No model is loaded before it is needed.

    Without `settings.indexes`, all indexes that have names are served, but for those that cannot be used, of which
    stderr is told. Raises MissingPackageError without the SDK, what ServedNames.check and Indexes raise, and
    IndexFileError where no index is left.
    """
    need_sdk()
    logs.set_up(settings.log_format, settings.explain)
    for doubt in ServedNames(settings).check():
        logs.LOGGER.warning(doubt)
    with _indexes(settings) as indexes, Signals() as signals:
        asyncio.run(_serve(settings, indexes, make_service, signals))
    return 0


def _indexes(settings: ServerSettings) -> Indexes:
    if settings.indexes:
        return Indexes(settings)
    named = replace(settings, indexes=tuple(places.names()))
    if not named.indexes:
        raise IndexFileError("there is no index yet; make one with: q3e-local index FOLDER")
    indexes = Indexes(named, lambda name, error: logs.LOGGER.warning("the index %s is left out: %s", name, error))
    if not indexes.names:
        raise IndexFileError("no index can be used; give the names of those to be searched, to see what to do")
    return indexes


async def _serve(
    settings: ServerSettings,
    indexes: Indexes,
    make_service: Callable[[ServerSettings], RunningService],
    signals: Signals,
) -> None:
    """Serve until stdin ends. A signal ends the process right here, once the service is closed."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def heed() -> None:
        loop.call_soon_threadsafe(asked.set)

    signals.on_signal = heed
    service = make_service(settings)
    speaking = asyncio.ensure_future(_speak(Tools(service, indexes, settings)))
    waiting = asyncio.ensure_future(asked.wait())
    await asyncio.wait((speaking, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await service.close()
    if not speaking.done():
        # A thread of the SDK waits for a line on stdin, and Python would wait for that thread.
        sys.stderr.flush()
        os._exit(signals.exit_code)
    speaking.result()


async def _speak(tools: Tools) -> None:
    """Answer what comes on stdin, until it ends or nobody reads the answers any more."""
    from mcp.server.stdio import stdio_server

    from q3e_local.server.assistants.protocol import protocol_server

    server = protocol_server(tools)
    try:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    except* BrokenPipeError:
        logs.LOGGER.info("nobody reads the answers any more")
