"""One index in one SQLite file: `Database`. This folder is the only place that imports apsw and sqlite_vec.

Truth are plain tables: files, chunks with their texts and places, full vectors. Codes (sqlite-vec) and words (FTS5)
are derived. Knows vectors as numbers; nothing of models or of how files are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from q3e_local.search.chunk import Chunk
from q3e_local.search.database.records import Entry, Facts, FileRecord, Filters, IndexSpace, Ranked, Window
from q3e_local.vectors import Vectors


class Database:
    """One index file. Safe to use from several threads, and by several processes at once; close it when done."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Database:
        """An index that is there. Raises IndexFileError (missing, not an index, damaged, newer)."""

    @classmethod
    def create(cls, path: str | os.PathLike[str], space: IndexSpace) -> Database:
        """Open the index, or make it. Raises SpaceMismatchError where it holds another space, or IndexFileError."""

    space: IndexSpace

    def files(self) -> dict[str, FileRecord]:
        """All files by path."""

    def replace_file(self, record: FileRecord, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Store a file in one transaction: what it had before goes, these come. No chunks is fine: it is known then."""

    def touch_file(self, record: FileRecord) -> None:
        """The same content, another time or size on disk."""

    def remove_files(self, paths: Iterable[str]) -> int:
        """Forget files with all that is theirs: how many there were."""

    def put(self, ids: Sequence[str] | None, chunks: Sequence[Chunk], vectors: Vectors) -> list[str]:
        """Store texts of no file in one transaction; one whose id is there already replaces it. None: new ids."""

    def delete(self, ids: Iterable[str]) -> int:
        """Forget chunks by id: how many there were."""

    def exact(self, vector: Vectors, k: int, filters: Filters = Filters()) -> Ranked:
        """The k nearest by full vectors, all of them looked at, a window at a time."""

    def nearest(self, vector: Vectors, k: int, filters: Filters = Filters()) -> Ranked:
        """The k nearest in two stages: a shortlist by binary codes, ordered with the full vectors."""

    def words(self, query: str, k: int, filters: Filters = Filters()) -> Ranked:
        """The k best by words (bm25)."""

    def entries_of(self, rows: Sequence[int]) -> list[Entry]:
        """The entries of these rows, in their order; those that are gone are left out."""

    def entries(self, n_window: int = 1024, filters: Filters = Filters()) -> Iterator[Window]:
        """Everything, a window at a time."""

    def facts(self) -> Facts:
        """What is in it."""

    def close(self) -> None:
        """Close it; twice is fine."""
