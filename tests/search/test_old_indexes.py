"""An index of an older schema is brought to the newest schema without embedding again, or is searched as it is."""

from __future__ import annotations

import sys
from pathlib import Path

import apsw
import numpy as np
import pytest
import sqlite_vec
from made_indexes import (
    SPACE,
    answers,
    chunks,
    everything,
    record,
    said_by_a_reader,
    space,
    stored_codes,
    texts_of,
    vectors,
    vectors_by_row,
)

from q3e_local.errors import IndexFileError
from q3e_local.search.database import Database, chunk_table, file_table, migrations, schema, vector_table, word_table

N = 5000  # so many that a search needs the codes


def with_sqlite_vec(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    return connection


def codes_of(stored: np.ndarray) -> list[bytes]:
    """The codes of vectors: rounded numbers for up to 256 of them, else signs."""
    if stored.shape[1] <= 256:
        return [vector.tobytes() for vector in np.rint(stored * 127).astype(np.int8)]
    return [np.packbits(vector > 0).tobytes() for vector in stored]


def write_as_0_1_0(path: Path, dim: int, *, has_codes: bool = True) -> None:
    """An index of schema 1, its codes in sqlite-vec's virtual table, or nowhere, as without that extension."""
    connection, stored = with_sqlite_vec(path), vectors(N, dim=dim)
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        schema.create(connection, space(dim))
        file = file_table.store(connection, record("notes.md"))
        texts = chunks(*map(texts_of, range(N)))
        rows = chunk_table.insert(connection, [f"notes.md#{n}" for n in range(N)], texts, file, 0.0)
        vector_table.insert(connection, rows, stored)
        word_table.insert(connection, rows, texts)
        if has_codes:
            kind, read = (f"int8[{dim}]", "vec_int8") if dim <= 256 else (f"bit[{dim}]", "vec_bit")
            connection.execute(f"CREATE VIRTUAL TABLE codes USING vec0(code {kind})")
            pairs = zip(rows, codes_of(stored), strict=True)
            connection.executemany(f"INSERT INTO codes (rowid, code) VALUES (?, {read}(?))", pairs)
        schema.set_meta(connection, codes_behind=int(not has_codes))
    connection.close()


@pytest.mark.parametrize("has_codes", [True, False])
@pytest.mark.parametrize("dim", [32, 320])
def test_codes_of_sqlite_vec_become_a_plain_table_without_a_model(tmp_path: Path, dim: int, has_codes: bool) -> None:
    path, stored = tmp_path / "old.q3e", vectors(N, dim=dim)
    write_as_0_1_0(path, dim, has_codes=has_codes)
    with Database.create(tmp_path / "new.q3e", space(dim)) as new:
        new.replace_file(record("notes.md"), chunks(*map(texts_of, range(N))), stored)
        expected = answers(new), everything(new)
    with Database.open(path) as database:
        assert database.facts().schema == 2
        assert (answers(database), everything(database)) == expected
        assert stored_codes(path) == dict(enumerate(codes_of(stored), 1))
        database.put(["later"], chunks("alpha"), vectors(1, 5, dim))
        database.remove_files(["notes.md"])
        assert [*vectors_by_row(database)] == [*stored_codes(path)] == [N + 1]
        database.compact()
    connection = apsw.Connection(str(path))
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name GLOB 'codes*'")]
    assert (tables, connection.execute("PRAGMA integrity_check").get) == (["codes"], "ok")


def test_a_process_of_0_1_0_that_has_the_file_open_cannot_write_codes_past_the_new_table(path: Path) -> None:
    write_as_0_1_0(path, 32)
    old = with_sqlite_vec(path)
    assert old.execute("SELECT count(*) FROM codes").get == N
    Database.open(path).close()
    assert old.execute("SELECT value FROM meta WHERE key = 'codes_behind'").get == 0  # else it drops the new table
    with pytest.raises(apsw.SQLError):
        old.execute("INSERT INTO codes (rowid, code) VALUES (?, vec_int8(?))", (N + 1, bytes(32)))


@pytest.mark.skipif(sys.platform == "win32", reason="rights are others there")
@pytest.mark.parametrize("dim", [32, 320])
def test_an_old_index_that_cannot_be_written_is_searched_as_it_is(dim: int) -> None:
    block = f"""
for query in vectors(3, 7, {dim}):
    print(*ids(database, nearest(database, query, 4)))
print(database.facts().schema)
"""
    *found, schema, error = said_by_a_reader(lambda path: write_as_0_1_0(path, dim), block)
    best = [np.argsort(-(vectors(N, dim=dim) @ query))[:4] for query in vectors(3, 7, dim)]
    assert found == [" ".join(f"notes.md#{row}" for row in rows) for rows in best]
    assert (schema, "cannot be written" in error) == ("1", True)


def test_an_older_schema_is_brought_up_whole_or_not_at_all(
    tmp_path: Path, path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.put(["a"], chunks("alpha"), vectors(1))
    before = everything(database)
    database.close()

    def add(connection: apsw.Connection) -> None:
        connection.execute("ALTER TABLE files ADD COLUMN colour TEXT")

    def fail(connection: apsw.Connection) -> None:
        connection.execute("DROP TABLE chunks; SELECT nonsense FROM nowhere")

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, add, fail])
        with pytest.raises(IndexFileError):
            Database.open(path)
    with Database.open(path) as database:
        assert database.facts().schema == 2
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, add])
        with Database.open(path) as database:
            assert (database.facts().schema, everything(database)) == (3, before)
        with Database.create(tmp_path / "new.q3e", SPACE) as database:
            assert database.facts().schema == 3
    with pytest.raises(IndexFileError, match="schema 3"):
        Database.open(path)
