"""A queue of batches on an engine that waits until the test lets it on, and the requests to the queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from fake import FakeEngine

from q3e_local.server.workers.batch_queue import BatchQueue

EOS = FakeEngine.eos_id
Ids = tuple[int, ...]


def ids(text: str) -> Ids:
    return (*text.encode(), EOS)


class Gated(FakeEngine):
    """A fake whose vector tells the text (first id, number of ids, sum of ids), and that waits at a gate."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.error: Exception | None = None
        self.is_open = False

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        self.began.release()
        if not self.is_open:
            assert self.gate.acquire(timeout=20)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        vectors = super().decode(sequences, n_prefix)
        for row, sequence in zip(vectors, sequences, strict=True):
            row[:3] = expected(sequence)
        return vectors

    def open(self) -> None:
        self.is_open = True
        self.gate.release()

    async def arrived(self) -> None:
        """Wait until a batch stands at the gate."""
        assert await asyncio.to_thread(self.began.acquire, timeout=20)


def expected(text: str | Sequence[int]) -> list[float]:
    """The first numbers of the vector that a gated engine has for a text or its ids."""
    sequence = ids(text) if isinstance(text, str) else text
    return [sequence[0], len(sequence), sum(sequence)]


async def settled() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


class Stage:
    """A queue on a gated engine, and the requests that came, in their order."""

    def __init__(self, n_waiting_max: int = 1000, engine: Gated | None = None, **options: Any) -> None:
        self.engine = engine or Gated(**options)
        self.queue = BatchQueue(self.engine, n_waiting_max)
        self.requests: list[asyncio.Task[Any]] = []

    async def ask(self, *texts: str, n_prefix: int = 0) -> asyncio.Task[Any]:
        """A request that now waits for its turn."""
        lengths = [n_prefix] * len(texts)
        task = asyncio.create_task(self.queue.decode([ids(text) for text in texts], None, lengths))
        self.requests.append(task)
        await settled()
        return task

    async def occupy(self, *texts: str) -> asyncio.Task[Any]:
        """A request at which the engine is, so that others have to wait."""
        task = await self.ask(*texts or ("first",))
        await self.engine.arrived()
        return task

    async def step(self, n: int = 1) -> None:
        """Let `n` batches through, and wait until the next one stands at the gate."""
        self.engine.gate.release(n)
        for _ in range(n):
            await self.engine.arrived()
        await settled()

    async def end(self) -> list[Any]:
        """The vectors or the error of each request, after all of them."""
        self.engine.open()
        results = await asyncio.gather(*self.requests, return_exceptions=True)
        await self.queue.close(10)
        return results

    @property
    def batches(self) -> list[list[str]]:
        """The batches that the engine computed, as texts."""
        return [[bytes(sequence[:-1]).decode() for sequence in batch] for batch in self.engine.batches]
