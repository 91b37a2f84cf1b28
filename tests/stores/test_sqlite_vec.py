"""A plain SQLite file with sqlite-vec, looked into with SQL as anybody would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
import sqlite_vec
import store_contract
from made_indexes import vectors

from q3e_local.errors import OutputError


class SqliteCase:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "vectors.sqlite"
        self.address = f"{self.path}#notes"

    def connection(self) -> apsw.Connection:
        connection = apsw.Connection(str(self.path))
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.row_trace = lambda cursor, row: dict(
            zip((each[0] for each in cursor.description), row, strict=True)
        )
        return connection

    def nearest(self, vector: np.ndarray, k: int) -> list[str]:
        query = (
            "SELECT id FROM notes_vectors JOIN notes ON notes.row = notes_vectors.rowid "
            "WHERE embedding MATCH ? AND k = ? ORDER BY distance"
        )
        return [row["id"] for row in self.connection().execute(query, (vector.tobytes(), k))]

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        return {row["id"]: row for row in self.connection().execute("SELECT * FROM notes")}

    def put_own(self, name: str, vector: np.ndarray) -> None:
        connection = self.connection()
        connection.execute("INSERT INTO notes (id, text) VALUES (?, 'mine')", (name,))
        number = connection.last_insert_rowid()
        connection.execute("INSERT INTO notes_vectors (rowid, embedding) VALUES (?, ?)", (number, vector.tobytes()))


@pytest.fixture
def case(tmp_path: Path) -> SqliteCase:
    return SqliteCase(tmp_path)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "notes.q3e"


def test_the_same_is_found(case, index):
    store_contract.check_the_same_is_found(case, index)


def test_again_sends_what_changed_and_deletes_what_is_gone(case, index):
    store_contract.check_again_sends_what_changed_and_deletes_what_is_gone(case, index)


def test_an_interrupted_export_goes_on(case, index):
    store_contract.check_an_interrupted_export_goes_on(case, index)


def test_rows_of_others_are_left_alone(case, index):
    store_contract.check_rows_of_others_are_left_alone(case, index)


def test_vectors_of_another_space_are_refused(case, index):
    store_contract.check_vectors_of_another_space_are_refused(case, index)


def test_two_collections_of_a_file_do_not_touch_each_other(case, index):
    store_contract.make_index(index)
    store_contract.export(index, case.address)
    other = index.with_name("other.q3e")
    store_contract.make_index(other, n_files=1, dim=16)
    assert store_contract.export(other, f"{case.path}#others").n_sent == 16
    assert len(case.rows()) == 79


def test_a_vacuum_leaves_texts_and_vectors_together(case, index):
    store_contract.make_index(index)
    store_contract.export(index, case.address)
    connection = case.connection()
    connection.execute("DELETE FROM notes_vectors WHERE rowid < 5; DELETE FROM notes WHERE row < 5; VACUUM")
    connection.close()
    assert case.nearest(vectors(9, 3)[4], 1) == ["notes/3.md#4"]


def test_a_table_of_somebody_elses_is_refused(case, index):
    store_contract.make_index(index)
    connection = apsw.Connection(str(case.path))
    connection.execute("CREATE TABLE notes (id TEXT, text TEXT)")
    with pytest.raises(OutputError, match="was not made by q3e-local, and does not say what its vectors are"):
        store_contract.export(index, case.address)
    assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["notes"]


def test_an_index_is_no_store(index):
    store_contract.make_index(index)
    before = index.read_bytes()
    with pytest.raises(OutputError, match="is a file of another program, such as an index; name a new file"):
        store_contract.export(index, f"sqlite-vec:{index}")
    assert index.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(case, index):
    store_contract.make_index(index)
    case.path.write_bytes(b"not SQLite, but long enough to be looked at\n" * 40)
    with pytest.raises(OutputError, match=r"cannot use .*vectors.sqlite#notes: .*not a database"):
        store_contract.export(index, case.address)


def test_a_file_that_another_process_writes_to_is_waited_for_and_then_refused(case, index, monkeypatch):
    monkeypatch.setattr("q3e_local.stores.sqlite_vec._BUSY_MS", 50)
    store_contract.make_index(index)
    store_contract.export(index, case.address)
    store_contract.make_index(index, n_chunks=3)
    connection = apsw.Connection(str(case.path))
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutputError, match="database is locked"):
        store_contract.export(index, case.address)
    connection.execute("ROLLBACK")
    assert store_contract.export(index, case.address).n_deleted == 48


def test_a_full_disk_is_an_error_and_leaves_whole_batches(case, index):
    store_contract.make_index(index)
    store_contract.export(index, case.address)
    store_contract.make_index(index, n_files=40, n_chunks=20)
    # SQLite's own limit stands in for the disk's.
    connection = apsw.Connection(str(case.path))
    n_pages = connection.pragma("page_count")
    connection.close()

    class Full(apsw.Connection):
        def __init__(self, path: str, **options: Any) -> None:
            super().__init__(path, **options)
            if path == str(case.path):
                self.pragma("max_page_count", n_pages + 5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apsw, "Connection", Full)
        with pytest.raises(OutputError, match="full"):
            store_contract.export(index, case.address)
    assert len(case.rows()) == 79
    assert store_contract.export(index, case.address).n_there == 807
