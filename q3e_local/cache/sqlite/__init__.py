"""The cache in an SQLite file: `SqliteCache`.

Several processes may use one file. Knows records as bytes; nothing of texts or models.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw

from q3e_local import sqlite
from q3e_local.cache import SIZE_BYTES, CacheStats, Entry, Key, SpaceStats
from q3e_local.cache.outage import Outage, Work, logger
from q3e_local.cache.record import name_of, to_entries, to_records
from q3e_local.cache.sqlite import table
from q3e_local.cache.sqlite.file import CacheFile, DamagedError, NotOursError

_REST_S = 30.0
_TOUCH_S = 600  # how exactly the last use of a vector is known: reading a fresh one writes nothing
_TOUCHED_MAX = 4096

# By what an error means for the cache. Damage is sqlite.DAMAGE, and what only a damaged or foreign file brings up.
_DAMAGE = (*sqlite.DAMAGE, apsw.SchemaChangeError, apsw.TooBigError, DamagedError)
_BUSY = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)
_UNWRITABLE = (apsw.FullError, apsw.IOError, apsw.ReadOnlyError)

T = TypeVar("T")


class SqliteCache:
    """Vectors in one file of at most about `size_bytes`, the longest unused leaving first.

    The file is made when it is first needed. A damaged one is renamed and a new one is begun.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size_bytes: int = SIZE_BYTES,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        self.where, self.size_bytes = str(self.path), size_bytes
        self._file, self._lock = CacheFile(self.path), threading.Lock()
        self._now, self._outage = now, Outage(_REST_S, monotonic)
        self._touched: set[int] = set()
        self._set_aside_once = self._closed = False

    def get_many(self, keys: Sequence[Key]) -> list[Entry | None]:
        names = [name_of(key) for key in keys]
        places = [_place(name) for name in names]
        records = self._attempt("read", lambda connection: self._read(connection, places)) or [None] * len(keys)
        if len(self._touched) >= _TOUCHED_MAX:
            self._attempt("write", self._touch)
        return to_entries(keys, names, records, lambda: self._outage.say_damaged(self.where))

    def put_many(self, items: Sequence[tuple[Key, Entry]]) -> None:
        now, spaces = int(self._now()), {space: str(space) for space in {key.space for key, _ in items}}
        rows = [(_place(name), spaces[key.space], now, record) for key, name, record in to_records(items)]

        def write(connection: apsw.Connection) -> None:
            table.write(connection, rows, self.size_bytes, now)
            self._touch(connection)

        if rows:
            self._attempt("write", write)

    def stats(self) -> CacheStats | None:
        if not self.path.exists():
            return CacheStats(self.where, (), 0, self.size_bytes)
        counts = self._attempt("read", table.count)
        if counts is None:
            return None
        spaces = tuple(SpaceStats(*count) for count in counts)
        return CacheStats(self.where, spaces, sqlite.n_bytes(self.path), self.size_bytes)

    def clear(self, chosen: Callable[[str], bool] | None = None) -> int | None:
        if chosen is None:
            try:
                self._file.remove_damaged()
            except OSError as error:
                logger.warning("cannot delete damaged files beside %s: %s", self.path, error.strerror)
        if not self.path.exists():
            return 0
        if chosen is None:
            return self._attempt("write", self._clear)
        return self._attempt("write", lambda connection: table.forget(connection, chosen))

    def close(self) -> None:
        if self._touched:
            self._attempt("write", self._touch)
        self._leave_the_parent()
        with self._lock:
            self._closed = True
            self._file.disconnect()

    def _attempt(self, work: Work, do: Callable[[apsw.Connection], T]) -> T | None:
        """What `do` gives, or None after saying why not."""
        self._leave_the_parent()
        with self._lock:
            if self._closed or self._outage.rests(work):
                return None
            try:
                result = do(self._file.connection())
            except _DAMAGE as error:
                self._set_aside(error)
            except _BUSY:
                self._outage.begin(f"{self.path} is locked by another program", work)
            except NotOursError as error:
                self._give_up(str(error))
            except OSError as error:
                self._give_up(f"cannot use {self.path}: {error.strerror or error}")
            except apsw.Error as error:
                if work == "write" and isinstance(error, _UNWRITABLE):
                    self._outage.begin(f"cannot write {self.path}: {error}", work)  # it can still be read
                else:
                    self._give_up(f"cannot use {self.path}: {error}")
            else:
                self._outage.end(work)
                return result
        return None

    def _clear(self, connection: apsw.Connection) -> int:
        n_vectors = sum(n_vectors for _, n_vectors, _ in table.count(connection))
        try:
            self._file.remove()  # works on a full disk too, where SQLite has no room to delete in
        except PermissionError:  # on Windows, while another process has it open
            table.forget(self._file.connection(), lambda space: True)
        return n_vectors

    def _give_up(self, reason: str) -> None:
        self._file.disconnect()
        self._outage.begin(reason, "read", "write")

    def _set_aside(self, error: Exception) -> None:
        if self._set_aside_once:  # a disk that fails, not a file: do not fill it with damaged ones
            self._give_up(f"{self.path} is damaged again ({error})")
            return
        try:
            aside = self._file.set_aside()
        except OSError as reason:
            self._give_up(f"{self.path} is damaged ({error}) and cannot be renamed: {reason.strerror or reason}")
            return
        if aside is not None:
            self._set_aside_once = True
            logger.warning("%s is damaged (%s); it is now %s, and a new one is begun", self.path, error, aside.name)

    def _read(self, connection: apsw.Connection, places: list[int]) -> list[bytes | None]:
        """The record at each place. Notes which were not used for a while."""
        rows, now = table.rows(connection, places), int(self._now())
        fresh = range(now - _TOUCH_S, now + 1)
        self._touched |= {place for place, (used, _) in rows.items() if used not in fresh}
        return [rows.get(place, (now, None))[1] for place in places]

    def _touch(self, connection: apsw.Connection) -> None:
        """Write when vectors were last used. What a failure loses matters little."""
        touched, self._touched = sorted(self._touched), set()
        if touched:
            table.touch(connection, touched, int(self._now()))

    def _leave_the_parent(self) -> None:
        if self._file.leave_the_parent():
            self._lock, self._touched = threading.Lock(), set()


def _place(name: bytes) -> int:
    """Where an entry lies in the table: 64 bits of its name. Two names of one place would fail the checksum."""
    return int.from_bytes(name[:8], "big", signed=True)
