"""The words of an index in SQLite's FTS5, ranked by bm25.

Knows the table `words` and tokens; how a text becomes tokens is the business of query_words.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import apsw
import numpy as np

from q3e_local.search.database.query_words import Term, tokens
from q3e_local.search.database.records import COUNTED_MAX, TERMS_SEARCHED, Chunk, Counted, Ranked, Rows, Sharing

# How much of a query is looked up that is as long as a text. SQLite looks for a phrase of common words in all chunks
# that have these words, and cannot be stopped: among a million chunks that takes up to a tenth of a second.
_WORDS_COUNTED, _PHRASES_COUNTED = 256, 32
_PHRASE_TOKENS = 64
_COUNTED_S = 1.0
_ROWS_SEARCHED = 60_000


def insert(connection: apsw.Connection, rows: Sequence[int], chunks: Sequence[Chunk]) -> None:
    """Index texts and the headings above them."""
    pairs = ((row, " ".join(tokens(chunk.embedded))) for row, chunk in zip(rows, chunks, strict=True))
    connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", pairs)


def remove(connection: apsw.Connection, rows: Iterable[int]) -> None:
    connection.executemany("DELETE FROM words WHERE rowid = ?", ((row,) for row in rows))


def counted(connection: apsw.Connection, terms: Sequence[Term]) -> Counted:
    """Look terms up, words before phrases, until a limit of number or time is reached."""
    select = f"SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT {COUNTED_MAX})"  # noqa: S608
    words = [term for term in terms if len(term.tokens) == 1][:_WORDS_COUNTED]
    phrases = [term for term in terms if 1 < len(term.tokens) <= _PHRASE_TOKENS][:_PHRASES_COUNTED]
    found: dict[Term, int] = {}
    until = time.monotonic() + _COUNTED_S
    for term in (*words, *phrases):
        if time.monotonic() > until:
            break
        found[term] = int(connection.execute(select, (term.match,)).get)
    in_order = sorted((term for term in terms if found.get(term)), key=found.__getitem__)
    absent = tuple(term for term, n in found.items() if not n and term.is_code)
    return Counted({term: found[term] for term in in_order}, len(terms), len(terms) - len(found), absent)


def search(
    connection: apsw.Connection,
    counts: Mapping[Term, int],
    k: int,
    allowed: Rows | None = None,
    sharing: Sharing | None = None,
) -> Ranked:
    """The k best rows that have any of the terms, best first, with bm25 (its sign turned: higher is better).

    With `sharing` those of them that share enough of the query's words.
    """
    terms = _affordable(counts)
    if not terms:
        return Ranked(np.empty(0, np.int64), np.empty(0), ("words: none of those looked up is in the index",))
    passes = None if allowed is None else set(allowed.tolist())
    match = " OR ".join(term.match for term in terms)
    weights = [sharing.weights.get(term, 0.0) for term in terms] if sharing else []
    shared = f"shared(words{', ?' * len(weights)})" if sharing else "0"
    select = (
        f"SELECT rowid, bm25(words) AS score, {shared} FROM words "  # noqa: S608 (no text of a user)
        "WHERE words MATCH ? ORDER BY score, rowid LIMIT ?"
    )
    found = connection.execute(select, (*weights, match, k if passes is None else -1))  # -1: no limit
    best = list(islice((each for each in found if passes is None or each[0] in passes), k))
    left_out = f", without {len(counts) - len(terms)} common ones" if len(terms) < len(counts) else ""
    explained = [f"words: ranked the chunks with any of {len(terms)} terms by bm25{left_out}"]
    if sharing:
        kept = [each for each in best if each[2] >= sharing.enough]
        explained.append(f"words: {len(kept):,} of the first {len(best):,} share enough of the query's words")
        best = kept
    rows, scores = (
        np.array([row for row, *_ in best], np.int64),
        np.array([-score for _, score, _ in best], np.float64),
    )
    return Ranked(rows, scores, tuple(explained))


def _affordable(counts: Mapping[Term, int]) -> list[Term]:
    """The rarest terms, as many as a search in a large index has time for, and at least one of them."""
    terms: list[Term] = []
    n_rows = 0
    for term, n in list(counts.items())[:TERMS_SEARCHED]:
        n_rows += n
        if terms and n_rows > _ROWS_SEARCHED:
            break
        terms.append(term)
    return terms
