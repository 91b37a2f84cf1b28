"""The files of an index: what each was when it was indexed.

Knows the table `files`. The chunks of a file are in chunk_table.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import apsw

from q3e_local.reading.globs import pattern
from q3e_local.search.database.records import FileRecord, Filters

_COLUMNS = ("path", "size_bytes", "mtime_ns", "digest", "n_tokens", "kind", "n_chunks", "indexed_at", "problem")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM files"  # noqa: S608
_STORE = (
    f"INSERT INTO files ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
    f"ON CONFLICT (path) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS)} RETURNING id"
)
_FAR_NS = 1 << 62  # 146 years before or after 1970; times farther away do not fit into SQLite's numbers


def all_files(connection: apsw.Connection) -> dict[str, FileRecord]:
    """By path."""
    return {record.path: record for record in map(_record, connection.execute(_SELECT))}


def one(connection: apsw.Connection, path: str) -> FileRecord | None:
    """The record of the file that has exactly this path, or None."""
    return next(map(_record, connection.execute(f"{_SELECT} WHERE path = ?", (path,))), None)


def store(connection: apsw.Connection, record: FileRecord) -> int:
    """Put or replace the record of a file: its number."""
    digest = f"{record.recipe}:{record.digest}" if record.recipe else record.digest
    stored = replace(record, mtime_ns=_stored(record.mtime_ns), digest=digest)
    number: int = connection.execute(_STORE, [getattr(stored, name) for name in _COLUMNS]).get
    return number


def touch(connection: apsw.Connection, record: FileRecord) -> None:
    """Another time and size on the disk, the same content."""
    values = (_stored(record.mtime_ns), record.size_bytes, record.path)
    connection.execute("UPDATE files SET mtime_ns = ?, size_bytes = ? WHERE path = ?", values)


def numbers(connection: apsw.Connection, paths: Iterable[str]) -> list[int]:
    """The numbers of those paths that are there."""
    return [n for (n,) in connection.executemany("SELECT id FROM files WHERE path = ?", ((path,) for path in paths))]


def remove(connection: apsw.Connection, files: Iterable[int]) -> None:
    connection.executemany("DELETE FROM files WHERE id = ?", ((number,) for number in files))


def matching(connection: apsw.Connection, filters: Filters) -> list[int]:
    """The numbers of the files that the filters on path and time let through."""
    since_ns = -_FAR_NS if filters.since is None else round(min(max(filters.since * 1e9, -_FAR_NS), _FAR_NS))
    found = connection.execute("SELECT id, path FROM files WHERE mtime_ns >= ? AND n_chunks > 0", (since_ns,))
    if filters.path is None:
        return [number for number, _ in found]
    matches = pattern(filters.path).fullmatch
    return [number for number, path in found if matches(path)]


def totals(connection: apsw.Connection) -> tuple[int, int]:
    """How many files could be read, and how many tokens they have together."""
    ((n_files, n_tokens),) = connection.execute(
        "SELECT count(*), coalesce(sum(n_tokens), 0) FROM files WHERE problem = ''"
    )
    return n_files, n_tokens


def _record(row: tuple[Any, ...]) -> FileRecord:
    record = FileRecord(*row)
    recipe, _, digest = record.digest.rpartition(":")
    return replace(record, digest=digest, recipe=recipe)


def _stored(mtime_ns: int) -> int:
    return min(max(mtime_ns, -_FAR_NS), _FAR_NS)
