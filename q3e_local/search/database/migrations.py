"""The steps from each schema of an index file to the next.

Knows what older versions wrote. Once it was released, a step must not change what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import apsw

from q3e_local.search.database import code_table, schema


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
MIGRATIONS: Sequence[schema.Migration] = (_codes_without_sqlite_vec,)
