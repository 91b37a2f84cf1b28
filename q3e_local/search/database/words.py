"""The words of an index in SQLite's FTS5, ranked by bm25.

Knows the table `words` and tokens; how a text becomes tokens is the business of search/words.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import apsw
import numpy as np

from q3e_local.search.chunk import Chunk
from q3e_local.search.database.records import Ranked, Rows
from q3e_local.search.words import Term, tokens

# A term found in more chunks is counted no further: it says little, and each of them costs time.
COUNTED_MAX = 20_000
_TERMS_COUNTED = 256
_TERMS_SEARCHED = 48
_ROWS_SEARCHED = 60_000


def insert(connection: apsw.Connection, rows: Sequence[int], chunks: Sequence[Chunk]) -> None:
    """Index texts, and the headings above them."""
    pairs = ((row, " ".join(tokens(chunk.embedded))) for row, chunk in zip(rows, chunks, strict=True))
    connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", pairs)


def remove(connection: apsw.Connection, rows: Iterable[int]) -> None:
    connection.executemany("DELETE FROM words WHERE rowid = ?", ((row,) for row in rows))


def counted(connection: apsw.Connection, terms: Sequence[Term]) -> dict[Term, int]:
    """In how many chunks the first terms of a query are found, the rarest first; without those that are in none."""
    select = f"SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT {COUNTED_MAX})"  # noqa: S608
    found = [(term, int(connection.execute(select, (term.match,)).get)) for term in terms[:_TERMS_COUNTED]]
    return dict(sorted(((term, n) for term, n in found if n), key=lambda one: one[1]))


def chosen(counts: Mapping[Term, int]) -> list[Term]:
    """The rarest, as many as a search in a large index has time for; the rarest of all in any case."""
    some: list[Term] = []
    n_rows = 0
    for term, n in list(counts.items())[:_TERMS_SEARCHED]:
        n_rows += n
        if some and n_rows > _ROWS_SEARCHED:
            break
        some.append(term)
    return some


def search(connection: apsw.Connection, counts: Mapping[Term, int], k: int, allowed: Rows | None = None) -> Ranked:
    """The k best rows that have any of the terms, best first, with bm25 (its sign turned: higher is better)."""
    terms = chosen(counts)
    passes = None if allowed is None else set(allowed.tolist())
    rows: list[int] = []
    scores: list[float] = []
    for row, score in _ranked(connection, terms, k if passes is None else -1):
        if passes is None or row in passes:
            rows.append(row)
            scores.append(-score)
        if len(rows) >= k:
            break
    left_out = f", without {len(counts) - len(terms)} common ones" if len(terms) < len(counts) else ""
    explained = f"words: ranked the chunks with any of {len(terms)} terms by bm25{left_out}"
    if not terms:
        explained = "words: none of the query's is in the index"
    return Ranked(np.array(rows, np.int64), np.array(scores, np.float64), (explained,))


def _ranked(connection: apsw.Connection, terms: Sequence[Term], limit: int) -> Iterator[tuple[int, float]]:
    """Rows with bm25, where lower is better; a limit of -1 is none."""
    if not terms:
        return
    match = " OR ".join(term.match for term in terms)
    select = "SELECT rowid, bm25(words) AS score FROM words WHERE words MATCH ? ORDER BY score, rowid LIMIT ?"
    yield from connection.execute(select, (match, limit))
