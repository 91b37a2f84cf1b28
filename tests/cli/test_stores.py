"""`index export --to` and `embed --to` as people call them: what they say, exit codes, and what is there then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
import sqlite_vec
from command import assert_refused, embed, expected, failed, run, write
from notes import NOTES

from q3e_local.errors import OutputError
from q3e_local.search.database import Database
from q3e_local.stores import opening
from q3e_local.stores.filling import Filling


def rows(name: str = "s.sqlite", table: str = "q3e") -> dict[str, dict[str, Any]]:
    """The rows of a file of sqlite-vec with their vectors, by id."""
    connection = apsw.Connection(name)
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    found = connection.execute(
        f"SELECT {table}.*, embedding FROM {table} JOIN {table}_vectors ON {table}_vectors.rowid = {table}.row"
    )
    records = [dict(zip((each[0] for each in found.get_description()), row, strict=True)) for row in found]
    for record in records:
        record["embedding"] = np.frombuffer(record["embedding"], np.float32)
    return {record["id"]: record for record in records}


def test_an_index_goes_there_again_and_again(own_index, tmp_path):
    result = run("index", "export", "--to", "s.sqlite#notes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "5 chunks, 256-dim vectors of demo: s.sqlite#notes", "5 sent, 0 there already, 0 deleted"
    ]  # fmt: skip
    there = rows(table="notes")
    for row in there.values():
        seen = f"{row['headings']}\n{row['text']}" if row["headings"] else row["text"]
        assert row["embedding"] @ expected([seen]).vectors[0] > 0.9999
    write(tmp_path / "notes", {"cat.txt": "The dog was fed."})
    (tmp_path / "notes" / "papers" / "plan.txt").unlink()
    run("index", "notes", "-q")
    result = run("index", "export", "--to", "s.sqlite#notes")
    assert result.stderr.splitlines()[1] == "1 sent, 3 there already, 1 deleted"
    texts = {row["text"] for row in rows(table="notes").values()}
    assert "The dog was fed." in texts
    assert len(texts) == 4
    assert run("index", "export", "--to", "s.sqlite#notes", "-q").stderr == ""


def test_a_rebuilt_index_is_of_another_space(own_index):
    run("index", "export", "--to", "s.sqlite")
    run("index", "rebuild", "-d", 64, "-q")
    said = failed("index", "export", "--to", "s.sqlite")
    assert "s.sqlite#q3e holds 256-dim vectors of demo, not 64-dim vectors of demo; name another collection" in said
    assert run("index", "export", "--to", "s.sqlite#q3e64").exit_code == 0


def test_an_index_that_was_made_anew_is_another(own_index):
    run("index", "export", "--to", "s.sqlite")
    run("index", "rm", "default", "-y")
    run("index", "notes", "-m", "demo", "-q")
    assert "an index that was made anew counts as another" in failed("index", "export", "--to", "s.sqlite")


def test_what_others_write_meanwhile_is_for_the_next_export(own_index, tmp_path, monkeypatch):
    put = Filling.put

    def put_and_change(self: Filling, row: Any, vector: Any) -> None:
        monkeypatch.setattr(Filling, "put", put)
        write(tmp_path / "notes", {"new.txt": "Something new."})
        assert run("index", "notes", "-q").exit_code == 0
        put(self, row, vector)

    monkeypatch.setattr(Filling, "put", put_and_change)
    assert "5 sent" in run("index", "export", "--to", "s.sqlite").stderr
    assert "1 sent, 5 there already" in run("index", "export", "--to", "s.sqlite").stderr


FAILURES = {
    "no store": (["--to", "ftp://h/x"], 2, ["ftp://... is no address of a store; stores are qdrant://HOST:PORT"]),
    "no format": (["--to", "x.db"], 2, ["x.db is neither a file of a known format nor a vector", "sqlite-vec:x.db"]),
    "no folder": (["--to", "sqlite-vec:nowhere/s.db"], 1, ["there is no folder", "nowhere to make s.db in"]),
    "force": (["--to", "s.sqlite", "--force"], 2, ["--force replaces files, and s.sqlite#q3e is a collection"]),
    "a folder": (["--to", "sqlite-vec:notes"], 1, ["cannot use notes#q3e: ", "unable to open"]),
    "a server that is down": (["--to", "redis://:hunter2@127.0.0.1:1"], 1, ["cannot use redis://127.0.0.1:1#q3e: "]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "parts"), FAILURES.values(), ids=FAILURES)
def test_failures_say_what_to_do(arguments, code, parts, indexed, tmp_path, monkeypatch):
    assert_refused(["index", "export", *arguments], code, parts)
    assert "hunter2" not in run("index", "export", *arguments).stderr


def test_an_export_that_is_interrupted_says_what_is_kept_and_never_a_password(own_index, monkeypatch):
    def stopped(*arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("q3e_local.search.sending.send", stopped)
    result = run("index", "export", "--to", "s.sqlite#notes")
    assert result.exit_code == 130
    command = "q3e-local index export --to 's.sqlite#notes'"
    assert result.stderr == f"Interrupted: 0 chunks are in s.sqlite#notes; go on with: {command}\n"

    result = run("index", "export", "--to", "pinecone:p.jsonl")
    assert result.stderr == "Interrupted: nothing is kept: p.jsonl is written whole or not at all\n"
    assert not list(Path.cwd().glob("*p.jsonl*"))

    # A store that stands in for a server, whose address has a key.
    monkeypatch.setitem(opening._STORES, "qdrant", "sqlite_vec:SqliteVecStore")
    monkeypatch.setattr("q3e_local.stores.sqlite_vec.local_path", lambda address: Path("server.sqlite"))
    result = run("index", "export", "--to", "qdrant://:hunter2@h#notes")
    assert result.stderr == "Interrupted: 0 chunks are in qdrant://h#notes; go on with: the same command\n"


RECORDS = [
    {"id": 7, "text": "the neighbour fed the cat", "label": "a", "more": {"x": [1]}},
    {"id": "b", "text": "prices fell in May", "label": None},
    {"id": "c", "text": "rent rises", "label": "长"},
]
BY_ID = ("--jsonl", "text", "--id", "id")


def write_records(records: list[dict[str, Any]]) -> None:
    Path("r.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def test_texts_with_ids_go_there_and_only_what_is_new_is_computed(tmp_path):
    write_records(RECORDS)
    result = embed("r.jsonl", *BY_ID, "--keep", "label,more", "--to", "s.sqlite", "--no-cache")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[0].startswith("3 texts, ")
    assert result.stderr.splitlines()[-1] == "3 sent to s.sqlite#q3e"
    there = rows()
    assert {name: (row["text"], row["label"], row["more"]) for name, row in there.items()} == {
        "7": ("the neighbour fed the cat", "a", '{"x":[1]}'),
        "b": ("prices fell in May", None, None),
        "c": ("rent rises", "长", None),
    }
    vectors = expected([record["text"] for record in RECORDS]).vectors
    assert np.allclose([there[name]["embedding"] for name in ("7", "b", "c")], vectors, atol=1e-5)

    write_records(
        [RECORDS[0], RECORDS[1] | {"label": "new"}, RECORDS[2] | {"text": "rent fell"}, {"id": 9, "text": "x"}]
    )
    result = embed("r.jsonl", *BY_ID, "--keep", "label,more", "--to", "s.sqlite", "--no-cache")
    assert result.stderr.splitlines()[0].startswith("3 texts (1 were there already), ")
    assert result.stderr.splitlines()[-1] == "3 sent to s.sqlite#q3e"
    there = rows()
    assert (there["b"]["label"], there["c"]["text"], sorted(there)) == ("new", "rent fell", ["7", "9", "b", "c"])

    # Fewer texts: what an earlier run put there stays.
    write_records(RECORDS[:1])
    result = embed("r.jsonl", *BY_ID, "--keep", "label,more", "--to", "s.sqlite")
    assert result.stderr.splitlines()[0].startswith("0 texts (1 were there already)")
    assert len(rows()) == 4


def test_whole_files_go_by_their_paths(tmp_path):
    write(tmp_path, {f"n/{name}": text for name, text in NOTES.items()})
    assert embed("n", "--to", "s.sqlite", "-q").exit_code == 0
    assert {name: row["text"] for name, row in rows().items()} == {f"n/{name}": text for name, text in NOTES.items()}


def test_a_text_that_is_cut_at_another_limit_is_another(tmp_path):
    write_records(RECORDS)
    for limit, n_there in ((4, 0), (4, 3), (5, 0)):
        result = embed("r.jsonl", *BY_ID, "--to", "s.sqlite", "--max-tokens", limit, "--no-cache")
        n_said = f" ({n_there} were there already)" if n_there else ""
        assert result.stderr.startswith(f"{3 - n_there} texts{n_said}, ")
    assert np.allclose(
        rows()["7"]["embedding"], expected([RECORDS[0]["text"]], truncate=True, max_tokens=5).vectors[0], atol=1e-5
    )


def test_a_file_behind_to_is_a_file(tmp_path):
    write_records(RECORDS)
    assert embed("r.jsonl", *BY_ID, "--to", "v.npy", "-q").exit_code == 0
    assert np.load("v.npy").shape == (3, 256)
    assert "exists; continue it with --resume" in failed("embed", "-m", "demo", "r.jsonl", *BY_ID, "--to", "v.npy")
    assert embed("r.jsonl", *BY_ID, "--to", "pinecone:p.jsonl", "-q").exit_code == 0
    lines = [json.loads(line) for line in Path("p.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["_id"], line["text"]) for line in lines] == [(str(each["id"]), each["text"]) for each in RECORDS]
    assert "p.jsonl exists; replace it with --force" in failed(
        "embed", "-m", "demo", "r.jsonl", *BY_ID, "--to", "pinecone:p.jsonl"
    )
    assert embed("r.jsonl", *BY_ID, "--to", "pinecone:p.jsonl", "-q", "--force").exit_code == 0


REFUSED = {
    "no ids": (["r.jsonl", "--jsonl", "text"], "--to needs texts with ids that stay, by which the next run replaces"),
    "lines": (["r.jsonl", "--lines"], "--to needs texts with ids that stay"),
    "texts": (["--text", "x"], "--to needs texts with ids that stay"),
    "stdin": (["-"], "--to needs texts with ids that stay"),
    "a name of the store's": (["r.jsonl", *BY_ID, "--keep", "text"], "--keep text: every row of a store has a "),
    "two outputs": (["r.jsonl", *BY_ID, "-o", "x.npy"], "-o does not go with --to s.sqlite#q3e: it is for files"),
    "a format": (["r.jsonl", *BY_ID, "--format", "csv"], "--format does not go with --to"),
    "resume": (["r.jsonl", *BY_ID, "--resume"], "--resume does not go with --to"),
    "zeros": (["r.jsonl", *BY_ID, "--blank", "zeros"], "--blank zeros does not go with --to"),
    "a dtype": (["r.jsonl", *BY_ID, "--dtype", "int8"], "--dtype int8 does not go with --to"),
    "force": (["r.jsonl", *BY_ID, "--force"], "--force replaces files, and s.sqlite#q3e is a collection"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_with_a_store_is_refused(arguments, message, tmp_path):
    write_records(RECORDS)
    assert_refused(["embed", "-m", "demo", *arguments, "--to", "s.sqlite"], 2, [message])
    assert not Path("s.sqlite").exists()


def test_two_texts_of_one_id_are_refused(tmp_path):
    write_records([*RECORDS, RECORDS[1]])
    said = failed("embed", "-m", "demo", "r.jsonl", *BY_ID, "--to", "s.sqlite")
    assert "b is the id of two texts, of which a store keeps the last alone; give each an id of its own" in said


def test_other_kept_fields_and_another_dim_are_refused(tmp_path):
    write_records(RECORDS)
    embed("r.jsonl", *BY_ID, "--keep", "label", "--to", "s.sqlite")
    assert "has the fields label, these rows have none" in failed(
        "embed", "-m", "demo", "r.jsonl", *BY_ID, "--to", "s.sqlite"
    )
    said = failed("embed", "-m", "demo", "-d", 64, "r.jsonl", *BY_ID, "--keep", "label", "--to", "s.sqlite")
    assert "s.sqlite#q3e holds 256-dim vectors of demo, not 64-dim vectors of demo" in said


def test_rows_of_an_index_and_of_embed_are_of_two_sources(own_index, tmp_path):
    """Neither deletes what the other put there; their fields differ too."""
    run("index", "export", "--to", "s.sqlite")
    write_records(RECORDS)
    assert "has the fields file, " in failed("embed", "-m", "demo", "r.jsonl", *BY_ID, "--to", "s.sqlite")


def test_what_was_computed_before_a_failure_is_there(tmp_path):
    write_records([*RECORDS, {"id": "d", "text": " "}])
    result = embed("r.jsonl", *BY_ID, "--to", "s.sqlite", "--skip-errors")
    assert (result.exit_code, len(rows())) == (3, 3)


def test_a_store_that_fails_ends_the_run_in_a_sentence(tmp_path, monkeypatch):
    def full(*arguments: Any) -> None:
        raise OutputError("cannot use s.sqlite#q3e: database or disk is full")

    write_records(RECORDS)
    monkeypatch.setattr("q3e_local.stores.sqlite_vec.SqliteVecStore.upsert", full)
    said = failed("embed", "-m", "demo", "r.jsonl", *BY_ID, "--to", "s.sqlite")
    assert said.splitlines()[-1] == "Error: cannot use s.sqlite#q3e: database or disk is full"


def test_an_empty_index_empties_what_it_sent(own_index):
    run("index", "export", "--to", "s.sqlite")
    with Database.open("home/data/indexes/default.q3e") as database:
        database.remove_files(list(database.files()))
    result = run("index", "export", "--to", "s.sqlite")
    assert result.stderr.splitlines()[1] == "0 sent, 0 there already, 5 deleted"
    assert rows() == {}
