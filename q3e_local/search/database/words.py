"""The words of an index in SQLite's FTS5, ranked by bm25.

Knows the table `words` and tokens; how a text becomes tokens is the business of search/words.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from q3e_local.search.chunk import Chunk
from q3e_local.search.database.records import Rows
from q3e_local.search.words import Term, tokens

# A term found in more chunks is counted no further: it says little, and each of them costs time.
COUNTED_MAX = 20_000
_TERMS_COUNTED = 256
_TERMS_SEARCHED = 48
_ROWS_SEARCHED = 60_000


@dataclass(frozen=True)
class Counted:
    """A term, and in how many chunks it is found (COUNTED_MAX: in as many or more)."""

    term: Term
    n_chunks: int


def insert(connection: apsw.Connection, rows: Sequence[int], chunks: Sequence[Chunk]) -> None:
    """Index texts, and the headings above them."""
    pairs = ((row, " ".join(tokens(chunk.embedded))) for row, chunk in zip(rows, chunks, strict=True))
    connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", pairs)


def remove(connection: apsw.Connection, rows: Iterable[int]) -> None:
    connection.executemany("DELETE FROM words WHERE rowid = ?", ((row,) for row in rows))


def counted(connection: apsw.Connection, terms: Sequence[Term]) -> list[Counted]:
    """The first terms of a query that are found at all, the rarest first."""
    select = f"SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT {COUNTED_MAX})"  # noqa: S608
    found = [Counted(term, int(connection.execute(select, (term.match,)).get)) for term in terms[:_TERMS_COUNTED]]
    return sorted((one for one in found if one.n_chunks), key=lambda one: one.n_chunks)


def chosen(found: Sequence[Counted]) -> list[Counted]:
    """The rarest, as many as a search in a large index has time for; the rarest of all in any case."""
    some: list[Counted] = []
    n_rows = 0
    for one in found[:_TERMS_SEARCHED]:
        n_rows += one.n_chunks
        if some and n_rows > _ROWS_SEARCHED:
            break
        some.append(one)
    return some


def search(
    connection: apsw.Connection, terms: Sequence[Term], k: int, allowed: Rows | None = None
) -> tuple[Rows, NDArray[np.float64]]:
    """The k best rows that have any of the terms, best first, with bm25 (its sign turned: higher is better)."""
    rows: list[int] = []
    scores: list[float] = []
    passes = None if allowed is None else set(allowed.tolist())
    for row, score in _ranked(connection, terms, k if allowed is None else -1):
        if passes is None or row in passes:
            rows.append(row)
            scores.append(-score)
        if len(rows) >= k:
            break
    return np.array(rows, np.int64), np.array(scores, np.float64)


def _ranked(connection: apsw.Connection, terms: Sequence[Term], limit: int) -> Iterator[tuple[int, float]]:
    """Rows with bm25, where lower is better; a limit of -1 is none."""
    if not terms:
        return
    match = " OR ".join(term.match for term in terms)
    select = "SELECT rowid, bm25(words) AS score FROM words WHERE words MATCH ? ORDER BY score, rowid LIMIT ?"
    yield from connection.execute(select, (match, limit))
