"""Binary codes of vectors, and the search for the nearest among many: `Codes`.

Knows bits and rows alone. Codes are those of vectors.to_binary, cut to their first numbers (MRL) and filled up with
zeros to whole 64-bit words.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from q3e_local.vectors import Vectors, to_binary

WORD_BITS = 64
# What a step of the scan works on stays in the processor's second cache.
_STEP = 1 << 14
_THREADED = 1 << 17  # fewer are done before a second thread has begun

Bits = NDArray[np.uint8]


def code_bits(dim: int, most: int) -> int:
    """Bits of a code for vectors of this dim."""
    return -(-min(dim, most) // WORD_BITS) * WORD_BITS


def encode(vectors: Vectors, bits: int) -> Bits:
    """Codes (n, bits / 8)."""
    packed = to_binary(vectors[:, :bits])
    return np.pad(packed, ((0, 0), (0, bits // 8 - packed.shape[1])))


@dataclass(frozen=True)
class Codes:
    """The codes of many rows, in columns of 64 bits: `words` is (n_words, n), which a scan reads from end to end."""

    rows: NDArray[np.int64]  # ascending
    words: NDArray[np.uint64]

    def distances(self, code: Bits) -> NDArray[np.uint16]:
        """In how many bits each row's code differs from this one."""
        query = code.view(np.uint64)
        found = np.empty(len(self.rows), np.uint16)
        if len(found) < _THREADED:
            _scan(self.words, query, found)
        else:
            middle = len(found) // 2
            with ThreadPoolExecutor(2) as threads:  # NumPy lets others run while it counts
                halves = slice(0, middle), slice(middle, None)
                list(threads.map(lambda half: _scan(self.words[:, half], query, found[half]), halves))
        return found

    def shortlist(self, code: Bits, n: int, allowed: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """The n rows whose codes are nearest, in no order; of equal ones at the end, those that came first.

        `allowed`, in order, are some of the rows, no fewer than n: the only ones to be found.
        """
        found = self.distances(code)
        if allowed is not None:
            passes = np.zeros(len(found), bool)
            places = np.searchsorted(self.rows, allowed)
            passes[places] = True
            found[~passes] = 8 * code.nbytes + 1  # further than any
        counts = np.bincount(found).cumsum()
        limit = int(np.searchsorted(counts, n))
        sure = np.flatnonzero(found < limit)
        last = np.flatnonzero(found == limit)[: n - len(sure)]
        rows: NDArray[np.int64] = self.rows[np.concatenate([sure, last])]
        return rows


def gathered(some: Iterable[tuple[NDArray[np.int64], Bits]], n: int, bits: int) -> Codes:
    """The codes (n, bits / 8) of n rows, which come some at a time, as a scan wants them."""
    rows, words = np.empty(n, np.int64), np.empty((bits // WORD_BITS, n), np.uint64)
    first = 0
    for these, codes in some:
        last = first + len(these)
        rows[first:last], words[:, first:last] = these, codes.view(np.uint64).T
        first = last
    if np.any(rows[1:] < rows[:-1]):
        order = np.argsort(rows)
        rows, words = rows[order], words[:, order]
    return Codes(rows, words)


def _scan(words: NDArray[np.uint64], query: NDArray[np.uint64], found: NDArray[np.uint16]) -> None:
    differing, n_bits = np.empty(_STEP, np.uint64), np.empty(_STEP, np.uint8)
    for first in range(0, len(found), _STEP):
        some = words[:, first : first + _STEP]
        total = found[first : first + _STEP]
        total[:] = 0
        n = len(total)
        for column, word in zip(some, query, strict=True):
            np.bitwise_xor(column, word, out=differing[:n])
            np.bitwise_count(differing[:n], out=n_bits[:n])
            np.add(total, n_bits[:n], out=total)
