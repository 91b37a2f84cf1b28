"""An open index file: its two connections, its schema, its space, and what is held in memory of one state of it.

Knows when a file may be used; what is read and written in a transaction is the business of its callers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw

from q3e_local import sqlite
from q3e_local.errors import IndexFileError, SpaceMismatchError
from q3e_local.search.database import chunk_table, code_table, migrations, schema
from q3e_local.search.database.bit_scan import Codes, Rounded
from q3e_local.search.database.connection import Connection, has_bytes, reported
from q3e_local.search.database.pages import page_bytes
from q3e_local.search.database.records import IndexSpace
from q3e_local.search.places import option_of, quoted


class IndexFile:
    """One thread reads and one writes at a time, and neither waits for the other. With a space it makes the file."""

    def __init__(self, path: str | os.PathLike[str], space: IndexSpace | None) -> None:
        self.path = Path(path).expanduser().absolute()
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
        with self.writer().writing() as connection:
            self._check_space(connection)
            migrations.migrate(connection)  # of a file that could not be written when it was opened
            yield connection
            schema.set_meta(connection, changed_at=time.time())

    @contextmanager
    def reading_alone(self) -> Iterator[apsw.Connection]:
        """As `reading`, for as long as it takes: others go on reading."""
        with closing(Connection(self.path)) as reader, reader.reading() as connection:
            self._check_space(connection)
            yield connection

    def codes(self, connection: apsw.Connection) -> Codes | Rounded:
        """All codes, read once for each state of the file; inside `reading`."""
        state = self._reader.state
        if self._codes is None or self._codes[0] != state:
            self._codes = None  # before the new ones take their room
            self._codes = state, code_table.load(connection, self.space.dim, self.n_chunks(connection))
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

    def writer(self) -> Connection:
        """The connection that writes, opened when it is first needed. Raises IndexFileError after `close`."""
        with self._opening:
            if self._closed:
                raise IndexFileError(f"{self.path} is closed; open it again")
            if self._writer is None:
                self._writer = Connection(self.path)
            return self._writer

    def close(self) -> None:
        """Twice is fine."""
        self._closed, self._codes = True, None
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    def _make(self, space: IndexSpace) -> None:
        """Make the file and its tables, or the tables of a file whose making was interrupted."""
        if not self.path.parent.is_dir():
            raise IndexFileError(f"cannot make {self.path}: there is no folder {self.path.parent}")
        with reported(self.path), suppress(FileExistsError):
            sqlite.create(self.path)
        with closing(Connection(self.path)) as maker:
            with maker.alone() as connection:
                connection.execute(f"PRAGMA page_size = {page_bytes(space.dim)}")  # a file with tables keeps its own
            with maker.writing() as connection:
                if schema.version(connection) == 0:  # nobody was quicker
                    schema.create(connection, space)
                    migrations.migrate(connection)

    def _checked(self) -> IndexSpace:
        """The file's own space, once its schema is the newest."""
        with self._reader.reading() as connection:
            is_newest = migrations.is_newest(connection)
            is_readonly = connection.readonly("main")  # it is searched as it is
        self._reader.to_wal()
        if not is_newest and not is_readonly:
            with self.writer().writing() as connection:
                migrations.migrate(connection)
        with self._reader.reading() as connection:
            return schema.space_of(connection)

    def _check_space(self, connection: apsw.Connection) -> None:
        """Another process may have replaced the vectors since this one opened the file."""
        held = schema.space_of(connection)
        if not held.is_same(self.space):
            now = held.beside(self.space)
            raise SpaceMismatchError(f"{self.path} was rebuilt: it holds {now} now; open it again")


def rebuild_command(path: Path, held: IndexSpace, wanted: IndexSpace) -> str:
    """The command that gives an index of one space the vectors of another.

    For vectors with an instruction it is a call from Python, because the command line indexes bare texts.
    """
    if wanted.prefix:
        arguments = f"{str(path)!r}, embedder, {wanted.dim}, task=task, instruction=instruction"
        return f"q3e_local.search.indexing.rebuild.rebuild({arguments})"
    command = f"q3e-local index rebuild{option_of(path)}"
    if held.digest != wanted.digest or held.dim == wanted.dim:
        command += f" -m {quoted(wanted.model)}"
    # Without -d, another model would make vectors of all its numbers.
    return command + (f" -d {wanted.dim}" if (held.digest, held.dim) != (wanted.digest, wanted.dim) else "")
