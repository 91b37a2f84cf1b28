"""The tables of an index file, the number of their schema, and the facts that are kept of the whole file.

Knows SQL alone; what stands in the tables is the business of the modules beside it, and so are the steps from an
older schema to the next.
"""

from __future__ import annotations

import time

import apsw

from q3e_local.errors import IndexFileError
from q3e_local.search.database.records import IndexSpace

APPLICATION_ID = 0x71336521  # "q3e!", by which `file` and we know an index

WITH_CODES = 2  # the first schema whose codes are a plain table

# `vectors` is apart from `chunks` so that a scan of the vectors reads nothing else. `words` keeps no text, and gets
# the tokens of query_words.py; its tokenizer `ascii` leaves all characters above ASCII as they are.
_SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, digest TEXT NOT NULL, n_tokens INTEGER NOT NULL, kind TEXT NOT NULL,
    n_chunks INTEGER NOT NULL, indexed_at REAL NOT NULL, problem TEXT NOT NULL
) STRICT;
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, file INTEGER, added_at REAL NOT NULL,
    "start" INTEGER NOT NULL, "end" INTEGER NOT NULL, headings TEXT NOT NULL, page INTEGER, line INTEGER,
    last_line INTEGER, text TEXT NOT NULL
) STRICT;
CREATE INDEX chunks_of_file ON chunks (file) WHERE file IS NOT NULL;
CREATE INDEX chunks_of_no_file ON chunks (added_at) WHERE file IS NULL;
CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL) STRICT;
CREATE VIRTUAL TABLE words USING fts5(text, content='', contentless_delete=1, tokenize='ascii');
"""


def version(connection: apsw.Connection) -> int:
    """The file's schema; 0 for a file that holds nothing yet. Raises IndexFileError for what is no index of ours."""
    number, owner, n_tables = (
        int(connection.execute(statement).get)
        for statement in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
    )
    if owner != APPLICATION_ID and (number or n_tables):
        raise IndexFileError(f"{connection.db_filename('main')} is an SQLite file of another program, not an index")
    return number


def create(connection: apsw.Connection, space: IndexSpace) -> None:
    """Make the tables of schema 1 in an empty file; in the caller's transaction."""
    connection.execute(_SCHEMA_1)
    set_space(connection, space)
    set_meta(connection, created_at=time.time(), changed_at=time.time())
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1")


def meta(connection: apsw.Connection) -> dict[str, str | int | float]:
    """All facts of the file."""
    return dict(connection.execute("SELECT key, value FROM meta"))


def set_meta(connection: apsw.Connection, **facts: str | int | float) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())


def space_of(connection: apsw.Connection) -> IndexSpace:
    """Raises CorruptError for one that cannot be."""
    facts = meta(connection)
    model, digest, dim, prefix = (facts.get(name) for name in ("model", "digest", "dim", "prefix"))
    if not (isinstance(model, str) and isinstance(digest, str) and isinstance(prefix, str)):
        raise apsw.CorruptError("it does not say what made its vectors")
    if not isinstance(dim, int) or dim < 1:
        raise apsw.CorruptError(f"its vectors have {dim!r} numbers")
    return IndexSpace(model, digest, dim, prefix)


def times(connection: apsw.Connection) -> tuple[float, float]:
    """When it was made and changed. Raises CorruptError."""
    facts = meta(connection)
    created_at, changed_at = (facts.get(name) for name in ("created_at", "changed_at"))
    if not isinstance(created_at, int | float) or not isinstance(changed_at, int | float):
        raise apsw.CorruptError("it does not say when it was made and changed")
    return float(created_at), float(changed_at)


def set_space(connection: apsw.Connection, space: IndexSpace) -> None:
    set_meta(connection, model=space.model, digest=space.digest, dim=space.dim, prefix=space.prefix)
