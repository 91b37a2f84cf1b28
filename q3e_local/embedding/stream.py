"""The texts of one call on their way through the engine: `TextStream.run` has every step from a text to its vector.

Computes identical texts once, and hands results back in the caller's order. Knows ids and vectors; leaves what a
request does to a text to its `Preparation`, and vectors from earlier calls to the `Lookup`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from q3e_local.cache import VectorCache
from q3e_local.embedding.batching import pack, prefixes
from q3e_local.embedding.engine import Engine
from q3e_local.embedding.lookup import Lookup, ReadyText, ready_texts
from q3e_local.embedding.preparing import Fitted, Preparation
from q3e_local.embedding.request import Embedded
from q3e_local.errors import BadVectorError, TextError
from q3e_local.vectors import Vectors

# Texts are packed this many batches at a time: enough to fill the batches well, few enough that results keep coming
# (4B: every 10 s on two cores) and memory does not grow with the number of texts.
_WINDOW_BATCHES = 2
_WINDOW_TEXTS = 1024
# A batch that is less full than this waits for more texts, once.
_FULL = 0.75
# Of vectors that are remembered in case their text comes again.
_MEMORY_BYTES = 64 << 20
_ITEM_BYTES = 400  # of a remembered vector, beside its numbers

Progress = Callable[[int, int], None]
"""What `embed_documents`, `embed_queries`, `embed`, `stream` and `VectorIndex.add` take as `progress`.

Called as `progress(n_texts, n_tokens)` after each batch, on the thread of the call: how many texts are done, failed
texts included, and how many tokens the others have. The last call has all texts. A stream hands back the results of a
batch before that call: an exception that `progress` raises ends the stream between two batches.
"""


class TextStream:
    """One call's texts, from which an engine makes the vectors of one request."""

    def __init__(
        self,
        engine: Engine,
        preparation: Preparation,
        cache: VectorCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._engine, self._preparation = engine, preparation
        self._prefix_ids = self._tokenized(preparation.ready("", 0)) if preparation.resolved.prefix else []
        self._lookup = Lookup(preparation, cache)
        self._waiting = _Waiting(engine)
        self._results = _Results(preparation.resolved.dim, progress)

    def run(self, texts: Iterable[str]) -> Iterator[Embedded | TextError]:
        """One item for each text, in order.

        A text is normalized and prompted, tokenized, fitted, packed into a batch and decoded; its vector is cut and
        scaled. Only a text that neither the cache nor this call has yet goes all the way.
        """
        preparation, lookup = self._preparation, self._lookup
        waiting, results, n_read = self._waiting, self._results, 0
        ready = ready_texts(preparation, enumerate(texts))  # normalized and prompted
        for text in chain(lookup.as_they_come(ready), (None,)):  # None: all texts have been read
            if text is not None and not results.take(text) and not waiting.take(text):
                ids = self._tokenized(text.text)
                try:
                    waiting.add(text, preparation.fit(ids, text.place, self._prefix_ids))
                except TextError as error:
                    results.add([text.place], error)
            n_read += 1
            is_enough = text is None or waiting.is_enough or n_read >= _WINDOW_TEXTS
            if is_enough:
                n_read = 0
                for batch in waiting.packed(is_last=text is None):
                    pooled = self._decoded(batch)
                    keys = [(each.digest, each.fitted) for each in batch.texts]
                    lookup.keep(pooled, keys, self._engine.n_keepable)
                    results.add_batch(batch.texts, *preparation.finished(pooled))  # cut and scaled
                    yield from results.in_order()
                    results.tell_progress()
            yield from results.in_order()
            if is_enough:
                results.tell_progress()

    def _tokenized(self, text: str) -> list[int]:
        return [token_id for part in self._preparation.parts(text) for token_id in self._engine.tokenize(part)]

    def _decoded(self, batch: _Batch) -> Vectors:
        """The pooled vectors of a batch. Takes out the texts that the model fails on.

        Such a text costs its neighbours a second decode.
        """
        while batch.texts:
            try:
                return self._engine.decode([text.fitted.ids for text in batch.texts], batch.n_prefix)
            except BadVectorError as error:
                self._results.add(batch.pop(error.index).places, error)
        return np.empty((0, self._engine.n_embd), np.float32)


@dataclass(eq=False)
class _WaitingText:
    """A text that is not decoded yet, for all places that the text has in the call."""

    digest: bytes
    fitted: Fitted
    places: list[int]
    was_left: bool = False  # by a batch that was not full


@dataclass(frozen=True)
class _Batch:
    """Texts to decode together, and how many first ids each text shares with other texts."""

    texts: list[_WaitingText]
    n_prefix: list[int]

    def pop(self, row: int) -> _WaitingText:
        del self.n_prefix[row]
        return self.texts.pop(row)


class _Waiting:
    """Texts that wait until they fill a few batches of an engine, whose `n_batch` may change meanwhile."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._texts: dict[bytes, _WaitingText] = {}
        self._n_ids = 0  # an instruction that texts share does not count

    @property
    def is_enough(self) -> bool:
        return self._n_ids >= _WINDOW_BATCHES * self._engine.n_batch

    def take(self, text: ReadyText) -> bool:
        """Whether the same text waits already; if so, the text waits for this place too."""
        same = self._texts.get(text.digest)
        if same is not None:
            same.places.append(text.place)
        return same is not None

    def add(self, text: ReadyText, fitted: Fitted) -> None:
        self._put(_WaitingText(text.digest, fitted, [text.place]))

    def packed(self, is_last: bool) -> Iterator[_Batch]:
        """All that waits, in batches. A batch that more texts may fill waits for them, but only once."""
        texts = list(self._texts.values())
        self._texts, self._n_ids = {}, 0
        sequences = [text.fitted.ids for text in texts]
        n_prefix = prefixes(sequences, [text.fitted.n_prefix for text in texts])
        for rows, n_cells in pack(sequences, n_prefix, self._engine.n_batch, self._engine.n_seq_max):
            batch = _Batch([texts[row] for row in rows], [n_prefix[row] for row in rows])
            is_full = n_cells >= _FULL * self._engine.n_batch or len(rows) == self._engine.n_seq_max
            if is_last or is_full or any(text.was_left for text in batch.texts):
                yield batch
                continue
            for text in batch.texts:
                text.was_left = True
                self._put(text)

    def _put(self, text: _WaitingText) -> None:
        self._texts[text.digest] = text
        self._n_ids += len(text.fitted.ids) - text.fitted.n_prefix


class _Results:
    """The results of a call's texts, until it is their turn to be handed back."""

    def __init__(self, dim: int, progress: Progress | None) -> None:
        self._progress = progress
        self._items: dict[int, Embedded | TextError] = {}
        self._n_handed_back = 0
        self._n_texts = self._n_tokens = self._n_told = 0  # done
        self._computed: dict[bytes, Embedded] = {}  # the latest, by the digests of their texts
        self._n_computed_max = max(1, _MEMORY_BYTES // (4 * dim + _ITEM_BYTES))

    def take(self, text: ReadyText) -> bool:
        """Whether the text's result is known: from this call, from the cache, or because it is no text."""
        known = self._computed.get(text.digest, text.known)
        if known is not None:
            self.add([text.place], known)
        return known is not None

    def add(self, places: list[int], result: Embedded | TextError) -> None:
        for place in places:
            # An error names its place, so each place has an error of its own.
            of_place = BadVectorError(result.message, place) if isinstance(result, BadVectorError) else result
            self._items[place] = of_place
        self._n_texts += len(places)
        if isinstance(result, Embedded):
            self._n_tokens += len(places) * result.prompt_tokens

    def add_batch(self, texts: list[_WaitingText], vectors: Vectors, bad: dict[int, BadVectorError]) -> None:
        """The results of texts that were decoded: a row of `vectors` for each, or an error for its row."""
        for row, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
            if row in bad:
                self.add(text.places, bad[row])
                continue
            embedded = Embedded(vector, len(text.fitted.ids), text.fitted.truncated)
            self.add(text.places, embedded)
            if len(self._computed) >= self._n_computed_max:
                del self._computed[next(iter(self._computed))]
            self._computed[text.digest] = embedded

    def in_order(self) -> Iterator[Embedded | TextError]:
        """Hand back the results whose turn has come."""
        while self._n_handed_back in self._items:
            result = self._items.pop(self._n_handed_back)
            self._n_handed_back += 1
            yield result

    def tell_progress(self) -> None:
        if self._progress is not None and self._n_texts > self._n_told:
            self._progress(self._n_texts, self._n_tokens)
            self._n_told = self._n_texts
