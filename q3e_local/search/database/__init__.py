"""One index in one SQLite file: `Database`. This folder is the only place that imports apsw and sqlite_vec.

Truth are plain tables: files, chunks with their texts and places, full vectors. Codes (sqlite-vec) and words (FTS5)
are derived. Knows vectors as numbers; nothing of models or of how files are read.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import apsw
import numpy as np

from q3e_local.errors import IndexFileError, InvalidTextError, OptionError, SpaceMismatchError
from q3e_local.search.chunk import Chunk
from q3e_local.search.database import chunks as chunks_table
from q3e_local.search.database import codes as codes_table
from q3e_local.search.database import files as files_table
from q3e_local.search.database import nearest, schema
from q3e_local.search.database import vectors as vectors_table
from q3e_local.search.database import words as words_table
from q3e_local.search.database.connection import Connection, Loader, file_bytes, load_sqlite_vec
from q3e_local.search.database.records import (
    Entry, Facts, FileRecord, Filters, IndexSpace, Ranked, Rows, Window,
)  # fmt: skip
from q3e_local.search.scan import Codes
from q3e_local.search.words import Term
from q3e_local.vectors import Vectors

NO_FILTERS = Filters()
_UNIT = 1e-3  # how far from 1 the length of a vector may be


class Database:
    """One index file. Safe to use from several threads, and by several processes at once; close it when done.

    Made by `open` and `create`. One thread writes at a time and one reads at a time, of which neither waits for the
    other.
    """

    def __init__(
        self, path: str | os.PathLike[str], space: IndexSpace | None = None, *, loader: Loader = load_sqlite_vec,
        migrations: Sequence[schema.Migration] = schema.MIGRATIONS,
    ) -> None:  # fmt: skip
        self.path = Path(path).expanduser().absolute()
        self._loader, self._migrations = loader, migrations
        self._writing = threading.RLock()
        self._writer: Connection | None = None
        self._codes: tuple[int, Codes] | None = None  # and the state of the file that they are those of
        self._closed = False
        if space is not None:
            self._prepare(space)
        self._reader = Connection(self.path, loader)
        try:
            self.space = self._checked(space)
        except BaseException:
            self.close()
            raise

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
        with self._reader.reading() as connection:
            return files_table.all_files(connection)

    def replace_file(self, record: FileRecord, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Store a file in one transaction: what it had before goes, these come. Without chunks it is just known.

        The vectors are those of `chunk.embedded`.
        """
        self._check(chunks, vectors)
        now = time.time()
        record = replace(record, n_chunks=len(chunks), indexed_at=now)
        names = [f"{record.path}#{number}" for number in range(len(chunks))]
        with self._changing() as connection:
            self._remove(connection, chunks_table.of_files(connection, files_table.numbers(connection, [record.path])))
            taken = chunks_table.named(connection, names)
            if taken:
                raise OptionError(f"the id {next(iter(taken))!r} is taken by a text of your own; delete that first")
            self._insert(connection, names, chunks, vectors, files_table.store(connection, record), now)

    def touch_file(self, record: FileRecord) -> None:
        """The same content, another time or size on disk."""
        with self._changing() as connection:
            files_table.touch(connection, record)

    def remove_files(self, paths: Iterable[str]) -> int:
        """Forget files with all that is theirs: how many there were."""
        with self._changing() as connection:
            numbers = files_table.numbers(connection, paths)
            self._remove(connection, chunks_table.of_files(connection, numbers))
            files_table.remove(connection, numbers)
        return len(numbers)

    def put(self, ids: Sequence[str] | None, chunks: Sequence[Chunk], vectors: Vectors) -> list[str]:
        """Store texts of no file in one transaction; one whose id is there already is replaced. None: new ids."""
        self._check(chunks, vectors)
        if ids is not None and len(ids) != len(chunks):
            raise OptionError(f"there are {len(ids)} ids for {len(chunks)} texts; give one for each")
        if ids is not None and len(set(ids)) < len(ids):
            twice = next(each for place, each in enumerate(ids) if each in ids[:place])
            raise OptionError(f"the id {twice!r} is given twice")
        for place, each in enumerate(ids or ()):
            _check_text(each, place)
        with self._changing() as connection:
            names = chunks_table.free_names(connection, len(chunks)) if ids is None else list(ids)
            there = chunks_table.named(connection, names)
            for name, (_, file) in there.items():
                if file is not None:
                    raise OptionError(f"the id {name!r} is that of a file's chunk; choose another")
            self._remove(connection, [row for row, _ in there.values()])
            self._insert(connection, names, chunks, vectors, None, time.time())
        return names

    def delete(self, ids: Iterable[str]) -> int:
        """Forget chunks by id: how many there were."""
        with self._changing() as connection:
            rows = [row for row, _ in chunks_table.named(connection, set(ids)).values()]
            self._remove(connection, rows)
        return len(rows)

    def exact(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest by full vectors, all of them looked at, some megabytes at a time."""
        with self._reader.reading() as connection:
            return nearest.exact(connection, self._query(vector), k, self._allowed(connection, filters))

    def nearest(self, vector: Vectors, k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k nearest in two stages: a shortlist by binary codes, ordered with the full vectors."""
        with self._reader.reading() as connection:
            allowed = self._allowed(connection, filters)
            return nearest.two_stage(connection, lambda: self._load(connection), self._query(vector), k, allowed)

    def scores(self, vector: Vectors, rows: Iterable[int]) -> dict[int, float]:
        """The cosine score of each of these rows that is there."""
        with self._reader.reading() as connection:
            found, vectors = vectors_table.of_rows(connection, rows, self.space.dim)
        return dict(zip(found.tolist(), vectors_table.scored(vectors, self._query(vector)).tolist(), strict=True))

    def counted(self, terms: Sequence[Term]) -> dict[Term, int]:
        """In how many chunks each term of a query is found, the rarest first; those found in none are left out."""
        with self._reader.reading() as connection:
            return words_table.counted(connection, terms)

    def words(self, counted: Mapping[Term, int], k: int, filters: Filters = NO_FILTERS) -> Ranked:
        """The k best by words (bm25), as `counted` gave them; any of the terms will do."""
        with self._reader.reading() as connection:
            return words_table.search(connection, counted, k, self._allowed(connection, filters))

    def n_chunks(self) -> int:
        """How many chunks can be found."""
        with self._reader.reading() as connection:
            return len(self._load(connection).rows)

    def entries_of(self, rows: Iterable[int]) -> list[Entry]:
        """The entries of these rows, in their order; those that are gone are left out."""
        with self._reader.reading() as connection:
            return chunks_table.entries(connection, rows)

    def entries(self, n_window: int = 1024) -> Iterator[Window]:
        """Everything in the order of rows, a window at a time, as it is now, whatever is written meanwhile."""
        own = Connection(self.path, self._loader)
        try:
            with own.reading() as connection:
                last = -1
                while found := tuple(chunks_table.after(connection, last, n_window)):
                    last = found[-1].row
                    rows = [entry.row for entry in found]
                    yield Window(found, vectors_table.of_rows(connection, rows, self.space.dim)[1])
        finally:
            own.close()

    def facts(self) -> Facts:
        """What is in it."""
        with self._reader.reading() as connection:
            meta = schema.meta(connection)
            n_files, n_tokens = connection.execute("SELECT count(*), coalesce(sum(n_tokens), 0) FROM files").fetchone()
            return Facts(
                self.path, self.space, n_files, chunks_table.n_chunks(connection), n_tokens, file_bytes(self.path),
                float(meta["created_at"]), float(meta["changed_at"]), schema.version(connection),
                codes_table.bits(self.space.dim), not codes_table.is_behind(connection),
            )  # fmt: skip

    def close(self) -> None:
        """Close it; twice is fine."""
        if not self._closed and hasattr(self, "_reader"):
            self._reader.close()
        if self._writer is not None:
            self._writer.close()
        self._closed, self._codes = True, None

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, space: IndexSpace) -> None:
        """Make the tables of a new file, or of one whose making was interrupted."""
        if self.path.exists() and self.path.stat().st_size:
            return
        self._writer = Connection(self.path, self._loader, is_new=True)
        try:
            with self._writer.writing() as connection:
                if schema.version(connection) == 0:
                    schema.create(connection, space, self._migrations)
                    if self._writer.has_vec:
                        codes_table.make(connection, space.dim)
        except BaseException:
            self._writer.close()
            raise

    def _checked(self, space: IndexSpace | None) -> IndexSpace:
        """The file's own space, its schema being ours. Raises SpaceMismatchError."""
        with self._reader.reading() as connection:
            is_newest = schema.check(connection, self._migrations)
        if not is_newest:
            with self._write_connection().writing() as connection:
                schema.migrate(connection, self._migrations)
        with self._reader.reading() as connection:
            own = schema.space_of(connection)
        if space is not None and not own.is_same(space):
            raise SpaceMismatchError(
                f"{self.path} holds {own}, not {space}; make a new index, or embed all of this one anew with: "
                "q3e-local index rebuild"
            )
        return own

    def _write_connection(self) -> Connection:
        with self._writing:
            if self._closed:
                raise IndexFileError(f"{self.path} is closed; open it again")
            if self._writer is None:
                self._writer = Connection(self.path, self._loader)
            return self._writer

    @contextmanager
    def _changing(self) -> Iterator[apsw.Connection]:
        """A transaction that writes. Codes that were left behind are made before."""
        writer = self._write_connection()
        with writer.writing() as connection:
            if writer.has_vec and codes_table.is_behind(connection):
                codes_table.make(connection, self.space.dim)
            yield connection
            schema.set_meta(connection, changed_at=time.time())

    def _insert(
        self, connection: apsw.Connection, names: Sequence[str], chunks: Sequence[Chunk], vectors: Vectors,
        file: int | None, now: float,
    ) -> None:  # fmt: skip
        rows = chunks_table.insert(connection, names, chunks, file, now)
        vectors_table.insert(connection, rows, vectors)
        codes_table.insert(connection, rows, vectors, has_vec=self._write_connection().has_vec)
        words_table.insert(connection, rows, chunks)

    def _remove(self, connection: apsw.Connection, rows: Sequence[int]) -> None:
        codes_table.remove(connection, rows, has_vec=self._write_connection().has_vec)
        words_table.remove(connection, rows)
        vectors_table.remove(connection, rows)
        chunks_table.remove(connection, rows)

    def _load(self, connection: apsw.Connection) -> Codes:
        """All codes, read once for each state of the file."""
        state: int = connection.pragma("data_version")
        if self._codes is None or self._codes[0] != state:
            self._codes = None  # before the new ones take their room
            self._codes = state, codes_table.load(connection, self.space.dim)
        return self._codes[1]

    def _allowed(self, connection: apsw.Connection, filters: Filters) -> Rows | None:
        return chunks_table.allowed(connection, filters) if filters else None

    def _query(self, vector: Vectors) -> Vectors:
        query = np.ascontiguousarray(vector, np.float32).reshape(-1)
        if len(query) != self.space.dim:
            raise OptionError(f"a vector of {len(query)} numbers cannot be searched in {self.path}, which holds {self.space}")
        return query

    def _check(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        expected = (len(chunks), self.space.dim)
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise OptionError(f"vectors must be float32 of shape {expected}, got {vectors.dtype} of {vectors.shape}")
        if len(chunks) and not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT):
            raise OptionError("vectors must have length 1; scale them with q3e_local.vectors.finish")
        for place, chunk in enumerate(chunks):
            _check_text(chunk.text, place)


def _check_text(text: str, place: int) -> None:
    if not isinstance(text, str):
        raise InvalidTextError(f"must be a str, got {type(text).__name__}", place)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidTextError(f"character {error.start} is a lone surrogate, which is no text", place) from None
