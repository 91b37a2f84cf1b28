"""The chunks of an index: their texts, ids and places.

Knows the table `chunks`; neither vectors nor words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import count, islice
from typing import Any

import apsw
import numpy as np

from q3e_local.search.database import file_table
from q3e_local.search.database.records import Chunk, Entry, Filters, Rows

_SELECT = """
SELECT chunks.id, name, path, coalesce(mtime_ns / 1e9, added_at), added_at,
       chunks.text, "start", "end", headings, page, line, last_line
FROM chunks LEFT JOIN files ON files.id = chunks.file
"""
_INSERT = "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def next_row(connection: apsw.Connection) -> int:
    """The number that the next chunk gets. The number of a chunk that is gone is never used again."""
    return 1 + (connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").get or 0)


def insert(
    connection: apsw.Connection, names: Sequence[str], chunks: Sequence[Chunk], file: int | None, added_at: float
) -> range:
    """Store chunks: their rows."""
    rows = range(next_row(connection), next_row(connection) + len(chunks))
    values = (
        (row, name, file, added_at, chunk.start, chunk.end, json.dumps(chunk.headings, ensure_ascii=False),
         chunk.page, chunk.line, chunk.last_line, chunk.text)
        for row, name, chunk in zip(rows, names, chunks, strict=True)
    )  # fmt: skip
    connection.executemany(_INSERT, values)
    return rows


def free_names(connection: apsw.Connection, n: int) -> list[str]:
    """Ids for texts without ids: the numbers of their rows, except numbers that are ids already."""
    numbers = map(str, count(next_row(connection)))
    return list(islice((name for name in numbers if not named(connection, [name])), n))


def named(connection: apsw.Connection, names: Iterable[str]) -> dict[str, tuple[int, int | None]]:
    """Row and file of each of these ids that the index has."""
    select = "SELECT name, id, file FROM chunks WHERE name = ?"
    return {name: (row, file) for name, row, file in connection.executemany(select, ((name,) for name in names))}


def of_files(connection: apsw.Connection, numbers: Iterable[int]) -> list[int]:
    """The rows of these files' chunks, those of a file in the order of its text."""
    select = "SELECT id FROM chunks WHERE file = ? ORDER BY id"
    return [row for (row,) in connection.executemany(select, ((number,) for number in numbers))]


def remove(connection: apsw.Connection, rows: Iterable[int]) -> None:
    connection.executemany("DELETE FROM chunks WHERE id = ?", ((row,) for row in rows))


def allowed(connection: apsw.Connection, filters: Filters) -> Rows:
    """The rows that the filters let through, in order. At least one filter is set."""
    rows = _rows_in_files(connection, file_table.matching(connection, filters))
    if filters.path is None:
        select = "SELECT id FROM chunks WHERE file IS NULL AND added_at >= ?"
        of_no_file = [row for (row,) in connection.execute(select, (filters.since,))]
        rows = np.concatenate([rows, np.array(of_no_file, np.int64)])
    return np.sort(rows)


def _rows_in_files(connection: apsw.Connection, numbers: Iterable[int]) -> Rows:
    """The rows of these files' chunks. The chunks of a file follow one another, being stored together."""
    select = "SELECT (SELECT min(id) FROM chunks WHERE file = ?1), (SELECT max(id) FROM chunks WHERE file = ?1)"
    spans = connection.executemany(select, ((number,) for number in numbers))
    ranges = [np.arange(first, last + 1) for first, last in spans if first is not None]
    return np.concatenate(ranges) if ranges else np.empty(0, np.int64)


def entries(connection: apsw.Connection, rows: Iterable[int]) -> tuple[Entry, ...]:
    """The entries of those rows that are there, in the order of `rows`."""
    values = connection.executemany(f"{_SELECT} WHERE chunks.id = ?", ((int(row),) for row in rows))
    return tuple(map(_entry, values))


def after(connection: apsw.Connection, row: int, n: int) -> tuple[Entry, ...]:
    """The next n entries in the order of rows."""
    values = connection.execute(f"{_SELECT} WHERE chunks.id > ? ORDER BY chunks.id LIMIT ?", (row, n))
    return tuple(map(_entry, values))


def names_of(connection: apsw.Connection, rows: Iterable[int]) -> list[str]:
    """The ids of rows that are there."""
    select = "SELECT name FROM chunks WHERE id = ?"
    return [name for (name,) in connection.executemany(select, ((int(row),) for row in rows))]


def n_chunks(connection: apsw.Connection) -> int:
    """How many chunks there are. SQLite counts them in an index, which is small beside the table."""
    return int(connection.execute("SELECT count(*) FROM chunks").get)


def _entry(values: tuple[Any, ...]) -> Entry:
    row, name, path, mtime, added_at, text, start, end, headings, *places = values
    try:
        path_above = tuple(map(str, json.loads(headings)))
    except (ValueError, TypeError):
        raise apsw.CorruptError(f"the headings of {name!r} cannot be read") from None
    return Entry(row, name, Chunk(text, start, end, path_above, *places), path, mtime, added_at)
