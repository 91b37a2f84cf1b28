"""Vectors of another space, gathered beside the old vectors until each chunk has one.

Searches use the old vectors meanwhile, and an interrupted gathering goes on where it stopped. Knows tables, not
models.
"""

from __future__ import annotations

import json
from dataclasses import astuple

import apsw

from q3e_local.search.database import chunk_table, code_table, schema
from q3e_local.search.database.records import Entry, IndexSpace

TABLE = "staged"
_SPACE = "staged_space"


def begin(connection: apsw.Connection, space: IndexSpace) -> int:
    """Go on gathering vectors of this space, or begin: how many are there. Drops vectors of a third space."""
    named = json.dumps(astuple(space))
    if schema.meta(connection).get(_SPACE) != named:
        connection.execute("DROP TABLE IF EXISTS staged")
        connection.execute("CREATE TABLE staged (id INTEGER PRIMARY KEY, vector BLOB NOT NULL) STRICT")
        schema.set_meta(connection, **{_SPACE: named})
    select = "SELECT count(*) FROM chunks WHERE +id <= (SELECT max(id) FROM staged)"  # +: by a small index
    return int(connection.execute(select).get)


def missing(connection: apsw.Connection, n: int) -> tuple[Entry, ...]:
    """The next n chunks without a staged vector. Row numbers only grow, so these follow the last staged row."""
    last = connection.execute("SELECT max(id) FROM staged").get
    return chunk_table.after(connection, -1 if last is None else last, n)


def switch(connection: apsw.Connection, space: IndexSpace) -> None:
    """Put the staged vectors in place of the old vectors, in the caller's transaction."""
    connection.execute("DELETE FROM staged WHERE id NOT IN (SELECT id FROM chunks)")
    connection.execute("DROP TABLE vectors; ALTER TABLE staged RENAME TO vectors")
    connection.execute("DELETE FROM meta WHERE key = ?", (_SPACE,))
    schema.set_space(connection, space)
    code_table.make(connection, space.dim)
