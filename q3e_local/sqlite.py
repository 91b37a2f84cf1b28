"""SQLite through apsw, as the cache and the search index both use it: transactions, files, and what damage is.

apsw brings its own SQLite, which has FTS5 and takes extensions; that of many Pythons does neither. Knows no table of
theirs. Importing this module loads SQLite.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

# What SQLite keeps under a database's name: the database, its write-ahead log, and the index of that log.
# https://sqlite.org/fileformat2.html#the_write_ahead_log
SUFFIXES = ("", "-wal", "-shm")

# Errors that mean damage: a sound file refuses none of the few and fixed statements of this program.
DAMAGE = (
    apsw.ConstraintError, apsw.CorruptError, apsw.EmptyError, apsw.FormatError, apsw.InternalError,
    apsw.MismatchError, apsw.NotADBError, apsw.SQLError,
)  # fmt: skip


def create(path: Path) -> None:
    """Make an empty file for this user alone, because it will show which texts were embedded. Raises FileExistsError.

    SQLite gives the files beside a database the rights of the database.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


@contextmanager
def transaction(connection: apsw.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Do all of the block or nothing. With the default `begin`, other writers wait from the start of the block."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(apsw.Error):  # SQLite rolls back by itself after a full disk, for instance
            connection.execute("ROLLBACK")
        raise


def n_bytes(path: Path) -> int:
    """Bytes on the disk, the files beside the database included; those that vanish meanwhile do not count."""
    total = 0
    for suffix in SUFFIXES:
        with suppress(OSError):
            total += Path(f"{path}{suffix}").stat().st_size
    return total


def configure(connection: apsw.Connection, wal_bytes: int) -> None:
    """The settings of every connection; `wal_bytes` is what the write-ahead log is cut to after a large transaction.

    SQLite runs nothing that a file's schema asks for, because the file may come from elsewhere, and checks the cells
    of each page that it reads. A power cut may lose the last transactions, but never damages the file.
    """
    connection.execute("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {wal_bytes}").fetchall()
