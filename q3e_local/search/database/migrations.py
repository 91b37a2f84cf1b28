"""The steps from each schema of an index file to the next.

Knows what older versions wrote. Once it was released, a step must not change what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import apsw

from q3e_local.errors import IndexFileError
from q3e_local.search.database import code_table, schema
from q3e_local.search.places import option_of

Migration = Callable[[apsw.Connection], None]
"""A step from a schema to the next, in the transaction of its caller."""


class _Vec0:
    """The part of sqlite-vec's module that SQLite calls to drop a virtual table, which it does not do without."""

    def Connect(self, connection: apsw.Connection, *names: str) -> tuple[str, _Vec0]:  # noqa: N802 - apsw's names
        return "CREATE TABLE codes (code)", self

    def Disconnect(self) -> None:  # noqa: N802
        pass

    Destroy = Disconnect


def _codes_without_sqlite_vec(connection: apsw.Connection) -> None:
    """Replace the codes that 0.1.0 kept with sqlite-vec by a plain table, made from the vectors."""
    stored = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'codes_*'")
    below = [name for (name,) in stored]  # the tables in which sqlite-vec keeps what its virtual table shows
    connection.create_module("vec0", cast("Any", _Vec0()))
    connection.execute("DROP TABLE IF EXISTS codes")
    for name in below:
        connection.execute(f'DROP TABLE "{name}"')
    connection.execute(
        "CREATE TABLE codes (block INTEGER PRIMARY KEY, places BLOB NOT NULL, codes BLOB NOT NULL) STRICT"
    )
    # A process of 0.1.0 that has this file open makes its virtual table again where this fact says that codes are
    # missing. With 0 its next write fails instead, and changes nothing.
    schema.set_meta(connection, codes_behind=0)
    code_table.make(connection, schema.space_of(connection).dim)


# The n-th leads from schema n to n + 1.
MIGRATIONS: Sequence[Migration] = (_codes_without_sqlite_vec,)


def is_newest(connection: apsw.Connection) -> bool:
    """Whether the file has the newest schema. Raises IndexFileError for a newer schema, or a file without tables."""
    number, newest, path = schema.version(connection), 1 + len(MIGRATIONS), connection.db_filename("main")
    if number == 0:
        raise IndexFileError(f"{path} is empty; make an index with: q3e-local index FOLDER{option_of(Path(path))}")
    if number > newest:
        raise IndexFileError(
            f"{path} has schema {number}, this version of q3e-local knows up to {newest}; "
            "use a newer q3e-local, or index again into another file"
        )
    return number == newest


def migrate(connection: apsw.Connection) -> None:
    """Bring an older file to the newest schema, in the caller's transaction. Raises IndexFileError as `is_newest`."""
    while not is_newest(connection):
        number = schema.version(connection)
        MIGRATIONS[number - 1](connection)
        connection.execute(f"PRAGMA user_version = {number + 1}")
