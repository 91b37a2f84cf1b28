"""Keys and entries for all tests of caches. A text, its limit and its space say what the entry is."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from q3e_local.cache import Entry, Key, VectorCache
from q3e_local.space import Space

if TYPE_CHECKING:  # the programs that tests start do without pytest
    import pytest

SPACE = Space("ab" * 32, 64)


def key(text: str, cut_at: int | None = None, space: Space = SPACE) -> Key:
    return Key(space, hashlib.sha256(text.encode()).digest(), cut_at)


def entry(text: str, cut_at: int | None = None, space: Space = SPACE) -> Entry:
    """The entry that belongs to a text, limit and space, and to no other."""
    seed = hashlib.sha256(f"{text} {cut_at} {space}".encode()).digest()
    pooled = np.random.default_rng(list(seed)).standard_normal(space.dim).astype(np.float32)
    n_tokens = len(text) + 1 if cut_at is None else cut_at
    return Entry(pooled, n_tokens, cut_at is not None)


def item(text: str, cut_at: int | None = None, space: Space = SPACE) -> tuple[Key, Entry]:
    return key(text, cut_at, space), entry(text, cut_at, space)


def is_same(got: Entry | None, wanted: Entry) -> bool:
    """Whether the entries are equal to the last bit."""
    return (
        got is not None
        and got.pooled.dtype == np.float32
        and got.pooled.tobytes() == wanted.pooled.tobytes()
        and (got.prompt_tokens, got.truncated) == (wanted.prompt_tokens, wanted.truncated)
    )


@dataclass(frozen=True)
class Filling:
    """Texts that a test puts into a cache, in each of these spaces, and looks for."""

    n_texts: int
    spaces: tuple[Space, ...] = (SPACE,)

    def __len__(self) -> int:
        return self.n_texts * len(self.spaces)

    def put(self, cache: VectorCache) -> None:
        for space in self.spaces:
            cache.put_many([item(f"text {number}", space=space) for number in range(self.n_texts)])

    def n_right(self, cache: VectorCache) -> int:
        """How many of the vectors the cache has. Fails the test where the cache gives a wrong vector."""
        items = [item(f"text {number}", space=space) for space in self.spaces for number in range(self.n_texts)]
        found = cache.get_many([key for key, _ in items])
        assert all(got is None or is_same(got, wanted) for got, (_, wanted) in zip(found, items, strict=True))
        return sum(got is not None for got in found)


BIG = Space("ef" * 32, 1024)  # its records take overflow pages
TEXTS = Filling(60, (SPACE, BIG))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
