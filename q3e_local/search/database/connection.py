"""Open an index file and keep its transactions: SQLite through apsw, whose own SQLite has FTS5.

Turns SQLite's errors into ours. Knows nothing of tables.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from q3e_local import sqlite
from q3e_local.errors import IndexFileError, NotEnoughDiskError
from q3e_local.search.places import option_of

BUSY_S = 30.0
_CACHE_KIB = 16384
_JOURNAL_BYTES = 64 << 20  # the write-ahead log is cut to this after a large transaction


class Connection:
    """One connection, used by one thread at a time: others wait. With `page_bytes` it makes the file if missing."""

    def __init__(self, path: Path, page_bytes: int | None = None) -> None:
        self.path = path
        self.n_openings = 0
        self._lock = threading.RLock()
        with reported(path):
            self._open(page_bytes)

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """One state of the file for the block and for blocks within it, whatever others write meanwhile."""
        with self._lock, reported(self.path):
            if self._apsw.in_transaction:  # of this thread, which has the lock
                yield self._apsw
                return
            if self._unchanging is not None and self._unchanging != _looks(self.path):
                self._apsw.close()
                self._open(None)
            with sqlite.transaction(self._apsw, "BEGIN"):
                yield self._apsw

    @property
    def state(self) -> tuple[int, int]:
        """A value that differs whenever somebody else has changed the file."""
        return self.n_openings, int(self._apsw.pragma("data_version"))

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """All of the block or nothing; other writers wait from its beginning."""
        with self._lock, reported(self.path), sqlite.transaction(self._apsw):
            yield self._apsw

    @contextmanager
    def alone(self) -> Iterator[apsw.Connection]:
        """Without a transaction, for statements that SQLite refuses inside one."""
        with self._lock, reported(self.path):
            yield self._apsw

    def to_wal(self) -> None:
        """Let readers go on while a writer writes. Changes the file, which must be known to be an index."""
        until = time.monotonic() + BUSY_S
        with self.alone() as connection:
            while not connection.readonly("main"):
                try:
                    connection.execute("PRAGMA journal_mode = WAL").fetchall()
                except apsw.BusyError:  # SQLite does not wait by itself here
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.02)
                else:
                    return

    def close(self) -> None:
        """Twice is fine."""
        with self._lock, suppress(apsw.Error):
            self._unchanging = None
            self._apsw.close()

    def _open(self, page_bytes: int | None) -> None:
        self._apsw, self._unchanging = _opened(self.path, page_bytes)
        self.n_openings += 1


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as ours."""
    try:
        yield
    except apsw.ConnectionClosedError:
        raise IndexFileError(f"{path} is closed; open it again") from None
    except (apsw.BusyError, apsw.LockedError):
        raise IndexFileError(
            f"{path} is busy: another process has been at it for {BUSY_S:.0f} s; try again"
        ) from None
    except apsw.FullError:
        raise NotEnoughDiskError(f"no space is left on the disk of {path}; nothing of this step was stored") from None
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError):
        raise IndexFileError(f"{path} cannot be written; check the rights of the file and of its folder") from None
    except (apsw.CantOpenError, apsw.IOError, OSError) as error:
        raise IndexFileError(f"{path} cannot be used: {error}") from None
    except sqlite.DAMAGE as error:
        raise IndexFileError(
            f"{path} is damaged or not an index ({error}); move it away and index again with: "
            f"q3e-local index FOLDER{option_of(path)}"
        ) from error


_Looks = tuple[int, int, int, bool]


def _opened(path: Path, page_bytes: int | None) -> tuple[apsw.Connection, _Looks | None]:
    """A connection; and how the file looked, where the connection takes it for a file that never changes."""
    if path.is_dir():
        raise IndexFileError(f"{path} is a folder, not an index")
    if page_bytes is None and not path.is_file():
        raise IndexFileError(f"there is no index {path}; make it with: q3e-local index FOLDER{option_of(path)}")
    if page_bytes is not None and not path.parent.is_dir():
        raise IndexFileError(f"cannot make {path}: there is no folder {path.parent}")
    if page_bytes is not None:
        # For this user alone, as SQLite makes what is beside it: in it are texts of files that others may not read.
        with suppress(FileExistsError):
            sqlite.create(path)
    looks = None
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(round(BUSY_S * 1000))
        if page_bytes is not None:
            connection.execute(f"PRAGMA page_size = {page_bytes}")  # a file that was written keeps its own
        if connection.readonly("main"):
            connection, looks = _readable(path, connection)
        # NORMAL: a power cut may lose the last transactions, but never damages the file.
        connection.execute(f"PRAGMA synchronous = NORMAL; PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}").fetchall()
        # A file from elsewhere must not make SQLite do what we did not write.
        sqlite.harden(connection)
    except BaseException:
        connection.close()
        raise
    return connection, looks


def _readable(path: Path, connection: apsw.Connection) -> tuple[apsw.Connection, _Looks | None]:
    """A connection that reads a file which cannot be written, also on a read-only medium."""
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        # In WAL mode SQLite needs files beside the database. Where there are none, nobody writes, and the file has
        # everything.
        looks = _looks(path)
        if looks[-1]:
            raise
        connection.close()
        uri = f"{path.absolute().as_uri()}?immutable=1"
        return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI), looks
    return connection, None


def _looks(path: Path) -> _Looks:
    """Which file it is, its size and time, and whether somebody has it open who may write."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, Path(f"{path}-wal").exists()


def has_bytes(path: Path) -> bool:
    """Whether there is a file that something was written to. Raises IndexFileError where that cannot be seen."""
    with reported(path):
        return path.exists() and path.stat().st_size > 0
