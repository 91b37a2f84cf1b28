"""Texts of all requests, merged into full batches: `BatchQueue`, one for each loaded model.

Knows ids, vectors and whose turn it is; nothing of texts, models or HTTP. Everything here runs on the event loop
but the engine's decode, which has a thread of its own.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from q3e_local.embedding.batching import Load
from q3e_local.embedding.engine import Engine
from q3e_local.errors import BadVectorError, Q3EError
from q3e_local.server.errors import QueueFullError, StoppingError, WorkerDiedError
from q3e_local.server.workers.counters import Counters
from q3e_local.server.workers.suspects import Suspects
from q3e_local.server.workers.texts import Ids, Text, Waiter
from q3e_local.vectors import Vectors

_LOOK_AHEAD = 32  # texts of a request among which one is looked for that still fits into the batch
_IDS_AT_ONCE = 200_000  # ids that are lined up before others have their turn: about 5 ms


class BatchQueue:
    """Decodes the texts of many requests in batches of up to `engine.n_batch` tokens.

    Requests take turns, text by text, so that a large request does not hold up a small one. Identical texts in flight
    are decoded once. Texts longer than a batch go one at a time, each beside the batches of short texts: the engine
    computes batches between the layers of a long text. When the model's process dies, or hangs, each text that it
    worked on is tried once more by itself, and only the text that kills the process fails.
    """

    def __init__(self, engine: Engine, n_waiting_max: int, counters: Counters | None = None) -> None:
        self.counters = counters or Counters()
        self.counters.waiting = self.counters.waiting_tokens = 0
        self._engine = engine
        self._n_waiting_max = n_waiting_max
        self._turns: deque[Waiter] = deque()  # requests with waiting texts, in the order of their turns
        self._in_flight: dict[Ids, Text] = {}
        self._long: asyncio.Task[None] | None = None  # decodes the text longer than a batch, if there is one
        self._beside_long = False  # whether batches were computed since that text began
        self._suspects = Suspects()
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
        request = Waiter(len(sequences), dim or self._engine.n_embd, asyncio.get_running_loop().create_future())
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

        As requests take turns, at most `n_texts` texts of each waiting request come before the last of the new one.
        So a single question finds a place behind a request of 10,000 texts. An empty queue takes a request of any
        size.
        """
        if self._stopping:
            raise StoppingError
        before = sum(min(len(other.waiting), n_texts) for other in self._turns)
        if before and before + n_texts > self._n_waiting_max:
            self.counters.refused += 1
            retry_after_s = self.counters.retry_after_s()
            raise QueueFullError(
                f"{self.counters.waiting} texts wait already, and {before + n_texts} would before this request is "
                f"done; the limit is {self._n_waiting_max}; try again in {retry_after_s} s",
                retry_after_s,
            )

    async def close(self, timeout_s: float) -> None:
        """Refuse new requests, finish those that wait within `timeout_s`, and fail the rest."""
        self._stopping = True
        self._wake.set()
        try:
            await asyncio.wait([self._runner], timeout=timeout_s)
        finally:
            for text in list(self._in_flight.values()):
                self._fail(text, StoppingError())
            self._runner.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _line_up(self, request: Waiter, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int]) -> None:
        """Find or make the text of each sequence, and let other tasks in meanwhile.

        Raises StoppingError when the queue was closed meanwhile.
        """
        n_ids = 0
        for index, (sequence, n) in enumerate(zip(sequences, n_prefix, strict=True)):
            n_ids += len(sequence)
            if n_ids > _IDS_AT_ONCE:
                await asyncio.sleep(0)
                n_ids = len(sequence)
                if self._stopping:
                    raise StoppingError
            ids = tuple(sequence)
            text = self._in_flight.get(ids)
            if text is None:
                text = self._in_flight[ids] = Text(ids, ids[:n])
                self._count_waiting(text, 1)
            else:
                self.counters.shared += 1
            text.wanted.append((request, index))
            if text.is_waiting:
                request.waiting.append(text)  # of every request that wants it: the first turn decodes it

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0)  # let in what has arrived meanwhile: fuller batches
            batch = self._next_batch()
            if batch and self._is_long(batch[0]):
                self._beside_long = False
                self._long = asyncio.get_running_loop().create_task(self._decode(batch), name="q3e long text")
                self._long.add_done_callback(self._long_done)
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

    def _is_long(self, text: Text) -> bool:
        return len(text.ids) > self._engine.n_batch

    def _long_done(self, _: object) -> None:
        self._long = None
        self._wake.set()

    def _next_batch(self) -> list[Text]:
        """The text whose turn it is, and texts that fit beside it; before both a suspect, by itself."""
        while (suspect := self._suspects.take(self._engine.n_batch, or_longer=self._long is None)) is not None:
            if suspect.wanted:
                return [suspect]
            self._in_flight.pop(suspect.ids, None)
        batch: list[Text] = []
        load, n_batch, only_short = Load(), self._engine.n_batch, self._long is not None
        passed: list[Waiter] = []  # no text of theirs fits: they keep their places in front
        while self._turns and load.n_cells < n_batch and len(batch) < self._engine.n_seq_max:
            request = self._turns.popleft()
            # The first text of a batch may have any length, so that no text waits for ever for a place it fits in.
            text = self._take(request, load, n_batch if batch or only_short else None)
            if text is None:
                if request.waiting:
                    passed.append(request)
                continue
            batch.append(text)
            self._begin(text)
            load.add(len(text.ids), text.prefix)
            self._turns.append(request)
            if self._is_long(text):
                break
        self._turns.extendleft(reversed(passed))
        return batch

    def _take(self, request: Waiter, load: Load, n_max: int | None) -> Text | None:
        """The request's next text with which a batch has at most `n_max` cells, looking a little ahead."""
        waiting = request.waiting
        while waiting and not waiting[0].is_waiting:  # another request's turn has decoded it
            waiting.popleft()
        for place, text in enumerate(islice(waiting, _LOOK_AHEAD)):
            fits = n_max is None or load.n_cells + load.cost(len(text.ids), text.prefix) <= n_max
            if fits and text.is_waiting:
                del waiting[place]
                return text
        return None

    def _begin(self, text: Text) -> None:
        text.begun = True
        self._count_waiting(text, -1)

    async def _decode(self, batch: list[Text]) -> None:
        loop = asyncio.get_running_loop()
        is_long = self._is_long(batch[0])
        self._beside_long |= not is_long
        in_company = len(batch) > 1 or (not is_long and self._long is not None)
        while batch:
            begun = time.perf_counter()
            try:
                sequences, n_prefix = [text.ids for text in batch], [len(text.prefix) for text in batch]
                vectors = await loop.run_in_executor(self._thread, self._engine.decode, sequences, n_prefix)
                done = list(zip(batch, vectors, strict=True))
            except Exception as error:  # the callers get it, whatever it is, and other requests go on
                if isinstance(error, BadVectorError) and error.index < len(batch):
                    self._fail(batch.pop(error.index), error)  # the rest of the batch is decoded a second time
                    continue
                if isinstance(error, WorkerDiedError):
                    batch = self._suspects.died(batch, in_company=in_company or (is_long and self._beside_long))
                    self._wake.set()
                for text in batch:
                    self._fail(text, error)
                return
            self._suspects.lived()
            for text, vector in done:
                self._give(text, vector)
            self.counters.count_batch(sum(len(text.ids) for text in batch), time.perf_counter() - begun)
            return

    def _give(self, text: Text, vector: Vectors) -> None:
        self._in_flight.pop(text.ids, None)
        self.counters.texts += 1
        self.counters.tokens += len(text.ids)
        for request, index in text.wanted:
            request.give(index, vector)

    def _fail(self, text: Text, error: Exception) -> None:
        self._in_flight.pop(text.ids, None)
        if text.is_waiting:
            self._begin(text)
        self.counters.failed += isinstance(error, BadVectorError)
        for request, index in text.wanted:
            if isinstance(error, BadVectorError):
                request.fail(BadVectorError(error.message, index))
            else:
                # A copy for each task: the traceback of an error grows with every task that raises it.
                request.fail(copy.copy(error) if isinstance(error, Q3EError) else error)

    def _withdraw(self, request: Waiter) -> None:
        """Free the places of a request that nobody waits for any more."""
        if request in self._turns:
            self._turns.remove(request)
        request.waiting.clear()
        for ids, text in list(self._in_flight.items()):
            was_waiting = text.is_waiting
            text.wanted = [wanted for wanted in text.wanted if wanted[0] is not request]
            if was_waiting and not text.wanted:
                del self._in_flight[ids]
                self._count_waiting(text, -1)

    def _count_waiting(self, text: Text, change: int) -> None:
        self.counters.waiting += change
        self.counters.waiting_tokens += change * len(text.ids)
