"""One index in one SQLite file: `Database`. This folder is the only place that imports apsw and sqlite_vec.

Truth are plain tables: files, chunks with their texts and places, full vectors. Codes (sqlite-vec) and words (FTS5)
are derived. Knows vectors as numbers; nothing of models or of how files are read.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import apsw
import numpy as np

from q3e_local.errors import IndexFileError, InvalidTextError, OptionError
from q3e_local.search.chunk import Chunk
from q3e_local.search.database import chunk_table as chunks_table
from q3e_local.search.database import code_table as codes_table
from q3e_local.search.database import file_table as files_table
from q3e_local.search.database import nearest, schema, staging
from q3e_local.search.database import vector_table as vectors_table
from q3e_local.search.database import word_table as words_table
from q3e_local.search.database.connection import Loader, file_bytes, load_sqlite_vec
from q3e_local.search.database.index_file import IndexFile
from q3e_local.search.database.query_words import Term
from q3e_local.search.database.records import (
    Counted,
    Entry,
    Facts,
    FileRecord,
    Filters,
    IndexSpace,
    Ranked,
    Rows,
    Window,
)
from q3e_local.vectors import Vectors

NO_FILTERS = Filters()
_UNIT = 1e-3  # how far from 1 the length of a vector may be


class Database:
    """One index file. Safe to use from several threads, and by several processes at once; close it when done.

    Made by `open` and `create`. One thread writes at a time and one reads at a time, of which neither waits for the
    other.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        space: IndexSpace | None = None,
        *,
        loader: Loader = load_sqlite_vec,
        migrations: Sequence[schema.Migration] = schema.MIGRATIONS,
    ) -> None:
        self._file = IndexFile(path, space, loader, migrations)

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def space(self) -> IndexSpace:
        """What made the vectors."""
        return self._file.space

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Database:
        """An index that is there. Raises IndexFileError: missing, not an index, damaged, newer."""
        return cls(path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], space: IndexSpace) -> Database:
        """Open the index, or make it. Raises SpaceMismatchError where it holds another space, or IndexFileError."""
        return cls(path, space)

    def files(self) -> dict[str, FileRecord]:
        """All files by path."""
        with self._file.reading() as connection:
            return files_table.all_files(connection)

    def chunk_tokens(self) -> int | None:
        """Tokens in a chunk at most, as the last run had it; None before the first. Raises IndexFileError."""
        with self._file.reading() as connection:
            found = schema.meta(connection).get("chunk_tokens")
        if found is not None and (type(found) is not int or found < 1):
            raise IndexFileError(f"{self.path} is damaged: its chunk_tokens are {found!r}")
        return found

    def set_chunk_tokens(self, n_tokens: int) -> None:
        """Keep how files are cut, for the next run."""
        with self._file.changing() as connection:
            schema.set_meta(connection, chunk_tokens=n_tokens)

    def replace_file(self, record: FileRecord, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Store a file in one transaction: what it had before goes, these come. Without chunks it is just known.

        The vectors are those of `chunk.embedded`.
        """
        self._check(chunks, vectors)
        _check_text(record.path, 0)
        now = time.time()
        record = replace(record, n_chunks=len(chunks), indexed_at=now)
        names = [f"{record.path}#{number}" for number in range(len(chunks))]
        with self._file.changing() as connection:
            self._remove(
                connection, chunks_table.of_files(connection, files_table.numbers(connection, [record.path]))
            )
            taken = chunks_table.named(connection, names)
            if taken:
                raise OptionError(f"the id {next(iter(taken))!r} is taken by a text of your own; delete that first")
            self._insert(connection, names, chunks, vectors, files_table.store(connection, record), now)

    def touch_file(self, record: FileRecord) -> None:
        """The same content, another time or size on disk."""
        with self._file.changing() as connection:
            files_table.touch(connection, record)

    def remove_files(self, paths: Iterable[str]) -> int:
        """Forget files with all that is theirs: how many there were."""
        with self._file.changing() as connection:
            numbers = files_table.numbers(connection, set(paths))
            self._remove(connection, chunks_table.of_files(connection, numbers))
            files_table.remove(connection, numbers)
        return len(numbers)

    def put(self, ids: Sequence[str] | None, chunks: Sequence[Chunk], vectors: Vectors) -> list[str]:
        """Store texts of no file in one transaction; one whose id is there already is replaced. None: new ids."""
        self._check(chunks, vectors)
        if ids is not None:
            check_ids(ids, len(chunks))
        for place, each in enumerate(ids or ()):
            _check_text(each, place)
        with self._file.changing() as connection:
            names = chunks_table.free_names(connection, len(chunks)) if ids is None else list(ids)
            there = chunks_table.named(connection, names)
            _check_own(there)
            self._remove(connection, [row for row, _ in there.values()])
            self._insert(connection, names, chunks, vectors, None, time.time())
        return names

    def delete(self, ids: Iterable[str]) -> int:
        """Forget texts of no file by id: how many there were."""
        with self._file.changing() as connection:
            there = chunks_table.named(connection, set(ids))
            _check_own(there)
            self._remove(connection, [row for row, _ in there.values()])
        return len(there)

    def exact(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest by full vectors, all of them looked at, some megabytes at a time."""
        with self._file.reading() as connection:
            return nearest.exact(connection, self._query(vector), k, self._allowed(connection, filters))

    def nearest(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest in two stages: a shortlist by binary codes, ordered with the full vectors."""
        with self._file.reading() as connection:
            allowed = self._allowed(connection, filters)
            return nearest.two_stage(
                connection, lambda: self._file.codes(connection), self._query(vector), k, allowed
            )

    def scores(self, vector: Vectors, rows: Iterable[int]) -> dict[int, float]:
        """The cosine score of each of these rows that is there."""
        with self._file.reading() as connection:
            found, vectors = vectors_table.of_rows(connection, rows, self.space.dim)
        return dict(zip(found.tolist(), vectors_table.scored(vectors, self._query(vector)).tolist(), strict=True))

    def counted(self, terms: Sequence[Term]) -> Counted:
        """In how many chunks each term of a query is found, of a long one those that there is time for."""
        with self._file.reading() as connection:
            return words_table.counted(connection, terms)

    def words(self, counted: Mapping[Term, int], k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k best by words (bm25), as `counted` gave them; any of the terms will do."""
        with self._file.reading() as connection:
            return words_table.search(connection, counted, k, self._allowed(connection, filters))

    def n_chunks(self) -> int:
        """How many chunks can be found."""
        with self._file.reading() as connection:
            return self._file.n_chunks(connection)

    def prepare(self) -> None:
        """Read what searches by vectors hold in memory, so that the first need not."""
        with self._file.reading() as connection:
            self._file.codes(connection)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that this thread reads within it is of one state of the file, whatever is written meanwhile."""
        with self._file.reading():
            yield

    def entries_of(self, rows: Iterable[int]) -> list[Entry]:
        """The entries of these rows, in their order; those that are gone are left out."""
        with self._file.reading() as connection:
            return chunks_table.entries(connection, rows)

    def of_file(self, path: str) -> Window:
        """The chunks of a file, and their vectors; none of a file that is not there."""
        with self._file.reading() as connection:
            rows = chunks_table.of_files(connection, files_table.numbers(connection, [path]))
            found = tuple(chunks_table.entries(connection, rows))
            return Window(found, vectors_table.of_rows(connection, rows, self.space.dim)[1])

    def entries(self, n_window: int = 1024) -> Iterator[Window]:
        """Everything in the order of rows, a window at a time, as it is now, whatever is written meanwhile."""
        with self._file.reading_alone() as connection:
            last = -1
            while found := tuple(chunks_table.after(connection, last, n_window)):
                last = found[-1].row
                rows = [entry.row for entry in found]
                yield Window(found, vectors_table.of_rows(connection, rows, self.space.dim)[1])

    def replace_vectors(
        self,
        space: IndexSpace,
        vectors_of: Callable[[Window], Vectors],
        progress: Callable[[int], None] | None = None,
        n_window: int = 512,
    ) -> None:
        """Give every chunk a vector of another space; all at once for those who search meanwhile.

        Interrupted, the next call for the same space goes on. `progress` is called with the number of vectors stored,
        also with those of an earlier call. The old vectors' room stays in the file: `compact`.
        """
        with self._file.changing() as connection:
            n_done = staging.begin(connection, space)
        if progress is not None and n_done:
            progress(n_done)
        while True:
            with self._file.changing() as connection:  # others may still add chunks, till there are none to do
                if not (todo := staging.missing(connection, n_window)):
                    staging.switch(connection, space, has_vec=self._file.has_vec)
                    break
                rows = [entry.row for entry in todo]
                window = Window(todo, vectors_table.of_rows(connection, rows, self.space.dim)[1])
            vectors = vectors_of(window)
            with self._file.changing() as connection:
                staging.put(connection, rows, vectors)
            n_done += len(rows)
            if progress is not None:
                progress(n_done)
        self._file.space = space

    def compact(self) -> None:
        """Give free room back to the disk. Needs as much again for a while.

        Raises NotEnoughDiskError, and IndexFileError where another process reads: the room is free once it is done.
        """
        self._file.compact()

    def has_room(self) -> bool:
        """Whether `compact` would make the file a good deal smaller."""
        return self._file.has_room()

    def facts(self) -> Facts:
        """What is in it."""
        with self._file.reading() as connection:
            n_files, n_tokens = files_table.totals(connection)
            return Facts(
                self.path, self.space, n_files, chunks_table.n_chunks(connection), n_tokens, file_bytes(self.path),
                *schema.times(connection), schema.version(connection),
                codes_table.bits(self.space.dim), not codes_table.is_behind(connection),
            )  # fmt: skip

    def close(self) -> None:
        """Close it; twice is fine."""
        self._file.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _insert(
        self, connection: apsw.Connection, names: Sequence[str], chunks: Sequence[Chunk], vectors: Vectors,
        file: int | None, now: float,
    ) -> None:  # fmt: skip
        rows = chunks_table.insert(connection, names, chunks, file, now)
        vectors_table.insert(connection, rows, vectors)
        codes_table.insert(connection, rows, vectors, has_vec=self._file.has_vec)
        words_table.insert(connection, rows, chunks)

    def _remove(self, connection: apsw.Connection, rows: Sequence[int]) -> None:
        codes_table.remove(connection, rows, has_vec=self._file.has_vec)
        words_table.remove(connection, rows)
        vectors_table.remove(connection, rows)
        chunks_table.remove(connection, rows)

    def _allowed(self, connection: apsw.Connection, filters: Filters) -> Rows | None:
        return chunks_table.allowed(connection, filters) if filters else None

    def _query(self, vector: Vectors) -> Vectors:
        query = np.ascontiguousarray(vector, np.float32).reshape(-1)
        if len(query) != self.space.dim:
            raise OptionError(
                f"a vector of {len(query)} numbers cannot be searched in {self.path}, which holds {self.space}"
            )
        return query

    def _check(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        expected = (len(chunks), self.space.dim)
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise OptionError(f"vectors must be float32 of shape {expected}, got {vectors.dtype} of {vectors.shape}")
        if len(chunks) and not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT):
            raise OptionError("vectors must have length 1; scale them with q3e_local.vectors.finish")
        for place, chunk in enumerate(chunks):
            _check_text(chunk.text, place)


def check_ids(ids: Sequence[str], n: int) -> None:
    """Raise OptionError unless there is one for each of n texts, each another."""
    if len(ids) != n:
        raise OptionError(f"there are {len(ids)} ids for {n} texts; give one for each")
    twice = [name for name, times in Counter(ids).items() if times > 1]
    if twice:
        raise OptionError(f"the id {twice[0]!r} is given twice")


def _check_own(there: Mapping[str, tuple[int, int | None]]) -> None:
    for name, (_, file) in there.items():
        if file is not None:
            raise OptionError(f"{name!r} is a chunk of a file, which changes with the file alone; choose another id")


def _check_text(text: str, place: int) -> None:
    if not isinstance(text, str):
        raise InvalidTextError(f"must be a str, got {type(text).__name__}", place)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidTextError(f"character {error.start} is a lone surrogate, which is no text", place) from None
