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
from q3e_local.cache.record import from_record, name_of, to_record
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
        self.size_bytes = size_bytes
        self._file, self._lock = CacheFile(self.path), threading.Lock()
        self._now, self._outage = now, Outage(_REST_S, monotonic)
        self._touched: set[int] = set()
        self._told_of_a_row = self._set_aside_once = self._closed = False

    @property
    def where(self) -> str:
        return str(self.path)

    def get_many(self, keys: Sequence[Key]) -> list[Entry | None]:
        """One for each key, None where it has none."""
        names = [name_of(key) for key in keys]
        places = [_place(name) for name in names]
        rows = self._attempt("read", lambda connection: table.rows(connection, places)) or {}
        found: list[Entry | None] = []
        now, stale = int(self._now()), set()
        for key, name, place in zip(keys, names, places, strict=True):
            used, record = rows.get(place, (now, None))
            entry = None if record is None else from_record(key, name, record)
            found.append(entry)
            if entry is None and record is not None:
                self._tell_of_a_row()
            elif entry is not None and not (used is not None and now - _TOUCH_S <= used <= now):
                stale.add(place)
        with self._lock:
            self._touched |= stale
        if len(self._touched) >= _TOUCHED_MAX:
            self._attempt("write", self._touch)
        return found

    def put_many(self, items: Sequence[tuple[Key, Entry]]) -> None:
        """Remember these. What is not finite, all zeros or not of its space's dim is left out."""
        now, spaces = int(self._now()), {space: str(space) for space in {key.space for key, _ in items}}
        rows: list[table.Row] = []
        for key, entry in items:
            name = name_of(key)
            record = to_record(key, name, entry)
            if record is not None:
                rows.append((_place(name), spaces[key.space], now, record))

        def write(connection: apsw.Connection) -> None:
            table.write(connection, rows, self.size_bytes, now)
            self._touch(connection)

        if rows:
            self._attempt("write", write)

    def stats(self) -> CacheStats | None:
        """What it has; None when it cannot be read, which was logged."""
        if not self.path.exists():
            return CacheStats(self.where, (), 0, self.size_bytes)
        counts = self._attempt("read", table.count)
        if counts is None:
            return None
        return CacheStats(
            self.where, tuple(SpaceStats(*one) for one in counts), sqlite.n_bytes(self.path), self.size_bytes
        )

    def clear(self, chosen: Callable[[str], bool] | None = None) -> int | None:
        """Forget all, or the vectors of the chosen spaces: how many; None if it cannot be done, which was logged."""
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
        """Write what is left to write. A closed cache has nothing and takes nothing."""
        if self._touched:
            self._attempt("write", self._touch)
        self._leave_the_parent()
        with self._lock:
            self._closed = True
            self._file.disconnect()

    def _attempt(self, work: Work, do: Callable[[apsw.Connection], T]) -> T | None:
        """What `do` gives, or None after telling why not."""
        self._leave_the_parent()
        with self._lock:
            if self._closed or self._outage.rests(work):
                return None
            try:
                result = do(self._file.connection())
            except (apsw.Error, DamagedError) as error:
                self._failed(work, error)
            except NotOursError as error:
                self._give_up(str(error))
            except OSError as error:
                self._give_up(f"cannot use {self.path}: {error.strerror or error}")
            else:
                self._outage.end(work)
                return result
        return None

    def _failed(self, work: Work, error: Exception) -> None:
        if isinstance(error, _DAMAGE):
            self._set_aside(error)
        elif isinstance(error, _BUSY):
            self._outage.begin(f"{self.path} is locked by another program", work)
        elif isinstance(error, _UNWRITABLE) and work == "write":
            self._outage.begin(f"cannot write {self.path}: {error}", work)  # it can still be read
        else:
            self._give_up(f"cannot use {self.path}: {error}")

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

    def _touch(self, connection: apsw.Connection) -> None:
        """Write when vectors were last used. If it fails that is forgotten: it matters little."""
        touched, self._touched = sorted(self._touched), set()
        if touched:
            table.touch(connection, touched, int(self._now()))

    def _tell_of_a_row(self) -> None:
        if not self._told_of_a_row:
            self._told_of_a_row = True
            logger.warning("%s has a damaged vector, which is computed anew", self.path)

    def _leave_the_parent(self) -> None:
        if self._file.leave_the_parent():
            self._lock, self._touched = threading.Lock(), set()


def _place(name: bytes) -> int:
    """Where an entry lies in the table: 64 bits of its name. Two names of one place would fail the checksum."""
    return int.from_bytes(name[:8], "big", signed=True)
