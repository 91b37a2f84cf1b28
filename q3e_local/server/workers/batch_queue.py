"""Texts of all requests, merged into full batches: `BatchQueue`, one for each loaded model.

Knows ids, vectors and whose turn it is; nothing of texts, models or HTTP. Everything here runs on the event loop
but the engine's decode, which has a thread of its own.
"""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from q3e_local.embedding.batching import Load
from q3e_local.embedding.engine import Engine
from q3e_local.errors import BadVectorError, Q3EError
from q3e_local.server.errors import QueueFullError, StoppingError, WorkerDiedError
from q3e_local.server.workers.counters import Counters
from q3e_local.server.workers.suspects import Suspects
from q3e_local.vectors import Vectors

Ids = tuple[int, ...]

RETRY_MAX_S = 60
# How far past a request's next text one is looked for that still fits into the batch.
_LOOK_AHEAD = 32
# Ids that are lined up in one go: some 5 ms.
_IDS_AT_ONCE = 200_000
# Weight of the newest batch in the measured rate.
_NEWEST = 0.2


class _Request:
    """One caller's texts. `rows` fills in any order."""

    def __init__(self, n_texts: int, dim: int, done: asyncio.Future[None]) -> None:
        self.rows = np.empty((n_texts, dim), np.float32)
        self.n_left = n_texts
        self.done = done
        self.waiting: deque[_Text] = deque()

    def give(self, index: int, vector: Vectors) -> None:
        self.rows[index] = vector[: self.rows.shape[1]]
        self.n_left -= 1
        if self.n_left == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False)
class _Text:
    """Ids to decode, for all that want them."""

    ids: Ids
    prefix: Ids = ()  # its beginning, that others are expected to have too
    begun: bool = False
    retried: bool = False
    wanted: list[tuple[_Request, int]] = field(default_factory=list)

    @property
    def is_waiting(self) -> bool:
        return not self.begun and bool(self.wanted)


class BatchQueue:
    """Decodes the texts of many requests in batches of up to `engine.n_batch` tokens.

    Requests take turns, text by text, so a large one does not hold up a small one. Identical texts in flight are
    decoded once. A text longer than a batch goes alone, one at a time, and beside the batches of the others: the
    engine computes batches between the layers of its pieces. When the model's process dies, or hangs, each text it
    was at is tried once more by itself, and only the one that kills it fails.
    """

    def __init__(self, engine: Engine, n_waiting_max: int, counters: Counters | None = None) -> None:
        self.counters = counters or Counters()
        self.counters.waiting = 0
        self._engine = engine
        self._n_waiting_max = n_waiting_max
        self._turns: deque[_Request] = deque()  # those with waiting texts, the next one first
        self._in_flight: dict[Ids, _Text] = {}
        self._n_waiting_tokens = 0
        self._tokens_per_s: float | None = None
        self._long: asyncio.Task[None] | None = None  # at most one text longer than a batch
        self._beside_long = False  # whether batches were computed since it began
        self._suspects: Suspects[_Text] = Suspects()
        self._stopping = False
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(2, thread_name_prefix="q3e-decode")  # for batches, and for a long text
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="q3e batches")

    async def decode(
        self, sequences: Sequence[Sequence[int]], dim: int | None = None, n_prefix: Sequence[int] | None = None
    ) -> Vectors:
        """Pooled vectors (n, dim), cut but not scaled, in the order of `sequences`; `n_prefix` is as in `Engine`.

        Raises QueueFullError at once; the error of the first text that fails, BadVectorError with its place; or
        StoppingError. When cancelled, what has not begun is not decoded.
        """
        request = _Request(len(sequences), dim or self._engine.n_embd, asyncio.get_running_loop().create_future())
        if not sequences:
            return request.rows
        self.check(len(sequences))
        try:
            await self._line_up(request, sequences, n_prefix or [0] * len(sequences))
            self._turns.append(request)
            self._wake.set()
            await request.done
        finally:
            if request.n_left:
                self._withdraw(request)
            if request.done.done() and not request.done.cancelled():
                # Mark the exception as retrieved: asyncio warns of a future whose exception nobody has read.
                request.done.exception()
        return request.rows

    def check(self, n_texts: int) -> None:
        """Raise QueueFullError if a request of so many texts must come again later, StoppingError if never.

        As requests take turns, at most `n_texts` texts of each other one come before the last of this one. So a
        single question finds a place behind another's 10,000 texts. An empty queue takes a request of any size.
        """
        if self._stopping:
            raise StoppingError("the server is shutting down")
        before = sum(min(len(other.waiting), n_texts) for other in self._turns)
        if before and before + n_texts > self._n_waiting_max:
            self.counters.refused += 1
            retry_after_s = self._retry_after_s()
            raise QueueFullError(
                f"{self.counters.waiting} texts wait already, and {before + n_texts} would before this request is "
                f"done; the limit is {self._n_waiting_max}; try again in {retry_after_s} s",
                retry_after_s,
            )

    async def close(self, timeout_s: float) -> None:
        """Refuse new requests, finish those that are here within `timeout_s`, and fail the rest."""
        self._stopping = True
        self._wake.set()
        try:
            await asyncio.wait([self._runner], timeout=timeout_s)
        finally:
            for text in list(self._in_flight.values()):
                self._fail(text, StoppingError("the server is shutting down"))
            self._runner.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _line_up(self, request: _Request, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int]) -> None:
        """Find or make the text of each sequence; others have their turn after some of them.

        Raises StoppingError when the queue was closed meanwhile.
        """
        n_ids = 0
        for index, (given, n) in enumerate(zip(sequences, n_prefix, strict=True)):
            n_ids += len(given)
            if n_ids > _IDS_AT_ONCE:
                await asyncio.sleep(0)
                n_ids = len(given)
                if self._stopping:
                    raise StoppingError("the server is shutting down")
            ids = tuple(given)
            text = self._in_flight.get(ids)
            if text is None:
                text = self._in_flight[ids] = _Text(ids, ids[:n])
                self._count_waiting(text, 1)
            else:
                self.counters.shared += 1
            text.wanted.append((request, index))
            if text.is_waiting:
                request.waiting.append(text)  # in each one's own line, to come at the first one's turn

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0)  # let in what has arrived meanwhile: fuller batches
            batch = self._next_batch()
            if batch and len(batch[0].ids) > self._engine.n_batch:
                self._beside_long = False
                self._long = asyncio.get_running_loop().create_task(self._decode(batch), name="q3e long text")
                self._long.add_done_callback(lambda _: self._long_done())
            elif batch:
                await self._decode(batch)
            elif self._stopping:
                if self._long is not None:
                    await asyncio.wait([self._long])
                if not self._turns and not self._suspects:
                    return
            else:
                self._wake.clear()
                await self._wake.wait()

    def _long_done(self) -> None:
        self._long = None
        self._wake.set()

    def _next_batch(self) -> list[_Text]:
        """The next in turn, and what fits beside it; a suspect, which comes first, stays by itself."""
        while (suspect := self._suspects.take(self._engine.n_batch, or_longer=self._long is None)) is not None:
            if suspect.wanted:
                return [suspect]
            self._in_flight.pop(suspect.ids, None)
        batch: list[_Text] = []
        load, n_batch = Load(), self._engine.n_batch
        only_short = self._long is not None
        passed: list[_Request] = []  # nothing of theirs fits: they keep their places in front
        while self._turns and load.n_cells < n_batch and len(batch) < self._engine.n_seq_max:
            request = self._turns.popleft()
            # The first of a batch is whatever comes next, so that nothing waits for ever for a place it fits in.
            text = self._take(request, load, n_batch if batch or only_short else None)
            if text is None:
                if request.waiting:
                    passed.append(request)
                continue
            batch.append(text)
            self._begin(text)
            load.add(len(text.ids), text.prefix)
            self._turns.append(request)
            if len(text.ids) > n_batch:
                break
        self._turns.extendleft(reversed(passed))
        return batch

    def _take(self, request: _Request, load: Load, n_max: int | None) -> _Text | None:
        """The request's next text with which a batch has at most `n_max` cells, looking a little ahead."""
        waiting = request.waiting
        while waiting and not waiting[0].is_waiting:  # begun in another's line
            waiting.popleft()
        for place, text in enumerate(waiting):
            if place >= _LOOK_AHEAD:
                break
            if not text.is_waiting:
                continue
            if n_max is None or load.n_cells + load.cost(len(text.ids), text.prefix) <= n_max:
                del waiting[place]
                return text
        return None

    def _begin(self, text: _Text) -> None:
        text.begun = True
        self._count_waiting(text, -1)

    async def _decode(self, batch: list[_Text]) -> None:
        loop = asyncio.get_running_loop()
        is_long = len(batch[0].ids) > self._engine.n_batch
        self._beside_long |= not is_long
        in_company = len(batch) > 1 or (not is_long and self._long is not None)
        while batch:
            begun = time.perf_counter()
            try:
                sequences, n_prefix = [text.ids for text in batch], [len(text.prefix) for text in batch]
                vectors = await loop.run_in_executor(self._thread, self._engine.decode, sequences, n_prefix)
                done = list(zip(batch, vectors, strict=True))
            except Exception as error:  # whatever it is, the callers hear of it and the others go on
                if isinstance(error, BadVectorError) and error.index < len(batch):
                    self._fail(batch.pop(error.index), error)  # and its neighbours are decoded a second time
                    continue
                if isinstance(error, WorkerDiedError):
                    batch = self._suspects.died(batch, in_company=in_company or (is_long and self._beside_long))
                    self._wake.set()
                for text in batch:
                    self._fail(text, error)
                batch = []
            else:
                self._suspects.lived()
                for text, vector in done:
                    self._give(text, vector)
                self._measure(batch, time.perf_counter() - begun)
                batch = []

    def _give(self, text: _Text, vector: Vectors) -> None:
        self._in_flight.pop(text.ids, None)
        self.counters.texts += 1
        self.counters.tokens += len(text.ids)
        for request, index in text.wanted:
            request.give(index, vector)

    def _fail(self, text: _Text, error: Exception) -> None:
        self._in_flight.pop(text.ids, None)
        if text.is_waiting:
            self._begin(text)
        self.counters.failed += isinstance(error, BadVectorError)
        for request, index in text.wanted:
            if isinstance(error, BadVectorError):
                request.fail(BadVectorError(error.message, index))
            else:
                # Each its own: tracebacks grow on an error that several tasks raise.
                request.fail(copy.copy(error) if isinstance(error, Q3EError) else error)

    def _withdraw(self, request: _Request) -> None:
        """Give a request's places back."""
        if request in self._turns:
            self._turns.remove(request)
        request.waiting.clear()
        for ids, text in list(self._in_flight.items()):
            was_waiting = text.is_waiting
            text.wanted = [wanted for wanted in text.wanted if wanted[0] is not request]
            if was_waiting and not text.wanted:
                del self._in_flight[ids]
                self._count_waiting(text, -1)

    def _count_waiting(self, text: _Text, change: int) -> None:
        self.counters.waiting += change
        self._n_waiting_tokens += change * len(text.ids)

    def _measure(self, batch: list[_Text], seconds: float) -> None:
        self.counters.batches += 1
        self.counters.seconds += seconds
        rate = sum(len(text.ids) for text in batch) / max(seconds, 1e-6)
        known = self._tokens_per_s
        self._tokens_per_s = rate if known is None else (1 - _NEWEST) * known + _NEWEST * rate

    def _retry_after_s(self) -> int:
        """When what waits now will be done at the rate of late, in whole seconds."""
        if self._tokens_per_s is None:
            return 1
        return max(1, min(RETRY_MAX_S, math.ceil(self._n_waiting_tokens / self._tokens_per_s)))
