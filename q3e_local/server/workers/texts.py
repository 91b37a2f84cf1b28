"""The texts that wait in a queue, and the requests that want their vectors.

Knows ids and vectors; nothing of engines or of whose turn it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from q3e_local.vectors import Vectors

Ids = tuple[int, ...]


class Waiter:
    """A caller of the queue: texts that wait, and `rows`, which fill in any order."""

    def __init__(self, n_texts: int, dim: int, done: asyncio.Future[None]) -> None:
        self.rows = np.empty((n_texts, dim), np.float32)
        self.n_left = n_texts
        self.done = done
        self.waiting: deque[Text] = deque()

    def give(self, index: int, vector: Vectors) -> None:
        self.rows[index] = vector[: self.rows.shape[1]]
        self.n_left -= 1
        if self.n_left == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False)
class Text:
    """Ids to decode, for every request that wants their vector."""

    ids: Ids
    prefix: Ids = ()  # its beginning, where other texts are expected to begin so too
    begun: bool = False
    retried: bool = False
    wanted: list[tuple[Waiter, int]] = field(default_factory=list)

    @property
    def is_waiting(self) -> bool:
        return not self.begun and bool(self.wanted)
