"""One index in one SQLite file: `Database`. This folder is the only place of search/ that imports apsw.

The truth are plain tables: files, chunks with their texts and places, full vectors. Codes and words (FTS5) are made
from it. Knows vectors as numbers; nothing of models or of how files are read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import numpy as np

from q3e_local import sqlite
from q3e_local.embedding.preparing import check_text
from q3e_local.errors import IndexFileError, OptionError
from q3e_local.search.database import (
    chunk_table,
    code_table,
    file_table,
    schema,
    staging,
    vector_table,
    word_table,
)
from q3e_local.search.database.connection import BUSY_S
from q3e_local.search.database.index_file import IndexFile
from q3e_local.search.database.records import Chunk, Entry, Facts, FileRecord, IndexSpace, Window
from q3e_local.search.database.snapshot import Snapshot
from q3e_local.vectors import Vectors

_LENGTH_ERROR = 1e-3  # how far from 1 the length of a vector may be
_COMPACT_MS = 2_000  # to wait for readers: the file gets smaller without us when the last of them has ended


class Database:
    """One index file. Safe to use from several threads, and by several processes at once; close it when done.

    Made by `open` and `create`. One thread writes at a time and one thread reads at a time, and neither waits for
    the other. What searches is `snapshot`.
    """

    def __init__(self, path: str | os.PathLike[str], space: IndexSpace | None = None) -> None:
        self._file = IndexFile(path, space)

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def space(self) -> IndexSpace:
        """What made the vectors."""
        return self._file.space

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Database:
        """An index that is there. Raises IndexFileError for a file that is missing, no index, damaged or newer."""
        return cls(path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], space: IndexSpace) -> Database:
        """Open the index, or make it. Raises SpaceMismatchError where it holds another space, or IndexFileError."""
        return cls(path, space)

    def check_holds(self, space: IndexSpace) -> None:
        """Raise SpaceMismatchError unless the vectors are of this space."""
        self._file.check_holds(space)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """What the index answers at this moment, for the block alone. Other threads that read wait for its end."""
        with self._file.reading() as connection:
            yield Snapshot(self._file, connection)

    def files(self) -> dict[str, FileRecord]:
        """All files by path."""
        with self._file.reading() as connection:
            return file_table.all_files(connection)

    def chunk_tokens(self) -> int | None:
        """The most tokens of a chunk in the last run; None before the first run. Raises IndexFileError."""
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
        """Store a file in one transaction in place of what the index had of it. Without chunks it is known, no more.

        The vectors are those of `chunk.embedded`.
        """
        self._check(chunks, vectors)
        check_text(record.path, 0)
        now = time.time()
        record = replace(record, n_chunks=len(chunks), indexed_at=now)
        names = [f"{record.path}#{number}" for number in range(len(chunks))]
        with self._file.changing() as connection:
            self._remove(connection, chunk_table.of_files(connection, file_table.numbers(connection, [record.path])))
            taken = chunk_table.named(connection, names)
            if taken:
                raise OptionError(f"the id {next(iter(taken))!r} is taken by a text of your own; delete that first")
            self._insert(connection, names, chunks, vectors, file_table.store(connection, record), now)

    def touch_file(self, record: FileRecord) -> None:
        """The same content, another time or size on disk."""
        with self._file.changing() as connection:
            file_table.touch(connection, record)

    def remove_files(self, paths: Iterable[str]) -> int:
        """Forget files and their chunks: how many files there were."""
        with self._file.changing() as connection:
            numbers = file_table.numbers(connection, set(paths))
            self._remove(connection, chunk_table.of_files(connection, numbers))
            file_table.remove(connection, numbers)
        return len(numbers)

    def put(self, ids: Sequence[str] | None, chunks: Sequence[Chunk], vectors: Vectors) -> list[str]:
        """Store texts of no file in one transaction: their ids, new ones for None. A known id gets the new text."""
        self._check(chunks, vectors)
        for place, name in enumerate(ids or ()):
            check_text(name, place)
        with self._file.changing() as connection:
            names = chunk_table.free_names(connection, len(chunks)) if ids is None else list(ids)
            self._remove_texts(connection, names)
            self._insert(connection, names, chunks, vectors, None, time.time())
        return names

    def delete(self, ids: Iterable[str]) -> int:
        """Forget texts of no file by id: how many there were."""
        with self._file.changing() as connection:
            return self._remove_texts(connection, set(ids))

    def of_file(self, path: str) -> Window:
        """The chunks of a file and their vectors; none where the index has no such file."""
        with self._file.reading() as connection:
            rows = chunk_table.of_files(connection, file_table.numbers(connection, [path]))
            return self._window(connection, chunk_table.entries(connection, rows))

    def entries(self, n_window: int = 1024) -> Iterator[Window]:
        """All entries in the order of rows, a window at a time, of one state, whatever is written meanwhile."""
        with self._file.reading_alone() as connection:
            last = -1
            while found := chunk_table.after(connection, last, n_window):
                last = found[-1].row
                yield self._window(connection, found)

    def replace_vectors(
        self,
        space: IndexSpace,
        vectors_of: Callable[[Window], Vectors],
        progress: Callable[[int], None],
        n_window: int,
    ) -> None:
        """Give every chunk a vector of another space; searches meanwhile find the old vectors until all are replaced.

        After an interruption, the next call for the same space goes on. `progress` is called with the number of
        vectors that are stored, those of an earlier call included. The file keeps the room of the old vectors until
        `compact`.
        """
        with self._file.changing() as connection:
            n_done = staging.begin(connection, space)
        if n_done:
            progress(n_done)
        while True:
            with self._file.changing() as connection:  # others may add chunks until the switch
                if not (missing := staging.missing(connection, n_window)):
                    staging.switch(connection, space)
                    break
                window = self._window(connection, missing)
            vectors = vectors_of(window)
            with self._file.changing() as connection:
                vector_table.insert(connection, [entry.row for entry in missing], vectors, staging.TABLE)
            n_done += len(missing)
            progress(n_done)
        self._file.space = space

    def compact(self) -> None:
        """Give free room back to the disk. Needs as much room again for a while.

        Raises NotEnoughDiskError, and IndexFileError where another process reads: the room is free once it is done.
        """
        with self._file.writer().alone() as connection:
            connection.execute("VACUUM")
            connection.set_busy_timeout(_COMPACT_MS)
            try:
                ((is_busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.set_busy_timeout(round(BUSY_S * 1000))
        if is_busy:
            raise IndexFileError(
                f"another process reads {self.path}; it gets smaller when that one ends or nothing reads it any more"
            )

    def has_room(self) -> bool:
        """Whether `compact` would make the file a good deal smaller, as after its vectors were replaced."""
        with self._file.reading() as connection:
            return bool(connection.pragma("freelist_count") > connection.pragma("page_count") // 10)

    def facts(self) -> Facts:
        """What is in it."""
        with self._file.reading() as connection:
            n_files, n_tokens = file_table.totals(connection)
            created_at, changed_at = schema.times(connection)
            return Facts(
                path=self.path,
                space=self.space,
                n_files=n_files,
                n_chunks=chunk_table.n_chunks(connection),
                n_tokens=n_tokens,
                size_bytes=sqlite.n_bytes(self.path),
                created_at=created_at,
                changed_at=changed_at,
                schema=schema.version(connection),
                code_bits=code_table.bits(self.space.dim),
            )

    def close(self) -> None:
        """Close it; twice is fine."""
        self._file.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _window(self, connection: apsw.Connection, entries: tuple[Entry, ...]) -> Window:
        rows = [entry.row for entry in entries]
        return Window(entries, vector_table.of_rows(connection, rows, self.space.dim)[1])

    def _insert(
        self, connection: apsw.Connection, names: Sequence[str], chunks: Sequence[Chunk], vectors: Vectors,
        file: int | None, now: float,
    ) -> None:  # fmt: skip
        rows = chunk_table.insert(connection, names, chunks, file, now)
        vector_table.insert(connection, rows, vectors)
        code_table.insert(connection, rows, vectors)
        word_table.insert(connection, rows, chunks)

    def _remove_texts(self, connection: apsw.Connection, ids: Iterable[str]) -> int:
        """Remove texts of no file: how many of the ids there were. Raises OptionError for a chunk of a file."""
        there = chunk_table.named(connection, ids)
        for name, (_, file) in there.items():
            if file is not None:
                raise OptionError(
                    f"{name!r} is a chunk of a file, which changes with the file alone; choose another id"
                )
        self._remove(connection, [row for row, _ in there.values()])
        return len(there)

    def _remove(self, connection: apsw.Connection, rows: Sequence[int]) -> None:
        code_table.remove(connection, rows)
        word_table.remove(connection, rows)
        vector_table.remove(connection, rows)
        chunk_table.remove(connection, rows)

    def _check(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        expected = (len(chunks), self.space.dim)
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise OptionError(f"vectors must be float32 of shape {expected}, got {vectors.dtype} of {vectors.shape}")
        if len(chunks) and not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < _LENGTH_ERROR):
            raise OptionError("vectors must have length 1; scale them with q3e_local.vectors.finish")
        for place, chunk in enumerate(chunks):
            check_text(chunk.text, place)
