"""Files that Pinecone imports: the columns and fields that its documentation names, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import store_contract
from made_indexes import record, space, vectors

from q3e_local.errors import OptionError, OutputError
from q3e_local.search.database import Database
from q3e_local.search.database.records import Chunk


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "notes.q3e"
    with Database.create(path, space(32)) as database:
        chunks = [Chunk("one", 0, 3, ("Head", "Sub"), line=1, last_line=2), Chunk("two", 4, 7, page=3)]
        database.replace_file(record("a.md"), chunks, vectors(2))
        database.replace_file(record("预算.md"), [Chunk("超支", 0, 2)], vectors(1, 9))
    return path


SPACE = {"model": "demo", "space": "q3e1-abababababababab-32-plain"}
ONE = {
    "text": "one",
    "file": "a.md",
    "headings": "Head > Sub",
    "line": 1,
    "last_line": 2,
    "start": 0,
    "end": 3,
} | SPACE
TWO = {"text": "two", "file": "a.md", "page": 3, "start": 4, "end": 7} | SPACE
# Not ASCII, which ids of Pinecone's have to be.
NAME = hashlib.sha256("预算.md#0".encode()).hexdigest()
THREE = {"text": "超支", "file": "预算.md", "start": 0, "end": 2, "id": "预算.md#0"} | SPACE


def test_parquet_has_the_columns_of_an_index_of_vectors(index, tmp_path):
    filling = store_contract.export(index, f"pinecone:{tmp_path / 'p.parquet'}")
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    assert table.schema.names == ["id", "values", "metadata"]
    assert table.schema.types == [pyarrow.string(), pyarrow.list_(pyarrow.float32()), pyarrow.string()]
    assert table["id"].to_pylist() == ["a.md#0", "a.md#1", NAME]
    assert [json.loads(each) for each in table["metadata"].to_pylist()] == [ONE, TWO, THREE]
    expected = np.concatenate([vectors(2), vectors(1, 9)])
    assert np.array_equal(np.array(table["values"].to_pylist(), np.float32), expected)
    (note,) = filling.notes
    assert note.startswith("1 id beyond ASCII or longer than 512 characters, which Pinecone does not take")


def test_json_lines_have_a_document_a_line(index, tmp_path):
    store_contract.export(index, f"pinecone:{tmp_path / 'p.jsonl'}")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()]
    embeddings = np.array([line.pop("embedding") for line in lines], np.float32)
    assert lines == [{"_id": "a.md#0"} | ONE, {"_id": "a.md#1"} | TWO, {"_id": NAME} | THREE]
    assert np.array_equal(embeddings, np.concatenate([vectors(2), vectors(1, 9)]))


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_file_is_whole_or_not_there(suffix, index, tmp_path):
    with Database.open(index) as database:
        long = Chunk("x" * 41_000, 0, 41_000)
        database.replace_file(record("long.md"), [long], vectors(1, 3))
    with pytest.raises(
        OutputError, match=r"long.md#0 has 41,\d+ bytes of text and fields, Pinecone takes 40,960; cut"
    ):
        store_contract.export(index, f"pinecone:{tmp_path / f'p.{suffix}'}")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["notes.q3e"]


def test_what_is_there_stays(index, tmp_path):
    (tmp_path / "p.jsonl").write_text("mine")
    with pytest.raises(OutputError, match=r"p.jsonl exists; replace it with --force"):
        store_contract.export(index, f"pinecone:{tmp_path / 'p.jsonl'}")
    assert (tmp_path / "p.jsonl").read_text() == "mine"


def test_other_files_are_refused(index, tmp_path):
    with pytest.raises(OptionError, match=r"a file for Pinecone ends in \.parquet or \.jsonl, got .*p\.csv"):
        store_contract.export(index, f"pinecone:{tmp_path / 'p.csv'}")
    with pytest.raises(OutputError, match=r"there is no folder .*nowhere to make p.jsonl in"):
        store_contract.export(index, f"pinecone:{tmp_path / 'nowhere' / 'p.jsonl'}")


def test_an_empty_index_is_an_empty_file(tmp_path):
    with Database.create(tmp_path / "empty.q3e", space(32)):
        pass
    store_contract.export(tmp_path / "empty.q3e", f"pinecone:{tmp_path / 'p.parquet'}")
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet").num_rows == 0
    store_contract.export(tmp_path / "empty.q3e", f"pinecone:{tmp_path / 'p.jsonl'}")
    assert (tmp_path / "p.jsonl").read_bytes() == b""
