"""A client's connection: uvicorn's, with three limits that no setting of uvicorn has, as its constants say.

Every method that is overridden is a callback of asyncio's Protocol or of httptools' parser. Knows these two, and
uvicorn's class by its `transport` and `loop`; nothing of requests and answers.
"""

from __future__ import annotations

import asyncio
from typing import cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# uvicorn's timeout_keep_alive begins after an answer: a client that sends no headers would keep its place for ever.
_HEADERS_S = 20.0
# uvicorn's h11_max_incomplete_event_size is for h11 alone, and httptools has no limit: headers without end would fill
# the memory.
_MAX_HEADER_BYTES = 64 * 1024
# An answer may have 60 MB. uvicorn would keep it for ever for a client that takes nothing of it, such as a suspended
# laptop's.
_STALLED_S = 30.0


class Connection(HttpToolsProtocol):
    """uvicorn's, with limits for the time and bytes of headers, and for the time in which an answer is not taken."""

    _waiting: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _n_header_bytes = 0

    @property
    def awaits_request(self) -> bool:
        """Whether a request has begun and its headers are not whole, or the first one has not come."""
        return self._waiting is not None and not self.transport.is_closing()

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
        # `close` would first send the rest of the answer, which the client does not take.
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
