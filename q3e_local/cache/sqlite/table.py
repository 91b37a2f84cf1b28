"""The statements on the table of a cache, for an open connection.

Knows places (64-bit keys), spaces as text and records as bytes; neither files nor what goes wrong with them.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from q3e_local.sqlite import transaction

APPLICATION_ID = 0x71336576  # "q3ev"
SCHEMA = 1
_TABLES = """
CREATE TABLE entry (key INTEGER PRIMARY KEY, space TEXT NOT NULL, used INTEGER NOT NULL, record BLOB NOT NULL);
CREATE INDEX entry_used ON entry (used);
"""
# Pages of 4 KiB: a vector of 1,024, 2,560 or 4,096 numbers leaves little unused in its overflow pages.
PAGE_BYTES = 4096

_ROWS_WRITTEN = 256  # rows of one transaction, so that other writers need not wait long
_ROWS_EVICTED = 32
_KEPT = 0.9  # of the limit, after evicting
_PAGES_GIVEN_BACK = 1024  # after one transaction: about 0.1 s

Row = tuple[int, str, int, bytes]
"""Place, space, second of the last use, record."""


def make(connection: apsw.Connection) -> None:
    """Make the tables in an empty file."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    with transaction(connection):
        connection.execute(_TABLES)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA}")


def names(connection: apsw.Connection) -> set[str]:
    """The names of all tables and indexes."""
    # As bytes: in a damaged file a name may be no UTF-8.
    select = "SELECT CAST(name AS BLOB) FROM sqlite_master"
    return {name.decode("utf-8", "replace") for (name,) in connection.execute(select)}


def rows(connection: apsw.Connection, places: list[int]) -> dict[int, tuple[int | None, bytes]]:
    """The second of the last use and the record, by place, as far as rows are there.

    A damaged row may hold values of any type: a `used` that is no integer is None, a record becomes bytes.
    """
    columns = "key, iif(typeof(used) = 'integer', used, NULL), CAST(record AS BLOB)"
    select = f"SELECT {columns} FROM entry WHERE key = ?"  # noqa: S608
    with transaction(connection, "BEGIN"):
        found = connection.executemany(select, ((place,) for place in places))
        return {place: (used, record) for place, used, record in found}


def write(connection: apsw.Connection, new: list[Row], size_bytes: int, now: int) -> None:
    """Add rows, or replace those of the same places, and keep the file below `size_bytes`."""
    for first in range(0, len(new), _ROWS_WRITTEN):
        with transaction(connection):
            insert = "INSERT OR REPLACE INTO entry (key, space, used, record) VALUES (?, ?, ?, ?)"
            connection.executemany(insert, new[first : first + _ROWS_WRITTEN])
            _evict(connection, size_bytes, now)
        # Free pages are used again; those above the limit go back to the disk.
        n_above = pragma(connection, "page_count") - size_bytes // PAGE_BYTES
        if n_above > 0:
            # SQLite frees one page for each row of the answer that is read.
            connection.execute(f"PRAGMA incremental_vacuum({min(n_above, _PAGES_GIVEN_BACK)})").fetchall()


def touch(connection: apsw.Connection, places: list[int], now: int) -> None:
    """Note that these places were used now."""
    with transaction(connection):
        connection.executemany("UPDATE entry SET used = ? WHERE key = ?", ((now, place) for place in places))


def count(connection: apsw.Connection) -> list[tuple[str, int, int]]:
    """Space, number of vectors, bytes of their records."""
    select = "SELECT CAST(space AS BLOB), count(*), sum(length(record)) FROM entry GROUP BY space"
    return [
        (space.decode("utf-8", "replace"), n_vectors, n_bytes or 0)
        for space, n_vectors, n_bytes in connection.execute(select)
    ]


def forget(connection: apsw.Connection, chosen: Callable[[str], bool]) -> int:
    """Delete the vectors of the chosen spaces, and give all that is free back to the disk."""
    with transaction(connection):
        # As bytes: in a damaged row the space may be no UTF-8.
        spaces = [space for (space,) in connection.execute("SELECT DISTINCT CAST(space AS BLOB) FROM entry")]
        n_before = connection.total_changes()
        for space in spaces:
            if chosen(space.decode("utf-8", "replace")):
                connection.execute("DELETE FROM entry WHERE CAST(space AS BLOB) = ?", (space,))
        n_vectors = connection.total_changes() - n_before
    connection.execute("VACUUM")  # many times faster than to give back page by page
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return n_vectors


def pragma(connection: apsw.Connection, name: str) -> int:
    """The value of a pragma that is a number."""
    return int(connection.pragma(name))


def _evict(connection: apsw.Connection, size_bytes: int, now: int) -> None:
    """Delete the longest unused until the rest is well below the limit."""
    if _used_bytes(connection) <= size_bytes:
        return
    # A time in the future means that the clock was wrong, then or now. Such rows count as just used.
    connection.execute("UPDATE entry SET used = ? WHERE used > ?", (now, now))
    n_deleted = _ROWS_EVICTED
    while n_deleted and _used_bytes(connection) > _KEPT * size_bytes:
        connection.execute(
            "DELETE FROM entry WHERE key IN (SELECT key FROM entry ORDER BY used LIMIT ?)", (_ROWS_EVICTED,)
        )
        n_deleted = connection.changes()


def _used_bytes(connection: apsw.Connection) -> int:
    return (pragma(connection, "page_count") - pragma(connection, "freelist_count")) * PAGE_BYTES
