"""Short forms of vectors, and the search for the nearest among many: `Codes` of signs, `Rounded` of small vectors.

Knows numbers and rows alone. Codes are those of vectors.to_binary, cut to their first numbers (MRL) and filled up
with zeros to whole 64-bit words.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from q3e_local.search.database.records import Rows
from q3e_local.vectors import Vectors, to_binary

WORD_BITS = 64
# Rows of a step, so that its numbers stay in the processor's second cache.
_STEP = 1 << 14
_THREADED = 1 << 17  # fewer rows are scanned before a second thread has begun

# A shortlist has all rows that are as near as its last row, up to so many times its length.
_OVERFULL = 4
_STEPS = 127  # a rounded number has from 0 to 1
# How far apart two scores by rounded vectors may be and yet be in the wrong order. Rounding to 8 bits changes each
# number by at most half a step, so that the difference of two scores has a standard deviation of sqrt(2 / 12) / 127;
# five standard deviations are safe.
_ROUNDING = 5 * (2 / 12) ** 0.5 / _STEPS

Bits = NDArray[np.uint8]
Small = NDArray[np.int8]


def encode(vectors: Vectors, bits: int) -> Bits:
    """Codes (n, bits / 8)."""
    packed = to_binary(vectors[:, :bits])
    return np.pad(packed, ((0, 0), (0, bits // 8 - packed.shape[1])))


def rounded(vectors: Vectors) -> Small:
    """Vectors of length 1 with 8 bits a number."""
    return np.rint(vectors * _STEPS).astype(np.int8)


@dataclass(frozen=True)
class Codes:
    """The codes of many rows, in columns of 64 bits: `words` is (n_words, n), which a scan reads from end to end."""

    rows: Rows  # ascending
    words: NDArray[np.uint64]

    @property
    def bits(self) -> int:
        return WORD_BITS * len(self.words)

    def distances(self, code: Bits) -> NDArray[np.uint16]:
        """In how many bits the code of each row differs from this code."""
        query = code.view(np.uint64)
        found = np.empty(len(self.rows), np.uint16)
        if len(found) < _THREADED:
            _scan(self.words, query, found)
        else:
            middle = len(found) // 2
            # NumPy lets another thread run while it counts.
            other = _second_thread(os.getpid()).submit(_scan, self.words[:, middle:], query, found[middle:])
            _scan(self.words[:, :middle], query, found[:middle])
            other.result()
        return found

    def shortlist(self, query: Vectors, k: int, n: int, allowed: Rows | None = None) -> Rows | None:
        """The n rows whose codes are nearest, and all rows as near as the last of them, in no order.

        None where so many rows are equally near that the codes tell nothing apart. Only rows in `allowed` are found,
        which ascends and has at least n of the rows.
        """
        found = self.distances(encode(query[None], self.bits)[0])
        if allowed is not None:
            found[~np.isin(self.rows, allowed)] = self.bits + 1  # further than any
        counts = np.bincount(found).cumsum()
        limit = int(np.searchsorted(counts, n))
        if counts[limit] > _OVERFULL * n:
            return None
        rows: Rows = self.rows[found <= limit]
        return rows


@dataclass(frozen=True)
class Rounded:
    """Vectors (n, dim) with 8 bits a number, for vectors whose signs are too few to tell them apart."""

    rows: Rows  # ascending
    numbers: Small

    def shortlist(self, query: Vectors, k: int, n: int, allowed: Rows | None = None) -> Rows | None:
        """As `Codes.shortlist`, by scores. All rows are on it that may be among the first k despite the rounding."""
        found, part = np.empty(len(self.rows), np.float32), np.empty((_STEP, len(query)), np.float32)
        for first in range(0, len(found), _STEP):
            rounded_part = self.numbers[first : first + _STEP]
            n_rows = len(rounded_part)
            np.copyto(part[:n_rows], rounded_part)
            np.matmul(part[:n_rows], query, out=found[first : first + n_rows])
        found /= _STEPS
        if allowed is not None:
            found[~np.isin(self.rows, allowed)] = -np.inf
        k_th, n_th = np.partition(found, (len(found) - n, len(found) - k))[[len(found) - k, len(found) - n]]
        near = found >= min(n_th, k_th - _ROUNDING)
        if np.count_nonzero(near) > _OVERFULL * n:
            return None
        rows: Rows = self.rows[near]
        return rows


def fill(target: NDArray[Any], parts: Iterable[tuple[Rows, Bits]]) -> Rows:
    """Copy codes, which come in parts, into `target` (n, width): their rows. Raises ValueError unless they are n."""
    rows, first = np.empty(len(target), np.int64), 0
    for part_rows, part in parts:
        last = first + len(part_rows)
        rows[first:last], target[first:last] = part_rows, part.view(target.dtype)
        first = last
    if first != len(target):
        raise ValueError(f"there are {first} of {len(target)} codes")
    return rows


@lru_cache(maxsize=1)
def _second_thread(process: int) -> ThreadPoolExecutor:
    """The thread that all searches of a process share. A forked process has no threads of its parent."""
    return ThreadPoolExecutor(1, thread_name_prefix="scan")


def _scan(words: NDArray[np.uint64], query: NDArray[np.uint64], found: NDArray[np.uint16]) -> None:
    differing, n_bits = np.empty(_STEP, np.uint64), np.empty(_STEP, np.uint8)
    for first in range(0, len(found), _STEP):
        columns = words[:, first : first + _STEP]
        total = found[first : first + _STEP]
        total[:] = 0
        n = len(total)
        for column, word in zip(columns, query, strict=True):
            np.bitwise_xor(column, word, out=differing[:n])
            np.bitwise_count(differing[:n], out=n_bits[:n])
            np.add(total, n_bits[:n], out=total)
