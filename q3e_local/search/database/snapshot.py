"""What an index answers at one moment: `Snapshot`, the reading half of `Database`.

Knows which table answers what; nothing of how rankings are joined, nor of what changes a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import apsw
import numpy as np

from q3e_local.errors import OptionError
from q3e_local.search.database import chunk_table, nearest, vector_table, word_table
from q3e_local.search.database.index_file import IndexFile
from q3e_local.search.database.query_words import Term
from q3e_local.search.database.records import NO_FILTERS, Counted, Entry, Filters, Ranked, Rows
from q3e_local.vectors import Vectors


class Snapshot:
    """All answers are of one state of the file, whatever is written meanwhile. Made by `Database.snapshot`."""

    def __init__(self, file: IndexFile, connection: apsw.Connection) -> None:
        self._file, self._connection = file, connection

    def n_chunks(self) -> int:
        """How many chunks can be found."""
        return self._file.n_chunks(self._connection)

    def exact(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest by full vectors: all of them are compared, some megabytes at a time."""
        return nearest.exact(self._connection, self._query(vector), k, self._allowed(filters))

    def nearest(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest in two stages: a shortlist by codes, put in order by full vectors."""
        query, allowed = self._query(vector), self._allowed(filters)
        return nearest.two_stage(self._connection, lambda: self._file.codes(self._connection), query, k, allowed)

    def scores(self, vector: Vectors, rows: Iterable[int]) -> dict[int, float]:
        """The cosine score of each of these rows that is there."""
        found, vectors = vector_table.of_rows(self._connection, rows, self._file.space.dim)
        return dict(zip(found.tolist(), vector_table.scored(vectors, self._query(vector)).tolist(), strict=True))

    def counted(self, terms: Sequence[Term]) -> Counted:
        """In how many chunks each term of a query is found; of a long query, the terms that there is time for."""
        return word_table.counted(self._connection, terms)

    def words(self, counts: Mapping[Term, int], k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k best chunks that have any of the terms, by bm25. The counts are those of `counted`."""
        return word_table.search(self._connection, counts, k, self._allowed(filters))

    def entries_of(self, rows: Iterable[int]) -> list[Entry]:
        """The entries of these rows, in their order, without rows that are gone."""
        return chunk_table.entries(self._connection, rows)

    def read_codes(self) -> None:
        """Hold in memory what searches by vectors need, so that the first search need not read it."""
        self._file.codes(self._connection)

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
