"""The inputs of a request on their way through a loaded model: `Pipeline.run`.

Takes the steps of the library's `TextStream.run`, but its batches are made by a queue, which merges the texts of all
requests. Knows the cache; nothing of names, and nothing of what a request wants with its numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from q3e_local.cache import VectorCache
from q3e_local.embedding.batching import prefixes
from q3e_local.embedding.lookup import Lookup, ReadyText, ready_texts
from q3e_local.embedding.preparing import Fitted, Preparation
from q3e_local.embedding.request import Embedded
from q3e_local.errors import BadVectorError, InvalidTextError
from q3e_local.server.local import tokenizing
from q3e_local.server.workers.model import Model
from q3e_local.vectors import Vectors

# Numbers above which cutting and scaling would hold up the event loop.
_LARGE = 1_000_000
# Characters of a text that is looked up in the cache: normalizing a longer text would hold up all requests.
_LOOKED_UP_MAX = 1_000_000


class Pipeline:
    """The way through any model, with or without a cache. Use it on one event loop."""

    def __init__(self, cache: VectorCache | None) -> None:
        self.n_cached_texts = 0  # that were not computed
        self._cache = cache
        # A thread, so that no request waits until its vectors are in the cache.
        self._keeping = ThreadPoolExecutor(1, thread_name_prefix="q3e-cache")

    async def run(
        self, model: Model, preparation: Preparation, inputs: Sequence[tokenizing.Input]
    ) -> tuple[Vectors, list[tuple[int, bool]]]:
        """A row for each input, its count of tokens, and whether it was cut. Raises what Service.embed raises."""
        lookup = Lookup(preparation, self._cache)
        texts = await self._looked_up(preparation, lookup, inputs)
        known = {place: text.known for place, text in texts.items() if isinstance(text.known, Embedded)}
        places = [place for place in range(len(inputs)) if place not in known]
        model.queue.check(len(places))
        fitted = await tokenizing.fitted(model, preparation, [(place, inputs[place]) for place in places])
        pooled = await self._decoded(model, places, fitted, preparation.resolved.dim)
        rows = [row for row, place in enumerate(places) if place in texts]
        if rows:
            keys = [(texts[places[row]].digest, fitted[row]) for row in rows]
            self._keeping.submit(lookup.keep, pooled[rows], keys, model.worker.n_keepable)
        computed, bad = await _finished(preparation, pooled)
        if bad:
            row = min(bad)
            raise BadVectorError(bad[row].message, places[row])
        return _merged(known, places, computed, fitted)

    async def close(self) -> None:
        """Write what is left to write, and close the cache."""
        await asyncio.to_thread(self._keeping.shutdown)
        if self._cache is not None:
            await asyncio.to_thread(self._cache.close)

    async def _looked_up(
        self, preparation: Preparation, lookup: Lookup, inputs: Sequence[tokenizing.Input]
    ) -> Mapping[int, ReadyText]:
        """The inputs that a cache may have, by their places: none without a cache.

        Raises BadVectorError for a text whose vector is cut to zeros. Leaves out an input that is not text.
        """
        if self._cache is None:
            return {}
        texts = [(n, text) for n, text in enumerate(inputs) if isinstance(text, str) and len(text) <= _LOOKED_UP_MAX]
        ready = await asyncio.to_thread(lookup.all, ready_texts(preparation, texts))
        for text in ready:
            if isinstance(text.known, BadVectorError):
                raise text.known
        self.n_cached_texts += sum(isinstance(text.known, Embedded) for text in ready)
        return {text.place: text for text in ready if not isinstance(text.known, InvalidTextError)}

    async def _decoded(self, model: Model, places: list[int], fitted: list[Fitted], dim: int) -> Vectors:
        """The vectors of the inputs at these places, not yet cut where a cache will keep them."""
        ids, n_shared = [text.ids for text in fitted], [text.n_prefix for text in fitted]
        n_prefix = await asyncio.to_thread(prefixes, ids, n_shared) if len(ids) > 1 else n_shared
        try:
            return await model.queue.decode(ids, dim if self._cache is None else None, n_prefix)
        except BadVectorError as error:
            raise BadVectorError(error.message, places[error.index]) from None


async def _finished(preparation: Preparation, pooled: Vectors) -> tuple[Vectors, dict[int, BadVectorError]]:
    """As the preparation does it, on a thread where the rows are many."""
    if pooled.size > _LARGE:
        return await asyncio.to_thread(preparation.finished, pooled)
    return preparation.finished(pooled)


def _merged(
    known: Mapping[int, Embedded], places: list[int], computed: Vectors, fitted: list[Fitted]
) -> tuple[Vectors, list[tuple[int, bool]]]:
    """All vectors, with their token counts and whether they were cut, in the order of the inputs."""
    counts = {place: (len(text.ids), text.truncated) for place, text in zip(places, fitted, strict=True)}
    vectors = computed
    if known:
        vectors = np.empty((len(places) + len(known), computed.shape[1]), np.float32)
        vectors[places] = computed
        for place, embedded in known.items():
            vectors[place] = embedded.vector
            counts[place] = (embedded.prompt_tokens, embedded.truncated)
    return vectors, [counts[place] for place in range(len(counts))]
