"""Vectors of one column as questions are compared with them: cut, stored in a dtype, and the nearest of them.

`ColumnState` lets `search.ask` answer with a column's vectors, so that what is measured is what `search` does. Knows
arrays and snapshots; nothing of models or of labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from q3e_local.evaluation.passages import Passages
from q3e_local.search.database.query_words import Term
from q3e_local.search.database.records import NO_FILTERS, Counted, Entry, Filters, Ranked, Sharing
from q3e_local.vectors import Dtype, Vectors, finish, to_binary, to_int8

# Scores of equal texts differ by what float32 rounds. Scores that are equal to so many digits count as equal: bits of
# 4,096 numbers that differ at all differ by 5e-4.
_DIGITS = 6
_ROWS = 4096


def as_stored(vectors: Vectors, dim: int, dtype: Dtype) -> Vectors:
    """Vectors (n, n_embd) cut to `dim` and stored in `dtype`, as rows of length 1 that compare as the stored ones do.

    The scores of int8 are cosines of the codes. Those of packed bits, which a store compares by Hamming distance h,
    are 1 - 2 h / dim, which has the same order.
    """
    if dtype == "float32" and dim == vectors.shape[1]:
        return vectors
    stored = np.empty((len(vectors), dim), np.float32)
    # A part at a time: a large corpus need not be in memory in double precision too.
    for start in range(0, len(vectors), _ROWS):
        stored[start : start + _ROWS] = _as_stored(finish(vectors[start : start + _ROWS], dim), dtype)
    return stored


def _as_stored(cut: Vectors, dtype: Dtype) -> Vectors:
    if dtype == "float32":
        return cut
    if dtype == "float16":
        return finish(cut.astype(np.float16).astype(np.float32))
    if dtype == "int8":
        return finish(to_int8(cut)[0].astype(np.float32))
    bits = np.unpackbits(to_binary(cut), axis=1, count=cut.shape[1])
    return finish(2 * bits.astype(np.float32) - 1)


def bytes_of(dim: int, dtype: Dtype) -> int:
    """What a store takes for one vector."""
    return {"float32": 4 * dim, "float16": 2 * dim, "int8": dim, "binary": -(-dim // 8)}[dtype]


class ColumnState:
    """A state of an index with the vectors of a column (n, dim) in place of the index's own: see `search.ask.State`.

    Every vector is compared. Of equal scores those come first whose passages have the lower of `Passages.turns`.
    """

    def __init__(self, passages: Passages, vectors: Vectors | None) -> None:
        """Without vectors it answers to words alone."""
        self._passages, self._state, self._vectors = passages, passages.state, vectors

    def n_chunks(self) -> int:
        """How many passages there are."""
        return len(self._passages.entries)

    def nearest(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest of all passages."""
        scores = np.round(self._scores(vector, slice(None)), _DIGITS)
        least = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
        places = np.flatnonzero(scores >= least)
        places = places[np.lexsort((self._passages.turns[places], -scores[places]))][:k]
        return Ranked(self._passages.rows[places], scores[places])

    exact = nearest

    def scores(self, vector: Vectors, rows: Iterable[int]) -> dict[int, float]:
        """The score of each of these rows."""
        wanted = np.array(list(rows), np.int64)
        scores = self._scores(vector, np.searchsorted(self._passages.rows, wanted))
        return dict(zip(wanted.tolist(), scores.tolist(), strict=True))

    def counted(self, terms: Sequence[Term]) -> Counted:
        """In how many passages each term is found."""
        return self._state.counted(terms)

    def words(
        self, counts: Mapping[Term, int], k: int, filters: Filters = NO_FILTERS, sharing: Sharing | None = None
    ) -> Ranked:
        """The k best passages by words, equal ones in their turns; with `sharing` those that share enough."""
        ranked = self._state.words(counts, k if sharing else k + 1, filters, sharing)
        if not sharing and len(ranked.scores) > k and ranked.scores[k] == ranked.scores[k - 1]:
            # The index cuts equal ones off by their order in the file: only of all can they be taken in turns.
            ranked = self._state.words(counts, self.n_chunks(), filters)
        # Passages that another process has added since are in no column.
        known = np.isin(ranked.rows, self._passages.rows)
        rows, scores = ranked.rows[known], ranked.scores[known]
        turns = self._passages.turns[np.searchsorted(self._passages.rows, rows)]
        order = np.lexsort((turns, -scores))[:k]
        return replace(ranked, rows=rows[order], scores=scores[order])

    def entries_of(self, rows: Iterable[int]) -> tuple[Entry, ...]:
        """The passages of these rows, in their order."""
        return tuple(self._passages.entries[place] for place in np.searchsorted(self._passages.rows, list(rows)))

    def _scores(self, vector: Vectors, places: slice | NDArray[np.intp]) -> NDArray[np.float64]:
        assert self._vectors is not None  # a search that compares vectors has them
        return (self._vectors[places] @ vector).astype(np.float64)
