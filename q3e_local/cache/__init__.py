"""Vectors that were computed before: what a cache is asked, and what it answers.

Knows no SQLite, no Redis and no model. A cache never raises and never gives a wrong vector: what it cannot read,
or cannot prove to be right, it does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from q3e_local.space import Space
from q3e_local.vectors import Vectors

SIZE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Key:
    """One text in one vector space. A text that was cut has another vector than the whole, so it has another key."""

    space: Space  # at the model's own dim: all others are cut from it
    text_sha256: bytes  # of the text as it is tokenized: prompted and normalized
    cut_at: int | None = None  # the limit in tokens that the text was cut to; None for a whole text


@dataclass(frozen=True, slots=True)
class Entry:
    """What the model answered, float32 (n_embd,), not to be written to; `truncated` where its key has a `cut_at`.

    Neither cut nor scaled yet: a vector made of it equals one that was computed, to the last bit.
    """

    pooled: Vectors
    prompt_tokens: int
    truncated: bool = False


@dataclass(frozen=True)
class SpaceStats:
    """How much a cache has of one vector space. The vectors of a reranker's spaces are scores, one number each."""

    space: str
    n_vectors: int
    n_bytes: int


@dataclass(frozen=True)
class CacheStats:
    """How much a cache has in all."""

    where: str
    spaces: tuple[SpaceStats, ...]
    n_bytes: int
    limit_bytes: int | None  # None for a server, which has a limit of its own

    @property
    def n_vectors(self) -> int:
        return sum(stats.n_vectors for stats in self.spaces)


class VectorCache(Protocol):
    """Safe to use from several threads. What goes wrong is one warning in the log, and work goes on without it."""

    @property
    def where(self) -> str:
        """Its path, or its address without a password."""

    def get_many(self, keys: Sequence[Key]) -> list[Entry | None]:
        """The entry of each key, None where the cache has none."""

    def put_many(self, items: Sequence[tuple[Key, Entry]]) -> None:
        """Keep entries, but for vectors that are not finite, all zeros or not of their space's dim."""

    def stats(self) -> CacheStats | None:
        """How much it has; None where it cannot be read, which was logged."""

    def clear(self, chosen: Callable[[str], bool] | None = None) -> int | None:
        """Forget all vectors, or those of the chosen spaces: how many. None where it cannot, which was logged."""

    def close(self) -> None:
        """Write what is left to write. A closed cache has nothing and takes nothing."""
