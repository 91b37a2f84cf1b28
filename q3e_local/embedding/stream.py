"""The texts of one call on their way through the engine: `TextStream`.

Takes as many as fill a few batches, computes identical ones once, and hands results back in the caller's order.
Knows ids and vectors; leaves what a text becomes, and what is known of it, to those who hand it over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from q3e_local.embedding.batching import pack, prefixes
from q3e_local.embedding.engine import Engine
from q3e_local.embedding.lookup import Asked, Lookup
from q3e_local.embedding.request import Embedded, Fitted
from q3e_local.errors import BadVectorError, TextError
from q3e_local.vectors import Vectors

# Texts are packed this many batches at a time: enough to fill them well, few enough that results keep coming
# (4B: every 10 s on two cores) and memory does not grow with the number of texts.
_WINDOW_BATCHES = 2
_WINDOW_TEXTS = 1024
# A batch that is less full than this waits for more texts, once.
_FULL = 0.75
# Vectors remembered in case their text comes again.
_MEMORY_BYTES = 64 << 20

Progress = Callable[[int, int], None]
"""What `embed_documents`, `embed_queries`, `embed`, `stream` and `VectorIndex.add` take as `progress`.

Called as `progress(n_texts, n_tokens)` after each batch, on the thread of the call, with what is done so far: texts,
those that failed included, and the tokens of the others. The last call has all texts. By then a stream has handed
back all results that can be: an exception that `progress` raises ends the call between two batches.
"""


@dataclass(eq=False)
class _Waiting:
    """A text that is not decoded yet, for all places it has in the call."""

    digest: bytes
    fitted: Fitted
    places: list[int]
    was_left: bool = False  # by a batch that was not full


class TextStream:
    """One call's texts. `fit` gives a text's ids, or raises a TextError."""

    def __init__(
        self,
        engine: Engine,
        lookup: Lookup,
        dim: int,
        fit: Callable[[str, int], Fitted],
        progress: Progress | None = None,
    ) -> None:
        self._engine, self._lookup, self._fit = engine, lookup, fit
        self._progress = progress
        self._waiting: dict[bytes, _Waiting] = {}
        self._n_waiting_ids = 0
        self._n_taken = 0  # texts since the last decode
        self._results: dict[int, Embedded | TextError] = {}
        self._n_given = 0
        self._n_texts = self._n_tokens = self._n_told = 0  # done
        self._seen: dict[bytes, Embedded] = {}
        self._n_seen_max = max(1, _MEMORY_BYTES // (4 * dim))

    def run(self, texts: Iterable[str]) -> Iterator[Embedded | TextError]:
        """One item for each text, in order."""
        for window in self._lookup.windows(texts):
            for asked in window:
                self._take(asked)
                if self._n_waiting_ids >= _WINDOW_BATCHES * self._engine.n_batch or self._n_taken >= _WINDOW_TEXTS:
                    yield from self._decode()
            yield from self._in_order()
        yield from self._decode(is_last=True)

    def _take(self, asked: Asked) -> None:
        self._n_taken += 1
        if asked.digest in self._seen:
            self._done([asked.place], self._seen[asked.digest])
        elif asked.known is not None:
            self._done([asked.place], asked.known)
        elif asked.digest in self._waiting:
            self._waiting[asked.digest].places.append(asked.place)
        else:
            try:
                self._wait(_Waiting(asked.digest, self._fit(asked.text, asked.place), [asked.place]))
            except TextError as error:
                self._done([asked.place], error)

    def _wait(self, text: _Waiting) -> None:
        self._waiting[text.digest] = text
        self._n_waiting_ids += len(text.fitted.ids) - text.fitted.n_prefix

    def _decode(self, is_last: bool = False) -> Iterator[Embedded | TextError]:
        """Decode what waits, but for a batch that more texts may fill; hand back what is complete after each batch.

        Then tell the progress: who stops there has all results that could be handed back.
        """
        texts = list(self._waiting.values())
        self._waiting, self._n_waiting_ids, self._n_taken = {}, 0, 0
        sequences = [text.fitted.ids for text in texts]
        n_prefix = prefixes(sequences, [text.fitted.n_prefix for text in texts])
        for rows, n_cells in pack(sequences, n_prefix, self._engine.n_batch, self._engine.n_seq_max):
            batch = [texts[row] for row in rows]
            if (
                is_last
                or n_cells >= _FULL * self._engine.n_batch
                or len(rows) == self._engine.n_seq_max
                or any(text.was_left for text in batch)
            ):
                self._compute(batch, [n_prefix[row] for row in rows])
                yield from self._in_order()
                self._tell()
            else:
                for text in batch:
                    text.was_left = True
                    self._wait(text)
        yield from self._in_order()
        self._tell()

    def _compute(self, batch: list[_Waiting], n_prefix: list[int]) -> None:
        """Decode one batch. A text that the model fails on costs its neighbours a second decode."""
        try:
            pooled = self._engine.decode([text.fitted.ids for text in batch], n_prefix)
        except BadVectorError as error:
            place = error.index
            self._done(batch[place].places, error)
            if len(batch) > 1:
                self._compute(batch[:place] + batch[place + 1 :], n_prefix[:place] + n_prefix[place + 1 :])
            return
        self._lookup.keep(pooled, [(text.digest, text.fitted) for text in batch])
        for text, vector in zip(batch, self._lookup.vectors(pooled), strict=True):
            self._finish(text, vector)

    def _finish(self, text: _Waiting, vector: Vectors | BadVectorError) -> None:
        if isinstance(vector, BadVectorError):
            self._done(text.places, vector)
            return
        embedded = Embedded(vector, len(text.fitted.ids), text.fitted.truncated)
        self._done(text.places, embedded)
        if len(self._seen) >= self._n_seen_max:
            del self._seen[next(iter(self._seen))]
        self._seen[text.digest] = embedded

    def _done(self, places: list[int], result: Embedded | TextError) -> None:
        for place in places:
            # Each place its own, as an error names it.
            of_place = BadVectorError(result.message, place) if isinstance(result, BadVectorError) else result
            self._results[place] = of_place
        self._n_texts += len(places)
        if isinstance(result, Embedded):
            self._n_tokens += len(places) * result.prompt_tokens

    def _in_order(self) -> Iterator[Embedded | TextError]:
        while self._n_given in self._results:
            result = self._results.pop(self._n_given)
            self._n_given += 1
            yield result

    def _tell(self) -> None:
        if self._progress is not None and self._n_texts > self._n_told:
            self._progress(self._n_texts, self._n_tokens)
            self._n_told = self._n_texts
