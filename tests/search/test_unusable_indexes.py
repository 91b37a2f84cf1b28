"""A file that is no index or is damaged is named in the error, and left as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from made_indexes import DIM, SPACE, chunks, everything, nearest, space, texts_of, vectors

from q3e_local.errors import IndexFileError, SpaceMismatchError
from q3e_local.search.database import Database
from q3e_local.search.database.records import IndexSpace


def sqlite_of_another(path: Path) -> None:
    apsw.Connection(str(path)).execute("CREATE TABLE theirs (x)")


def newer(path: Path) -> None:
    Database.create(path, SPACE).close()
    apsw.Connection(str(path)).execute("PRAGMA user_version = 99")


def torn(path: Path) -> None:
    with Database.create(path, SPACE) as database:
        database.put(None, chunks(*(texts_of(n) * 50 for n in range(500))), vectors(500))
    content = bytearray(path.read_bytes())
    for place in range(32768 * 2, len(content)):
        content[place] ^= 0x5A
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no index"),
        (lambda path: path.mkdir(), "is a folder, not an index"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"no database at all" * 100), "is damaged or not an index"),
        (sqlite_of_another, "of another program"),
        (newer, "has schema 99, this version of q3e-local knows up to 2"),
        (torn, "is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_left_as_it_is(
    path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(IndexFileError, match=message) as told, Database.open(path) as database:
        everything(database)
    assert str(path) in str(told.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    if before:
        with pytest.raises(IndexFileError), Database.create(path, SPACE) as database:
            everything(database)


@pytest.mark.parametrize(
    ("dim", "damage"),
    [
        (DIM, "UPDATE meta SET value = 'x' WHERE key = 'dim'"),
        (DIM, "UPDATE meta SET value = 0 WHERE key = 'dim'"),
        (DIM, "UPDATE meta SET value = -5 WHERE key = 'dim'"),
        (DIM, "DELETE FROM meta WHERE key = 'digest'"),
        (DIM, "DELETE FROM meta WHERE key = 'created_at'"),
        (DIM, "UPDATE chunks SET headings = '['"),
        (DIM, "UPDATE chunks SET headings = '3'"),
        (DIM, "UPDATE codes SET codes = x'00'"),
        (DIM, "UPDATE codes SET codes = zeroblob(length(places))"),
        (DIM, "UPDATE codes SET places = x''"),
        (DIM, "DELETE FROM codes WHERE block = 3"),
        (320, "UPDATE codes SET codes = x'0000000000'"),
        (320, "UPDATE codes SET codes = zeroblob(8 * length(places))"),
        (320, "UPDATE codes SET places = x'00'"),
        (320, "INSERT INTO codes SELECT 1000, places, codes FROM codes WHERE block = 3"),
        (DIM, "UPDATE vectors SET vector = x'00'"),
    ],
)
def test_whatever_is_damaged_is_told_as_damage(path: Path, dim: int, damage: str) -> None:
    with Database.create(path, space(dim)) as database:
        database.put(None, chunks(*["x"] * 5000), vectors(5000, dim=dim))
    apsw.Connection(str(path)).execute(damage)

    def read() -> None:
        with Database.open(path) as database:
            database.facts()
            everything(database)
            nearest(database, vectors(1, dim=dim)[0], 10)

    with pytest.raises(IndexFileError, match="is damaged or not an index"):
        read()


def test_an_index_that_is_there_is_opened_for_the_same_model_file_under_any_name(database: Database) -> None:
    Database.create(database.path, IndexSpace("another name", "ab" * 32, DIM)).close()
    with pytest.raises(SpaceMismatchError, match="32-dim vectors of demo, not 64-dim vectors of demo"):
        Database.create(database.path, space(64))
