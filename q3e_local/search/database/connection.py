"""Open an index file and keep its transactions: SQLite through apsw, whose own SQLite has FTS5.

Turns SQLite's errors into ours. Knows nothing of tables.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from q3e_local import sqlite
from q3e_local.errors import IndexFileError, NotEnoughDiskError
from q3e_local.search.places import option_of

BUSY_S = 30.0
_CACHE_KIB = 16384
_WAL_BYTES = 64 << 20


class Connection:
    """One connection, used by one thread at a time: others wait."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_openings = 0
        # How the file looked, where the connection takes it for a file that never changes.
        self._unchanging: tuple[int, int, int, bool] | None = None
        self._lock = threading.RLock()
        with reported(path):
            self._open()

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """One state of the file for the block and for blocks within it, whatever others write meanwhile."""
        with self._lock, reported(self.path):
            if self._apsw.in_transaction:  # of this thread, which has the lock
                yield self._apsw
                return
            if self._unchanging is not None and self._unchanging != _looks(self.path):
                self._apsw.close()
                self._open()
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

    def _open(self) -> None:
        if self.path.is_dir():
            raise IndexFileError(f"{self.path} is a folder, not an index")
        if not self.path.is_file():
            option = option_of(self.path)
            raise IndexFileError(f"there is no index {self.path}; make it with: q3e-local index FOLDER{option}")
        self._apsw = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            self._apsw.set_busy_timeout(round(BUSY_S * 1000))
            unchanging = self._opened_to_read() if self._apsw.readonly("main") else None
            self._apsw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            sqlite.configure(self._apsw, _WAL_BYTES)
            self._apsw.register_fts5_function("shared", _shared)
        except BaseException:
            self._apsw.close()
            raise
        self._unchanging = unchanging
        self.n_openings += 1

    def _opened_to_read(self) -> tuple[int, int, int, bool] | None:
        """Make sure that a file which cannot be written can be read, also on a read-only medium: `_unchanging`."""
        try:
            self._apsw.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except (apsw.CantOpenError, apsw.ReadOnlyError):
            # In WAL mode SQLite needs files beside the database. Where there are none, nobody writes, and the file
            # has everything.
            looks = _looks(self.path)
            if looks[-1]:
                raise
            self._apsw.close()
            uri = f"{self.path.absolute().as_uri()}?immutable=1"
            self._apsw = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
            return looks
        return None


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


def _shared(row: apsw.FTS5ExtensionApi, *weights: Any) -> float:
    """The sum of the weights of those phrases of a query that a row has; in SQL `shared(TABLE, WEIGHT, …)`."""
    return math.fsum(weight for phrase, weight in enumerate(weights) if row.phrase_columns(phrase))


def _looks(path: Path) -> tuple[int, int, int, bool]:
    """Which file it is, its size and time, and whether somebody has it open who may write."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, Path(f"{path}-wal").exists()


def has_bytes(path: Path) -> bool:
    """Whether there is a file that something was written to. Raises IndexFileError where that cannot be seen."""
    with reported(path):
        return path.exists() and path.stat().st_size > 0
