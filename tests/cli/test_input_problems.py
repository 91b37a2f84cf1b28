"""What `embed` says of a file, a record or a text that cannot be embedded, and what becomes of the others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from command import embed, expected, ids, records, write

BOM = "\ufeff"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Of three texts the second cannot be read. name: files, arguments, what is said of it, id of the third.
PROBLEMS = {
    "bytes that are not UTF-8": (
        {"1": "one", "2": "第三季度预算\n搬".encode() + b"\xff", "3": "three"}, ["1", "2", "3"],
        "2 is not UTF-8: byte 0xff in line 2 (at byte 22)", "3",
    ),
    "such bytes in a line": (
        {"a": b"one\ncaf\xe9\nthree"}, ["--lines", "a"],
        "a:2 is not UTF-8: byte 0xe9 at byte 3", "a:3",
    ),
    "such bytes in JSON": (
        {"a": b'{"text": "one"}\n{"text": "\xff"}\n{"text": "three"}'}, ["--jsonl", "text", "a"],
        "a:2 is not JSON: ", "a:3",
    ),
    "such bytes in CSV": (
        {"a": b"text\none\ncaf\xe9\nthree"}, ["--csv", "text", "a"], "a:3 field 'text' is not UTF-8", "a:4",
    ),
    "an id that is not UTF-8": (
        {"a": b"key,text\n1,one\n\xe9,two\n3,three"}, ["--csv", "text", "--id", "key", "a"],
        "a:3 field 'key' is not UTF-8", "3",
    ),
    "CSV of which the first line is not UTF-8": (
        {"1": "text\none", "2": b"text,caf\xe9\ntwo", "3": "text\nthree"}, ["--csv", "text", "1", "2", "3"],
        "2 is not UTF-8 in its first line", "3:2",
    ),
    "a line of UTF-16 that no byte order mark says": (
        {"a": b"one\nt\0w\0o\0\nthree"}, ["--lines", "a"], "a:2 is a binary file (NUL at byte 1)", "a:3",
    ),
    "a binary file": (
        {"1": "one", "2": b"GIF\0\xff", "3": "three"}, ["1", "2", "3"], "2 is a binary file (NUL at byte 3)", "3",
    ),
    "NUL in a line": (
        {"a": "one\ntw\0o\nthree"}, ["--lines", "a"], "a:2 is a binary file (NUL at byte 2)", "a:3",
    ),
    "an empty file": ({"1": "one", "2": "", "3": "three"}, ["1", "2", "3"], "2 has no text in it", "3"),
    "only a byte order mark": ({"1": "one", "2": BOM, "3": "three"}, ["1", "2", "3"], "2 has no text in it", "3"),
    "only blanks": ({"1": "one", "2": " \n\t\u3000", "3": "three"}, ["1", "2", "3"], "2 has no text in it", "3"),
    "an empty text": ({"3": "three"}, ["--text", "one", "--text", "", "3"], "text:2 has no text in it", "3"),
    "an empty JSON text": (
        {"a": '{"text": "one"}\n{"text": ""}\n{"text": "three"}'}, ["--jsonl", "text", "a"],
        "a:2 has no text in it", "a:3",
    ),
    "an empty CSV cell": (
        {"a": 'n,text\n1,one\n2,""\n3,three'}, ["--csv", "text", "a"], "a:3 has no text in it", "a:4",
    ),
    "no such JSON field": (
        {"a": '{"text": "one"}\n{"tekst": "two"}\n{"text": "three"}'}, ["--jsonl", "text", "a"],
        "a:2 has no field 'text'", "a:3",
    ),
    "JSON null": (
        {"a": '{"text": "one", "n": 1}\n{"text": null, "n": 2}\n{"text": "three", "n": 3}'},
        ["--jsonl", "text", "--id", "n", "a"], "2 field 'text' is null (a:2)", "3",
    ),
    "a JSON number": (
        {"a": '{"text": "one"}\n{"text": 2}\n{"text": "three"}'}, ["--jsonl", "text", "a"],
        "a:2 field 'text' is no text but int", "a:3",
    ),
    "a JSON list of texts": (
        {"a": '{"text": "one"}\n{"text": ["two"]}\n{"text": "three"}'}, ["--jsonl", "text", "a"],
        "a:2 field 'text' is no text but list", "a:3",
    ),
    "a line that is not JSON": (
        {"a": '{"text": "one"}\n{"text": \n{"text": "three"}'}, ["--jsonl", "text", "a"], "a:2 is not JSON: ", "a:3",
    ),
    "a line that is no object": (
        {"a": '{"text": "one"}\n["two"]\n{"text": "three"}'}, ["--jsonl", "text", "a"],
        "a:2 is not a JSON object but list", "a:3",
    ),
    "a lone surrogate in JSON": (
        {"a": '{"text": "one"}\n{"text": "\\ud83d"}\n{"text": "three"}'}, ["--jsonl", "text", "a"],
        "a:2 is not JSON: ", "a:3",
    ),
    "no id": (
        {"a": '{"text": "one", "n": 1}\n{"text": "two"}\n{"text": "three", "n": 3}'},
        ["--jsonl", "text", "--id", "n", "a"], "a:2 has no 'n' to take as its id", "3",
    ),
    "an id that is no name": (
        {"a": '{"text": "one", "n": 1}\n{"text": "two", "n": 2.5}\n{"text": "three", "n": 3}'},
        ["--jsonl", "text", "--id", "n", "a"], "a:2 has no 'n' to take as its id", "3",
    ),
    "a CSV row that is too short": (
        {"a": "n,text\n1,one\n2\n3,three"}, ["--csv", "text", "a"], "a:3 has no field 'text'", "a:4",
    ),
    "a CSV file without the column": (
        {"1": "n,text\n1,one", "2": "n,tekst\n2,two", "3": "n,text\n3,three"}, ["--csv", "text", "1", "2", "3"],
        "2 has no column 'text'; its columns are n, tekst", "3:2",
    ),
    "a CSV file without the column of ids": (
        {"1": "n,text\n1,one", "2": "no,text\n2,two", "3": "n,text\n3,three"},
        ["--csv", "text", "--id", "n", "1", "2", "3"], "2 has no column 'n'; its columns are no, text", "3",
    ),
    "an empty CSV file": (
        {"1": "text\none", "2": "", "3": "text\nthree"}, ["--csv", "text", "1", "2", "3"],
        "2 has no column 'text'; its columns are none", "3:2",
    ),
    "a CSV file of which the first line never ends": (
        {"1": "text\none", "2": '"te\nxt', "3": "text\nthree"}, ["--csv", "text", "1", "2", "3"], "2:1 is not CSV: ",
        "3:2",
    ),
    "a CSV quote that never ends": (
        {"1": "text\none", "2": 'text\n"two\n', "3": "text\nthree"}, ["--csv", "text", "1", "2", "3"],
        "2:2 is not CSV: ", "3:2",
    ),
    "a text that is too long": (
        {"1": "one", "2": "two and a good many words more", "3": "three"},
        ["--max-tokens", "9", "--too-long", "error", "1", "2", "3"], "2 has 15 tokens, the limit is 9; ", "3",
    ),
}  # fmt: skip


OF_RECORDS = {name: case for name, case in PROBLEMS.items() if {"--lines", "--jsonl", "--csv"} & set(case[1])}
OF_FILES = {name: case for name, case in PROBLEMS.items() if name not in OF_RECORDS}


@pytest.mark.parametrize(("files", "arguments", "said", "third"), OF_RECORDS.values(), ids=OF_RECORDS)
def test_a_record_that_fails_is_found_before_a_model_is_loaded(files, arguments, said, third, tmp_path, monkeypatch):
    write(tmp_path, files)
    monkeypatch.setattr("q3e_local.load", None)
    result = embed(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {said}")
    assert len(result.stderr.splitlines()) == 1


STREAMED = {name: case for name, case in OF_RECORDS.items() if list(case[0]) == ["a"]} | OF_FILES


@pytest.mark.parametrize(("files", "arguments", "said", "third"), STREAMED.values(), ids=STREAMED)
def test_what_is_before_a_text_that_fails_is_written_and_the_command_fails(files, arguments, said, third, tmp_path):
    write(tmp_path, files)
    if "a" in files:  # the records of a pipe are seen once
        arguments, piped = ["-" if one == "a" else one for one in arguments], files["a"]
        said = said.replace("a:", "stdin:")
    else:
        piped = None
    result = embed(*arguments, input=piped)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {said}")
    assert len(result.stderr.splitlines()) == 1
    (first,) = records(result.stdout)
    assert first["index"] == 0
    np.testing.assert_array_equal(first["embedding"], expected(["one"]).vectors[0])


@pytest.mark.parametrize(("files", "arguments", "said", "third"), PROBLEMS.values(), ids=PROBLEMS)
def test_skip_errors_embeds_the_others_and_lists_what_failed(files, arguments, said, third, tmp_path):
    write(tmp_path, files)
    result = embed(*arguments, "--skip-errors")
    assert result.exit_code == 3
    assert f"\n1 skipped:\n  {said}" in result.stderr
    got = records(result.stdout)
    assert [(record["index"], record["id"]) for record in got][1:] == [(2, third)]
    np.testing.assert_array_equal([record["embedding"] for record in got], expected(["one", "three"]).vectors[[0, 1]])


def test_what_was_skipped_is_listed_in_the_order_of_the_texts(tmp_path):
    write(tmp_path, {"a": "a great many words\nb\n\0\nand a great many more\nc"})
    result = embed("--lines", "a", "--max-tokens", 5, "--too-long", "error", "--skip-errors", "-q")
    assert result.exit_code == 3
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["3", "a:1", "a:3", "a:4"]
    assert ids(result.stdout) == ["a:2", "a:5"]


def test_all_texts_skipped(tmp_path):
    write(tmp_path, {"a": "", "b": "\0"})
    result = embed("a", "b", "--skip-errors", "-o", "out.jsonl")
    assert result.exit_code == 3
    assert "2 skipped:\n  a has no text in it\n  b is a binary file" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is closed to this user")
def test_a_file_that_may_not_be_read(tmp_path):
    write(tmp_path, {"a": "one", "b": "two", "closed/c": ""})
    (tmp_path / "b").chmod(0)
    (tmp_path / "closed").chmod(0)
    result = embed("a", "b")
    assert result.exit_code == 1
    assert result.stderr == "Error: b cannot be read: Permission denied\n"
    assert ids(result.stdout) == ["a"]
    result = embed("a", "closed/c")
    (tmp_path / "closed").chmod(0o700)
    assert (result.exit_code, result.stderr) == (1, "Error: closed/c cannot be read: Permission denied\n")
