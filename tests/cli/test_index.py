"""`q3e-local index` and its commands as people call them: what they print, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from command import assert_refused, demo, expected, run, write
from notes import NOTES, found, names

pytestmark = pytest.mark.usefixtures("notes")


def test_the_summary_says_what_was_done(tmp_path):
    result = run("index", "notes", "-m", "demo", "-d", 64)
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert lines[0] == "files: 4 new"
    assert re.fullmatch(r"chunks: 5, \d+ tokens in [\d.]+ s: [\d,]+ tokens/s", lines[1])
    db = tmp_path / "home" / "data" / "indexes" / "default.q3e"
    assert re.fullmatch(rf"{re.escape(str(db))} holds 4 files, 5 chunks: 64-dim vectors of demo, [\d.]+ MB", lines[2])

    (tmp_path / "notes" / "cat.txt").unlink()
    write(tmp_path / "notes", {"plan.txt": "now", "broken.pdf": b"%PDF-1.4 nothing", "p.png": b"\x89PNG\r\n\x1a\n\0"})
    result = run("index", "notes")
    assert result.exit_code == 3
    lines = result.stderr.splitlines()
    assert lines[0] == "files: 1 new, 3 unchanged, 1 removed"
    assert re.fullmatch(r"skipped 1: .*: notes/broken.pdf", lines[2])
    assert lines[3] == "passed over 1 file that no text was expected in (--verbose)"
    assert any("notes/p.png" in line for line in run("index", "notes", "--verbose").stderr.splitlines())
    (line,) = run("index", "notes", "-q").stderr.splitlines()  # nothing but errors
    assert "notes/broken.pdf" in line


def test_the_summary_as_json(tmp_path):
    write(tmp_path / "notes", {"broken.pdf": b"%PDF-1.4 nothing"})
    result = run("index", "notes", "-m", "demo", "--json", "-q", "--db", "a.q3e")
    (fields,) = map(json.loads, result.stdout.splitlines())
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert (fields["new"], fields["chunks"], fields["changed"], fields["index"]) == (4, 5, 0, "a.q3e")
    assert 50 < fields["tokens"] < 300
    assert [(Path(file["file"]).name, file["expected"]) for file in fields["skipped"]] == [("broken.pdf", False)]


def test_what_is_not_utf_8_is_named_with_the_encoding_that_was_taken(tmp_path):
    write(tmp_path / "legacy", {
        "会议.txt": "会议改到周四下午三点，地点还是二楼的小会议室。".encode("gbk"),
        "marked.txt": "﻿plans for the week".encode("utf-16"),
        "plain.txt": "plain",
    })  # fmt: skip
    said = run("index", "legacy", "-m", "demo", "--db", "a.q3e").stderr.splitlines()
    assert said[1] == "read as GB18030, not UTF-8: legacy/会议.txt; where that is wrong, save it as UTF-8"
    assert run("index", "legacy", "--db", "a.q3e").stderr.count("GB18030") == 0  # it was not read again
    fields = json.loads(run("index", "legacy", "-m", "demo", "--json", "--db", "b.q3e").stdout)
    assert {key: [Path(path).name for path in paths] for key, paths in fields["read_as"].items()} == {
        "GB18030": ["会议.txt"]
    }


@pytest.mark.parametrize("name", ["list", "show", "rm"])
def test_a_folder_with_a_commands_name(name, tmp_path):
    write(tmp_path, {f"{name}/a.txt": "text"})
    assert "files: 1 new\n" in run("index", f"./{name}", "-m", "demo").stderr


def test_an_index_keeps_its_dim_whether_its_model_is_named_or_not(monkeypatch):
    run("index", "notes", "-m", "demo", "-d", 64, "-q")
    monkeypatch.setenv("Q3E_MODEL", "qwen3-embedding:8b")  # counts for new indexes alone
    for more in ([], ["-m", "demo"], ["-m", "demo", "-d", 64]):
        result = run("index", "notes", *more)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (0, "files: 4 unchanged")
    result = run("index", "notes", "-d", 128)
    assert (result.exit_code, "holds 64-dim vectors of demo, not 128-dim" in result.stderr) == (1, True)


def test_documents_stand_bare_under_any_name_of_a_model(tmp_path):
    write(tmp_path / "home", {"config/config.toml": '[aliases]\nmine = {model = "demo", task = "sts", dim = 64}'})
    assert run("index", "notes", "-m", "mine", "-q").exit_code == 0
    (line,) = run("index", "show", "--json").stdout.splitlines()
    assert json.loads(line)["space"] == expected(["any"], dim=64).space
    for more in ([], ["-m", "mine"], ["-m", "demo"]):
        assert names(found("who fed the cat?", "-k", 1, *more)) == ["cat.txt"]
    assert run("index", "notes", "-m", "mine").stderr.startswith("files: 4 unchanged")
    assert run("index", "rebuild", "-m", "mine", "-q").exit_code == 0


def test_options_may_come_first():
    assert "files: 4 new\n" in run("index", "--name", "mine", "notes", "-m", "demo").stderr
    assert run("index", "list").stdout.splitlines()[1].startswith("mine ")


FAILURES = {
    "no folder": (["index", "-m", "demo"], 2, ["name a folder, as in: q3e-local index notes"]),
    "nothing at all": (["index"], 2, ["FOLDER... [OPTIONS]"]),
    "a folder that is not there": (["index", "nowhere", "-m", "demo"], 1, ["there is no folder or file", "nowhere"]),
    "a name that is a path": (["index", "notes", "--name", "a/b"], 2, ["an index's name is letters", "--db"]),
    "a name and a file": (["index", "notes", "--name", "a", "--db", "b.q3e"], 2, ["b.q3e", "not both"]),
    "too small a dim": (["index", "notes", "-m", "demo", "-d", "3"], 2, ["--dimensions must be between 32 and 256"]),
    "too few tokens": (["index", "notes", "--chunk-tokens", "31"], 2, ["--chunk-tokens", "31"]),
    "a file that is no index": (["index", "notes", "--db", "notes/cat.txt"], 1, ["notes/cat.txt"]),
    "a dim that a model that is not here has not": (
        ["index", "notes", "-m", "qwen3-embedding:4b", "-d", "16"], 2, ["--dimensions must be between 32 and 2560"],
    ),
    "delete what": (["index", "rm", "-y"], 2, ["say which index to delete"]),
    "forget what": (["index", "rm", "-y", "--below", ""], 2, ["--below is empty"]),
    "a file in a folder that is not there": (
        ["index", "notes", "--db", "nowhere/a.q3e"], 1, ["there is no folder nowhere to keep a.q3e in"],
    ),
    "show nothing": (["index", "show", "other"], 1, ["there is no index named other"]),
    "two names": (["index", "show", "a", "--name", "b"], 2, ["give one name"]),
    "export to nothing we know": (["index", "export", "--to", "a.xls"], 1, ["there is no index"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "parts"), FAILURES.values(), ids=FAILURES)
def test_failures_say_what_to_do(arguments, code, parts):
    assert_refused(arguments, code, parts)


def test_a_missing_index_names_those_there_are(indexed):
    assert run("search", "cat", "--name", "other").stderr.endswith("; there are: default\n")
    assert run("search", "cat", "--name", "defualt").stderr.endswith("; did you mean default?\n")
    for command in ("rm", "rebuild"):
        assert run("index", command, "other").stderr == "Error: there is no index named other; there are: default\n"


def test_of_many_indexes_a_missing_one_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    folder = tmp_path / "q3e" / "data" / "indexes"
    folder.mkdir(parents=True)
    for name in ("papers", "papers-2025", "papers-2026", "work", "mail"):
        (folder / f"{name}.q3e").touch()
    near = run("index", "show", "paper").stderr
    assert near.endswith("; did you mean papers, papers-2025 or papers-2026?\n")
    assert run("index", "show", "recipes").stderr.endswith("; there are 5: q3e-local index list\n")


def test_no_lock_is_left_where_no_index_was_made(tmp_path):
    assert run("index", "notes", "--name", "w16", "-m", "demo", "-d", 16).exit_code == 2
    assert run("index", "notes", "--db", "notes/cat.txt", "-m", "demo").exit_code == 1
    assert not list(tmp_path.rglob("w16*"))
    assert not Path("notes/cat.txt.lock").exists()
    run("index", "notes", "-m", "demo", "-q")
    if os.name != "nt":
        (lock,) = tmp_path.rglob("default.q3e.lock")
        assert lock.stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_does_not_stop_the_others(tmp_path):
    result = run("index", "nowhere", "notes", "-m", "demo")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "files: 4 new"
    assert result.stderr.splitlines()[-1] == f"Error: there is no folder or file {tmp_path / 'nowhere'}"


@pytest.mark.parametrize(
    ("glob", "n_files"), [("/papers/*.txt", 1), ("/*.txt", 1), ("{}/notes/*.md", 2), ("*.xyz", 0)]
)
def test_globs(glob, n_files, tmp_path):
    result = run("index", "notes", "-m", "demo", "--glob", glob.format(tmp_path.as_posix()))
    assert result.exit_code == 0
    if n_files:
        assert result.stderr.splitlines()[0] == f"files: {n_files} new"
    else:
        assert "no file matches --glob '*.xyz' in notes" in result.stderr


def test_an_empty_folder_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is no file to read in empty" in run("index", "empty", "-m", "demo").stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_json_of_a_name_that_is_not_utf_8(tmp_path):
    (tmp_path / "notes" / os.fsdecode(b"\xff.txt")).write_text("text")
    result = run("index", "notes", "-m", "demo", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["skipped"][0]["file"].endswith("/?.txt")


# Indexes as a whole.


def test_list_show_and_rm(own_index, tmp_path):
    (line,) = run("index", "list", "--json").stdout.splitlines()
    facts = json.loads(line)
    wanted = {"name": "default", "model": "demo", "dim": 256, "files": 4, "chunks": 5}
    assert facts | wanted == facts
    (line,) = run("index", "show", "--json", "--files").stdout.splitlines()
    assert json.loads(line)["kinds"] == {"markdown": 2, "text": 2}
    shown = run("index", "show", "--files").stdout
    assert "256-dim vectors of demo" in shown
    assert "notes/cat.txt" in shown

    assert run("index", "rm", "--below", "elsewhere", "--yes").exit_code == 1
    result = run("index", "rm", "--below", "notes/papers", input="")
    assert (result.exit_code, "give --yes" in result.stderr) == (2, True)
    assert run("index", "rm", "--below", "notes/papers", "--yes").stdout == "forgot 1 file\n"
    assert run("index", "rm", "default", input="n\n").exit_code == 0
    assert len(found("cat", "-k", 10)) == 4
    assert run("index", "rm", "default", "--yes").stdout.startswith("deleted ")
    assert list((tmp_path / "home" / "data" / "indexes").iterdir()) == []
    assert run("index", "list").stderr == "there is no index yet; make one with: q3e-local index FOLDER\n"


@pytest.mark.skipif(sys.platform == "win32", reason="quotes of another kind")
def test_hints_name_the_index_and_can_be_pasted(tmp_path):
    write(tmp_path, {"my docs/a.txt": "a"})
    assert run("index", "my docs", "--name", "work", "-m", "demo", "-q").exit_code == 0
    result = run("index", "my docs", "--name", "work", "-d", 64)
    assert result.stderr.splitlines()[-1].endswith("q3e-local index rebuild --name work -d 64")
    (tmp_path / "my docs").rename(tmp_path / "away")
    hint = run("index", "my docs", "--name", "work").stderr.splitlines()[-1].split("q3e-local ")[1]
    assert hint == f"index rm --name work --below '{tmp_path}/my docs'"
    assert run(*shlex.split(hint), "-y").stdout == "forgot 1 file\n"
    assert "q3e-local index FOLDER --db 'no such'" in run("search", "cat", "--db", "no such").stderr


@pytest.mark.parametrize("content", [b"", b"no index at all"])
def test_rm_deletes_what_cannot_be_opened(content, tmp_path):
    write(tmp_path, {"a.q3e": content, "notes.db": content})
    result = run("index", "rm", "--db", "a.q3e", input="n\n")
    assert (result.exit_code, "a.q3e - it cannot be opened: " in result.stderr) == (0, True)
    assert run("index", "rm", "--db", "a.q3e", "-y").exit_code == 0
    assert run("index", "rm", "--db", "notes.db", "-y").exit_code == 1
    assert not list(tmp_path.glob("a.q3e*"))
    assert not list(tmp_path.glob("*.lock"))


def test_a_stray_file_stops_no_list(own_index, tmp_path):
    write(tmp_path / "home/data/indexes", {"my notes.q3e": "x", "._default.q3e": "x"})
    result = run("index", "list")
    assert (result.exit_code, result.stdout.splitlines()[1].split()[0]) == (0, "default")
    assert [Path(line.split(" is left out")[0]).name for line in result.stderr.splitlines()] == [
        "._default.q3e", "my notes.q3e"
    ]  # fmt: skip


def test_rebuild_of_nothing_says_what_to_give(own_index):
    result = run("index", "rebuild")
    assert (result.exit_code, "q3e-local index rebuild -m MODEL, or -d DIM" in result.stderr) == (2, True)
    assert run("index", "rebuild", "-d", 256).stderr.startswith("there is nothing to do")


def test_rebuild_with_another_dim(own_index):
    result = run("index", "rebuild", "-d", 64)
    assert result.exit_code == 0
    assert "holds 64-dim vectors of demo" in result.stderr
    score = demo().embed_query("who fed the cat?", 64).vectors[0] @ expected([NOTES["cat.txt"]], dim=64).vectors[0]
    assert found("who fed the cat?")[0]["score"] == pytest.approx(float(score), abs=1e-3)
    assert "files: 4 unchanged" in run("index", "notes").stderr
    assert run("index", "notes", "-d", 128).exit_code == 1


@pytest.mark.parametrize("suffix", ["jsonl", "npy", "parquet"])
def test_export(suffix, own_index, tmp_path):
    result = run("index", "export", "--to", f"all.{suffix}")
    assert result.exit_code == 0
    if suffix == "parquet":
        rows = pyarrow.parquet.read_table("all.parquet").to_pylist()
        vectors = [row.pop("embedding") for row in rows]
        assert b"demo" in pyarrow.parquet.read_schema("all.parquet").metadata.values()
    else:
        name = "all.jsonl" if suffix == "jsonl" else "all.npy.rows.jsonl"
        rows = [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]
        vectors = np.load("all.npy") if suffix == "npy" else [row.pop("embedding") for row in rows]
        assert suffix == "jsonl" or [row.pop("row") for row in rows] == list(range(5))
    assert set(rows[0]) == {"id", "file", "text", "headings", "page", "line", "last_line", "start", "end"}
    seen = [" > ".join(row["headings"]) + "\n" + row["text"] if row["headings"] else row["text"] for row in rows]
    assert np.sum(np.array(vectors, np.float32) * expected(seen).vectors, axis=1).min() > 0.9999
    again = run("index", "export", "--to", f"all.{suffix}")
    assert (again.exit_code, "exists; replace it with --force" in again.stderr) == (1, True)
    assert run("index", "export", "--to", f"all.{suffix}", "--force", "-q").stderr == ""
    assert run("index", "export", "--to", "all.xls").exit_code == 2
    assert not list(tmp_path.glob(".*.partial"))
