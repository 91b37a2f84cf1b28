"""The nearest vectors: by the full vectors of all rows, or of a shortlist that codes make.

Knows rows, vectors and codes of one state of the file; nothing of words, nor of filters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import apsw
import numpy as np
from numpy.typing import NDArray

from q3e_local.search.database import chunk_table, vector_table
from q3e_local.search.database.bit_scan import Codes, Rounded
from q3e_local.search.database.code_table import CODE_BITS_MAX
from q3e_local.search.database.records import Ranked, Rows
from q3e_local.vectors import Vectors

# Of the first ten among a million, by scripts/bench/search_million.py:
#   shortlist  bits of a code  found
#         400           1,024  0.994
#         800           1,024  0.9995
#         800             512  0.98
# 800 is above what these vectors need, because real vectors may be harder. With fewer bits the list grows by
# (1,024 / bits) ** 1.5: with codes of 257 bits it then has 0.99 of the first ten among 100,000.
SHORTLIST = 800
_SHORTLIST_PER_HIT = 16
# The full vectors of so few rows are read as quickly as all codes are scanned.
EXACT_ROWS = 4 * SHORTLIST


def exact(connection: apsw.Connection, query: Vectors, k: int, allowed: Rows | None = None) -> Ranked:
    """By the full vectors of all rows, or of those that are allowed."""
    found, scores = vector_table.nearest(vector_table.windows(connection, len(query), allowed), query, k)
    n = chunk_table.n_chunks(connection) if allowed is None else len(allowed)
    return _ordered(connection, found, scores, k, (f"exact: compared the full vectors of {_of(n, 'chunk')}",))


def two_stage(
    connection: apsw.Connection, load: Callable[[], Codes | Rounded], query: Vectors, k: int,
    allowed: Rows | None = None,
) -> Ranked:  # fmt: skip
    """By codes and then by full vectors; exact where there are few rows, or the codes tell too few of them apart."""
    n_short = max(SHORTLIST, _SHORTLIST_PER_HIT * k)
    if allowed is not None and len(allowed) <= max(EXACT_ROWS, n_short):
        return exact(connection, query, k, allowed)
    codes = load()
    n_all = len(codes.rows)
    n = n_all if allowed is None else len(allowed)
    if n <= max(EXACT_ROWS, n_short):
        return exact(connection, query, k, allowed)
    if isinstance(codes, Codes):
        n_short = max(n_short, round(SHORTLIST * (CODE_BITS_MAX / min(len(query), codes.bits)) ** 1.5))
        if n <= n_short:
            return exact(connection, query, k, allowed)
        scanned = f"{codes.bits}-bit codes of {_of(n_all, 'chunk')} ({_cut(codes.bits, len(query))})"
    else:
        scanned = f"the vectors of {_of(n_all, 'chunk')}, rounded to 8 bits a number,"
    short = codes.shortlist(query, k, n_short, allowed)
    if short is None:
        ranked = exact(connection, query, k, allowed)
        why = f"first stage: scanned {scanned} in vain: too many are equally near"
        return replace(ranked, explained=(why, *ranked.explained))
    found, scores = vector_table.nearest(vector_table.windows(connection, len(query), np.sort(short)), query, k)
    explained = (
        f"first stage: scanned {scanned} for the {len(short):,} nearest",
        f"second stage: ordered those by their full vectors of {len(query)} numbers",
    )
    return _ordered(connection, found, scores, k, explained)


def _ordered(
    connection: apsw.Connection, rows: Rows, scores: NDArray[np.float64], k: int, explained: tuple[str, ...]
) -> Ranked:
    """The k best, best first; equal scores in the order of their ids."""
    order = np.argsort(-scores, kind="stable")
    # Those as good as the k-th are looked at too: which of them is in is for the ids to say.
    last = scores[order[min(k, len(order)) - 1]] if len(order) else 0.0
    order = order[: int(np.searchsorted(-scores[order], -last, side="right"))]
    if len(np.unique(scores[order])) < len(order):
        names = chunk_table.names_of(connection, rows[order])
        by_id = sorted(range(len(order)), key=lambda place: (-scores[order[place]], names[place]))
        order = order[by_id]
    return Ranked(rows[order[:k]], scores[order[:k]], explained)


def _cut(bits: int, dim: int) -> str:
    return f"of the first {bits} numbers" if bits < dim else f"of all {dim} numbers"


def _of(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
