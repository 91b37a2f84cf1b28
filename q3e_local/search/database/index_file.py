"""An open index file: its two connections, its schema, its space, and what is held in memory of one state of it.

Knows when a file may be used; what is read and written in a transaction is the business of its callers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from q3e_local.errors import IndexFileError, SpaceMismatchError
from q3e_local.search.database import chunk_table, code_table, schema
from q3e_local.search.database.bit_scan import Codes, Rounded
from q3e_local.search.database.connection import BUSY_S, Connection, has_bytes
from q3e_local.search.database.pages import page_bytes
from q3e_local.search.database.rebuilding import rebuild_command
from q3e_local.search.database.records import IndexSpace

_COMPACT_MS = 2_000  # to wait for readers: the file gets smaller without us when the last of them has ended


class IndexFile:
    """One thread reads and one writes at a time, and neither waits for the other. With a space it makes the file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        space: IndexSpace | None,
        migrations: Sequence[schema.Migration],
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        self._migrations = migrations
        self._opening = threading.Lock()
        self._writer: Connection | None = None
        # What is held in memory, each with the state of the file that it is of.
        self._codes: tuple[tuple[int, int], Codes | Rounded] | None = None
        self._n_chunks: tuple[tuple[int, int], int] | None = None
        self._closed = False
        if space is not None and not has_bytes(self.path):
            self._make(space)
        self._reader = Connection(self.path)
        try:
            self.space = self._checked()
            if space is not None:
                self.check_holds(space)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """One state of the file for all of the block."""
        with self._reader.reading() as connection:
            self._check_space(connection)
            yield connection

    @contextmanager
    def changing(self) -> Iterator[apsw.Connection]:
        """A transaction that writes."""
        with self._write_connection().writing() as connection:
            self._check_space(connection)
            self._migrate(connection)  # of a file that could not be written when it was opened
            yield connection
            schema.set_meta(connection, changed_at=time.time())

    @contextmanager
    def reading_alone(self) -> Iterator[apsw.Connection]:
        """As `reading`, for as long as it takes: others go on reading."""
        own = Connection(self.path)
        try:
            with own.reading() as connection:
                self._check_space(connection)
                yield connection
        finally:
            own.close()

    def codes(self, connection: apsw.Connection) -> Codes | Rounded:
        """All codes, read once for each state of the file; inside `reading`."""
        state = self._reader.state
        if self._codes is None or self._codes[0] != state:
            self._codes = None  # before the new ones take their room
            self._codes = state, code_table.load(connection, self.space.dim)
        return self._codes[1]

    def n_chunks(self, connection: apsw.Connection) -> int:
        """How many there are, counted once for each state of the file; inside `reading`."""
        state = self._reader.state
        if self._n_chunks is None or self._n_chunks[0] != state:
            self._n_chunks = state, chunk_table.n_chunks(connection)
        return self._n_chunks[1]

    def check_holds(self, space: IndexSpace) -> None:
        """Raise SpaceMismatchError unless the vectors are of this space."""
        if not self.space.is_same(space):
            raise SpaceMismatchError(
                f"{self.path} holds {self.space.beside(space)}, not {space.beside(self.space)}; make a new index, or "
                "embed all of this one anew with",
                rebuild_command(self.path, self.space, space),
            )

    def compact(self) -> None:
        """Give free room back to the disk. Raises IndexFileError where others read what was there before."""
        with self._write_connection().alone() as connection:
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
        """Whether a good part of the file is free, as after its vectors were replaced."""
        with self.reading() as connection:
            return bool(connection.pragma("freelist_count") > connection.pragma("page_count") // 10)

    def close(self) -> None:
        """Twice is fine."""
        self._closed, self._codes = True, None
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    def _make(self, space: IndexSpace) -> None:
        """The tables of a new file, or of one whose making was interrupted."""
        maker = Connection(self.path, page_bytes(space.dim))
        try:
            with maker.writing() as connection:
                if schema.version(connection) == 0:  # nobody was quicker
                    schema.create(connection, space, self._migrations)
        finally:
            maker.close()

    def _checked(self) -> IndexSpace:
        """The file's own space, once its schema is the newest."""
        with self._reader.reading() as connection:
            is_newest = schema.check(connection, self._migrations)
            is_readonly = connection.readonly("main")  # it is searched as it is
        self._reader.to_wal()
        if not is_newest and not is_readonly:
            with self._write_connection().writing() as connection:
                self._migrate(connection)
        with self._reader.reading() as connection:
            return schema.space_of(connection)

    def _migrate(self, connection: apsw.Connection) -> None:
        if not schema.check(connection, self._migrations):
            schema.migrate(connection, self._migrations)

    def _check_space(self, connection: apsw.Connection) -> None:
        """Another process may have replaced the vectors since this one opened the file."""
        own = schema.space_of(connection)
        if not own.is_same(self.space):
            raise SpaceMismatchError(f"{self.path} was rebuilt: it holds {own.beside(self.space)} now; open it again")

    def _write_connection(self) -> Connection:
        with self._opening:
            if self._closed:
                raise IndexFileError(f"{self.path} is closed; open it again")
            if self._writer is None:
                self._writer = Connection(self.path)
            return self._writer
