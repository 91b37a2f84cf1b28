"""What an index answers at one moment: `Snapshot`, the reading half of `Database`.

Knows how the nearest vectors are found, and which table answers what else; nothing of how rankings are joined, nor of
what changes a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import apsw
import numpy as np

from q3e_local.errors import OptionError
from q3e_local.search.database import chunk_table, file_table, vector_table, word_table
from q3e_local.search.database.bit_scan import Codes, Rounded
from q3e_local.search.database.code_table import CODE_BITS_MAX, ROUNDED_DIM_MAX
from q3e_local.search.database.index_file import IndexFile
from q3e_local.search.database.query_words import Term
from q3e_local.search.database.records import (
    NO_FILTERS,
    Counted,
    Entry,
    FileRecord,
    Filters,
    Passages,
    Ranked,
    Rows,
    Sharing,
)
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted

# Of the first ten among a million, by scripts/bench/search_million.py:
#   shortlist  bits of a code  found
#         400           1,024  0.994
#         800           1,024  0.9995
#         800             512  0.98
# 800 is above what these vectors need, because real vectors may be harder. With fewer bits the list grows by
# (1,024 / bits) ** 1.5: with codes of 257 bits it then has 0.99 of the first ten among 100,000.
SHORTLIST = 800
_SHORTLIST_PER_HIT = 16


class Snapshot:
    """All answers are of one state of the file, whatever is written meanwhile. Made by `Database.snapshot`."""

    def __init__(self, file: IndexFile, connection: apsw.Connection) -> None:
        self._file, self._connection = file, connection

    def n_chunks(self) -> int:
        """How many chunks can be found."""
        return self._file.n_chunks(self._connection)

    def exact(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest by full vectors: all of them are compared, some megabytes at a time."""
        return self._exact(self._query(vector), k, self._allowed(filters))

    def nearest(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest in two stages: a shortlist by codes, put in order by full vectors.

        One stage, by full vectors, where there are few of them or where the codes tell too few of them apart.
        """
        query, allowed = self._query(vector), self._allowed(filters)
        n_short = max(SHORTLIST, _SHORTLIST_PER_HIT * k)
        if len(query) > ROUNDED_DIM_MAX:
            n_short = max(n_short, round(SHORTLIST * (CODE_BITS_MAX / min(len(query), CODE_BITS_MAX)) ** 1.5))
        # As many full vectors are read as quickly as all codes are scanned.
        if (self.n_chunks() if allowed is None else len(allowed)) <= max(4 * SHORTLIST, n_short):
            return self._exact(query, k, allowed)
        codes = self._file.codes(self._connection)
        short = codes.shortlist(query, k, n_short, allowed)
        if short is None:
            ranked = self._exact(query, k, allowed)
            why = f"first stage: scanned {_described(codes, len(query))} in vain: too many are equally near"
            return replace(ranked, explained=(why, *ranked.explained))
        explained = (
            f"first stage: scanned {_described(codes, len(query))} for the {len(short):,} nearest",
            f"second stage: ordered those by their full vectors of {len(query)} numbers",
        )
        return self._compared(query, k, np.sort(short), explained)

    def scores(self, vector: Vectors, rows: Iterable[int]) -> dict[int, float]:
        """The cosine score of each of these rows that is there."""
        found, vectors = vector_table.of_rows(self._connection, rows, self._file.space.dim)
        return dict(zip(found.tolist(), vector_table.scored(vectors, self._query(vector)).tolist(), strict=True))

    def counted(self, terms: Sequence[Term]) -> Counted:
        """In how many chunks each term of a query is found; of a long query, the terms that there is time for."""
        return word_table.counted(self._connection, terms)

    def words(
        self, counts: Mapping[Term, int], k: int, filters: Filters = NO_FILTERS, sharing: Sharing | None = None
    ) -> Ranked:
        """The k best chunks that have any of the terms, by bm25; with `sharing` those of them that share enough.

        The counts are those of `counted`.
        """
        return word_table.search(self._connection, counts, k, self._allowed(filters), sharing)

    def entries_of(self, rows: Iterable[int]) -> tuple[Entry, ...]:
        """The entries of these rows, in their order, without rows that are gone."""
        return chunk_table.entries(self._connection, rows)

    def named(self, ids: Iterable[str]) -> tuple[Entry, ...]:
        """The entries of these ids, in their order, without ids that the index does not have."""
        return self.entries_of(row for row, _ in chunk_table.named(self._connection, ids).values())

    def file(self, path: str) -> FileRecord | None:
        """The record of the file that has exactly this path; None where the index has no such file."""
        return file_table.one(self._connection, path)

    def passages(self, path: str) -> tuple[Entry, ...]:
        """The entries of the file that has exactly this path, in the order of its text."""
        numbers = file_table.numbers(self._connection, [path])
        return self.entries_of(chunk_table.of_files(self._connection, numbers))

    def around(self, name: str, n: int) -> Passages:
        """The entry of this id with up to n entries of its file before and behind it; none for an unknown id."""
        for row, file in chunk_table.named(self._connection, [name]).values():
            rows = [row] if file is None else chunk_table.of_files(self._connection, [file])
            place = rows.index(row)
            first = max(0, place - n)
            return Passages(self.entries_of(rows[first : place + n + 1]), first + 1, len(rows))
        return Passages(())

    def read_codes(self) -> None:
        """Hold in memory what searches by vectors need, so that the first search need not read it."""
        self._file.codes(self._connection)

    def _exact(self, query: Vectors, k: int, allowed: Rows | None) -> Ranked:
        n = self.n_chunks() if allowed is None else len(allowed)
        return self._compared(query, k, allowed, (f"exact: compared the full vectors of {counted(n, 'chunk')}",))

    def _compared(self, query: Vectors, k: int, allowed: Rows | None, explained: tuple[str, ...]) -> Ranked:
        """The k nearest of these rows or of all, best first; equal scores in the order of their ids."""
        windows = vector_table.windows(self._connection, len(query), allowed)
        rows, scores = vector_table.nearest(windows, query, k)
        order = np.argsort(-scores, kind="stable")
        if len(np.unique(scores)) < len(scores):
            names = chunk_table.names_of(self._connection, rows)
            order = np.array(sorted(range(len(rows)), key=lambda place: (-scores[place], names[place])), np.intp)
        return Ranked(rows[order[:k]], scores[order[:k]], explained)

    def _allowed(self, filters: Filters) -> Rows | None:
        return chunk_table.allowed(self._connection, filters) if filters else None

    def _query(self, vector: Vectors) -> Vectors:
        query = np.ascontiguousarray(vector, np.float32).reshape(-1)
        if len(query) != self._file.space.dim:
            raise OptionError(
                f"a vector of {len(query)} numbers cannot be searched in {self._file.path}, which holds "
                f"{self._file.space}"
            )
        return query


def _described(codes: Codes | Rounded, dim: int) -> str:
    """What the first stage scans."""
    chunks = counted(len(codes.rows), "chunk")
    if isinstance(codes, Rounded):
        return f"the vectors of {chunks}, rounded to 8 bits a number,"
    part = f"the first {codes.bits}" if codes.bits < dim else f"all {dim}"
    return f"{codes.bits}-bit codes of {chunks} (of {part} numbers)"
