"""What a cache knows of a request's inputs, so that only the others are computed: `CachedTexts`.

Knows texts, terms and the cache; nothing of queues. Asking runs on a thread, keeping on one of its own that nobody
waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from q3e_local.cache import VectorCache
from q3e_local.cache.shelf import Shelf
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.lookup import Lookup
from q3e_local.embedding.request import Embedded, Fitted, Terms
from q3e_local.errors import BadVectorError
from q3e_local.vectors import Vectors

# Characters of a text that is looked up: normalizing a longer one would hold up everybody.
_LONGEST = 1_000_000

Inputs = Sequence[str | tuple[int, ...]]


@dataclass(frozen=True)
class Found:
    """What is known, by the place of the input, and the digests of the texts that are not."""

    known: dict[int, Embedded] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    lookup: Lookup | None = None


class CachedTexts:
    """The cache of a server, for all its models; with None nothing is known. Close it."""

    def __init__(self, cache: VectorCache | None) -> None:
        self._cache = cache
        self._keeping = ThreadPoolExecutor(1, thread_name_prefix="q3e-cache")
        self.n_texts = 0  # that were not computed

    @property
    def is_on(self) -> bool:
        """Whether there is a cache."""
        return self._cache is not None

    async def find(self, embedder: Embedder, inputs: Inputs, terms: Terms) -> Found:
        """What the cache has of these inputs. What is wrong with one is left to those who tokenize it.

        Raises BadVectorError with its place for a text whose vector is cut to zeros.
        """
        if self._cache is None:
            return Found()
        shelf = Shelf(self._cache, embedder.full_space(terms), terms.limit, terms.truncate)
        lookup = Lookup(partial(_ready, embedder, terms), terms.dim, shelf)
        places = [place for place, one in enumerate(inputs) if isinstance(one, str) and len(one) <= _LONGEST]
        asked = await asyncio.to_thread(lookup.all, [str(inputs[place]) for place in places])
        found = Found(lookup=lookup)
        for place, one in zip(places, asked, strict=True):
            if isinstance(one.known, Embedded):
                found.known[place] = one.known
            elif one.known is None:
                found.digests[place] = one.digest
            elif isinstance(one.known, BadVectorError):
                raise BadVectorError(one.known.message, place)
        self.n_texts += len(found.known)
        return found

    def keep(self, found: Found, places: Sequence[int], pooled: Vectors, fitted: Sequence[Fitted]) -> None:
        """Remember what was computed for these places, before long."""
        rows = [row for row, place in enumerate(places) if place in found.digests]
        if found.lookup is not None and rows:
            texts = [(found.digests[places[row]], fitted[row]) for row in rows]
            self._keeping.submit(found.lookup.keep, pooled[rows], texts)

    async def close(self) -> None:
        """Write what is left to write."""
        await asyncio.to_thread(self._keeping.shutdown)
        if self._cache is not None:
            await asyncio.to_thread(self._cache.close)


def _ready(embedder: Embedder, terms: Terms, text: str, place: int) -> str:
    return embedder.readied(text, place, terms)
