"""The statements: what is asked of a cache's table, on an open connection.

Knows places (64-bit keys), spaces as text and records as bytes; neither files nor what goes wrong with them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

APPLICATION_ID = 0x71336576  # "q3ev"
SCHEMA = 1
_TABLES = """
CREATE TABLE entry (key INTEGER PRIMARY KEY, space TEXT NOT NULL, used INTEGER NOT NULL, record BLOB NOT NULL);
CREATE INDEX entry_used ON entry (used);
"""
# Pages of 4 KiB: a vector of 1,024, 2,560 or 4,096 numbers leaves little unused in its overflow pages.
PAGE_BYTES = 4096

_ROWS_READ = 500  # keys of one statement
_ROWS_WRITTEN = 256  # rows of one transaction, so that other writers need not wait long
_ROWS_EVICTED = 32
_KEPT = 0.9  # of the limit, after evicting
_PAGES_GIVEN_BACK = 1024  # after one transaction: about 0.1 s

Row = tuple[int, str, int, bytes]
"""Place, space, second of the last use, record."""


def make(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    with transaction(connection):
        for statement in _TABLES.strip().splitlines():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def names(connection: sqlite3.Connection) -> set[str]:
    """Of all tables and indexes."""
    return {text(name) for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def rows(connection: sqlite3.Connection, places: list[int]) -> dict[int, tuple[object, object]]:
    """When it was used and its record, by place, as far as they are there. A damaged row may hold anything."""
    found: dict[int, tuple[object, object]] = {}
    for some in _some(places):
        select = f"SELECT key, used, record FROM entry WHERE key IN ({_marks(some)})"  # noqa: S608 (question marks)
        for place, used, record in connection.execute(select, some):
            found[place] = (used, record)
    return found


def write(connection: sqlite3.Connection, new: list[Row], size_bytes: int, now: int) -> None:
    """Add rows, or replace those of the same places, and keep the file below `size_bytes`."""
    for first in range(0, len(new), _ROWS_WRITTEN):
        with transaction(connection):
            insert = "INSERT OR REPLACE INTO entry (key, space, used, record) VALUES (?, ?, ?, ?)"
            connection.executemany(insert, new[first : first + _ROWS_WRITTEN])
            _evict(connection, size_bytes, now)
        # Free pages are used again; those above the limit go back to the disk.
        n_above = pragma(connection, "page_count") - size_bytes // PAGE_BYTES
        if n_above > 0:
            # It answers a row without columns for each page, of which `execute` would take the first only.
            connection.executescript(f"PRAGMA incremental_vacuum({min(n_above, _PAGES_GIVEN_BACK)})")


def touch(connection: sqlite3.Connection, places: list[int], now: int) -> None:
    """These were used now."""
    with transaction(connection):
        for some in _some(places):
            update = f"UPDATE entry SET used = ? WHERE key IN ({_marks(some)})"  # noqa: S608 (question marks)
            connection.execute(update, (now, *some))


def count(connection: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """Space, number of vectors, bytes of their records."""
    select = "SELECT space, count(*), sum(length(record)) FROM entry GROUP BY space"
    return [(text(space), n_vectors, n_bytes or 0) for space, n_vectors, n_bytes in connection.execute(select)]


def forget(connection: sqlite3.Connection, chosen: Callable[[str], bool]) -> int:
    """Delete the vectors of the chosen spaces, and give all that is free back to the disk."""
    with transaction(connection):
        spaces = [space for (space,) in connection.execute("SELECT DISTINCT space FROM entry")]
        picked = [(space,) for space in spaces if chosen(text(space))]
        # Compared as bytes: a damaged space may be no text.
        n_vectors = connection.executemany("DELETE FROM entry WHERE CAST(space AS BLOB) = ?", picked).rowcount
    connection.execute("VACUUM")  # many times faster than to give back page by page
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return max(0, n_vectors)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing; other writers wait from its beginning."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # after some errors SQLite has rolled back already
            connection.execute("ROLLBACK")
        raise


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """The number a pragma stands at."""
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def text(value: object) -> str:
    """A column that may be damaged, for people."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _evict(connection: sqlite3.Connection, size_bytes: int, now: int) -> None:
    """Delete the longest unused until the rest is well below the limit."""
    if _used_bytes(connection) <= size_bytes:
        return
    # Used in the future means that the clock was wrong, then or now; they are no better than the newest.
    connection.execute("UPDATE entry SET used = ? WHERE used > ?", (now, now))
    n_deleted = _ROWS_EVICTED
    while n_deleted and _used_bytes(connection) > _KEPT * size_bytes:
        n_deleted = connection.execute(
            "DELETE FROM entry WHERE key IN (SELECT key FROM entry ORDER BY used LIMIT ?)", (_ROWS_EVICTED,)
        ).rowcount


def _used_bytes(connection: sqlite3.Connection) -> int:
    return (pragma(connection, "page_count") - pragma(connection, "freelist_count")) * PAGE_BYTES


def _some(places: list[int]) -> Iterator[list[int]]:
    for first in range(0, len(places), _ROWS_READ):
        yield places[first : first + _ROWS_READ]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
