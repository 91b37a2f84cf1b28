"""The full vectors of an index, and scores by them.

Knows the table `vectors` and arithmetic; no filters and no texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apsw
import numpy as np
from numpy.typing import NDArray

from q3e_local.search.database.records import Rows
from q3e_local.vectors import Vectors

_WINDOW_BYTES = 16 << 20
# The scores of two unit vectors, summed in float32 in different orders, differ by less than this.
_NOISE = 1e-5


def insert(connection: apsw.Connection, rows: Iterable[int], vectors: Vectors, table: str = "vectors") -> None:
    little_endian = vectors.astype("<f4", copy=False)
    pairs = ((int(row), vector.tobytes()) for row, vector in zip(rows, little_endian, strict=True))
    connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", pairs)  # noqa: S608


def remove(connection: apsw.Connection, rows: Iterable[int]) -> None:
    connection.executemany("DELETE FROM vectors WHERE id = ?", ((row,) for row in rows))


def of_rows(connection: apsw.Connection, rows: Iterable[int], dim: int) -> tuple[Rows, Vectors]:
    """Those of the rows that are there, in the order of `rows`, and their vectors."""
    select = "SELECT id, vector FROM vectors WHERE id = ?"
    return _arrays(connection.executemany(select, ((int(row),) for row in rows)), dim)


def windows(connection: apsw.Connection, dim: int, rows: Rows | None = None) -> Iterator[tuple[Rows, Vectors]]:
    """All vectors, or the vectors of `rows`, a few megabytes at a time."""
    n = max(1, _WINDOW_BYTES // (4 * dim))
    if rows is not None:
        for first in range(0, len(rows), n):
            yield of_rows(connection, rows[first : first + n], dim)
        return
    last = -1
    while True:
        select = "SELECT id, vector FROM vectors WHERE id > ? ORDER BY id LIMIT ?"
        found, vectors = _arrays(connection.execute(select, (last, n)), dim)
        if not len(found):
            return
        last = int(found[-1])
        yield found, vectors


def scored(vectors: Vectors, query: Vectors) -> NDArray[np.float64]:
    """Cosine scores. To the last bit of float32 a score depends on its two vectors alone, not on their neighbours."""
    exact: NDArray[np.float64] = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    rounded: NDArray[np.float64] = exact.astype(np.float32).astype(np.float64)
    return rounded


def nearest(found: Iterable[tuple[Rows, Vectors]], query: Vectors, k: int) -> tuple[Rows, NDArray[np.float64]]:
    """The k best of all windows, in no order; more than k where others score as high as the k-th."""
    best_rows, best = np.empty(0, np.int64), np.empty(0)
    for rows, vectors in found:
        rough = (vectors @ query).astype(np.float64)
        near = rough >= max(_kth(best, k), _kth(rough, k)) - _NOISE
        best_rows = np.concatenate([best_rows, rows[near]])
        best = np.concatenate([best, scored(vectors[near], query)])
        kept = best >= _kth(best, k)
        best_rows, best = best_rows[kept], best[kept]
    return best_rows, best


def _kth(scores: NDArray[np.float64], k: int) -> float:
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) if 0 < k <= len(scores) else -np.inf


def _arrays(found: Iterable[tuple[int, bytes]], dim: int) -> tuple[Rows, Vectors]:
    rows: list[int] = []
    vectors = bytearray()
    for row, vector in found:
        rows.append(row)
        vectors += vector
    if len(vectors) != 4 * dim * len(rows):
        raise apsw.CorruptError(f"a vector has not {dim} numbers")
    return np.array(rows, np.int64), np.frombuffer(vectors, "<f4").reshape(-1, dim)
