"""The file of a cache: open it, notice that another file has its name now, and set it aside when it is damaged.

Knows files, processes and what a header says; nothing of vectors.
"""

from __future__ import annotations

import glob
import os
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import apsw

from q3e_local import sqlite
from q3e_local.cache.sqlite import table
from q3e_local.files import alone, identity

BUSY_S = 2.0
_WAL_BYTES = 16 << 20
_ASIDE = ".damaged-"

# Connections of a parent process: in a child they must be neither used nor closed.
_inherited: list[apsw.Connection] = []


class DamagedError(Exception):
    """Damage that SQLite does not see."""


class NotOursError(Exception):
    """A sound database, but not for this program to use; it stays as it is."""


class CacheFile:
    """One connection at a time to the file at `path`, for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: apsw.Connection | None = None
        self._opened: tuple[int, int] | None = None  # which file the connection is to
        self._process = os.getpid()

    def connection(self) -> apsw.Connection:
        """A connection to the file that is at the path now. Makes a missing file.

        Raises apsw.Error, OSError, DamagedError and NotOursError.
        """
        if self._connection is None or self._opened != identity(self.path):
            self.disconnect()
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                with suppress(FileExistsError):
                    sqlite.create(self.path)
                self._opened = identity(self.path)
                self._connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
                self._connection.set_busy_timeout(round(BUSY_S * 1000))
                _prepare(self._connection, self.path)
        return self._connection

    def disconnect(self) -> None:
        """Close the connection if there is one."""
        if self._connection is not None:
            with suppress(apsw.Error):
                self._connection.close()
            self._connection = None

    def leave_the_parent(self) -> bool:
        """Drop the connection if this process was forked from the process that opened it: whether it was."""
        if self._process == os.getpid():
            return False
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection, self._process = None, os.getpid()
        return True

    def remove(self) -> None:
        """Delete the file and what belongs to it. Raises OSError."""
        self.disconnect()
        with self._alone():
            for suffix in sqlite.SUFFIXES:
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def remove_damaged(self) -> None:
        """Delete the damaged files that were set aside. Raises OSError."""
        for aside in self.path.parent.glob(f"{glob.escape(self.path.name)}{_ASIDE}*"):
            aside.unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Rename the damaged file and what belongs to it; None if another process did it first. Raises OSError."""
        self.disconnect()
        aside = self.path.with_name(f"{self.path.name}{_ASIDE}{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        with self._alone():
            if self._opened != identity(self.path):
                return None
            for suffix in sqlite.SUFFIXES:
                with suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        return aside

    def _alone(self) -> AbstractContextManager[None]:
        """The lock for beginning a file or setting it aside, so that nobody opens half of it."""
        return alone(Path(f"{self.path}.lock"), wait_s=BUSY_S)


def _prepare(connection: apsw.Connection, path: Path) -> None:
    """Make the tables of a new file, or check that an old file is of this program and version."""
    sqlite.configure(connection, _WAL_BYTES)
    application_id, schema = table.pragma(connection, "application_id"), table.pragma(connection, "user_version")
    names = table.names(connection)
    is_ours = application_id == table.APPLICATION_ID
    if not names and (is_ours or application_id == 0):
        table.make(connection)
    elif is_ours and schema > table.SCHEMA:
        raise NotOursError(f"{path} is of a newer q3e-local; update this one, or give Q3E_CACHE another path")
    elif not is_ours and "entry_used" not in names:
        raise NotOursError(f"{path} is a database of another program; give Q3E_CACHE another path")
    elif (application_id, schema) != (table.APPLICATION_ID, table.SCHEMA):
        raise DamagedError("its header is not one that was written here")
