"""What `q3e-local embed` takes for a text, from every source, and what it says of what is none."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from command import embed, expected, ids, listing, records, write

BOM = "\ufeff"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# name: files, arguments, stdin; then the ids and texts that must come out, in this order.
SOURCES = {
    "a file is one text": ({"a.txt": "one\ntwo\n"}, ["a.txt"], None, {"a.txt": "one\ntwo"}),
    "a file without a newline at its end": ({"a.txt": "one"}, ["a.txt"], None, {"a.txt": "one"}),
    "only one newline is the file's": ({"a.txt": "one\n\n"}, ["a.txt"], None, {"a.txt": "one\n"}),
    "CRLF": ({"a.txt": "one\r\ntwo\r\n"}, ["a.txt"], None, {"a.txt": "one\r\ntwo"}),
    "leading blanks are the text's": ({"a.txt": "  one \n"}, ["a.txt"], None, {"a.txt": "  one "}),
    "a byte order mark": ({"a.txt": BOM + "one\n"}, ["a.txt"], None, {"a.txt": "one"}),
    "Chinese": ({"文.txt": "第三季度预算\n"}, ["文.txt"], None, {"文.txt": "第三季度预算"}),
    "files in the order given": (
        {"b.txt": "one", "a.txt": "two", "c/d.txt": "three"},
        ["b.txt", "c/d.txt", "a.txt"], None, {"b.txt": "one", "c/d.txt": "three", "a.txt": "two"},
    ),
    "lines": (
        {"a.txt": "one\n\n \t\n two \nthree"}, ["--lines", "a.txt"], None,
        {"a.txt:1": "one", "a.txt:4": " two ", "a.txt:5": "three"},
    ),
    "lines with CRLF": (
        {"a.txt": "one\r\n\r\ntwo\r\n"}, ["--lines", "a.txt"], None, {"a.txt:1": "one", "a.txt:3": "two"},
    ),
    "lines of an ideographic space are blank": (
        {"a.txt": BOM + "\n一\n\u3000\n二\n"}, ["--lines", "a.txt"], None, {"a.txt:2": "一", "a.txt:4": "二"},
    ),
    "line separators within a line": (
        {"a.txt": "one\u2028two\x85three\x0bfour\n"}, ["--lines", "a.txt"], None,
        {"a.txt:1": "one\u2028two\x85three\x0bfour"},
    ),
    "lines of several files": (
        {"a.txt": "one\n", "b.txt": "\ntwo\n"}, ["--lines", "a.txt", "b.txt"], None,
        {"a.txt:1": "one", "b.txt:2": "two"},
    ),
    "JSON Lines": (
        {"a.jsonl": '{"n": 1, "text": "one\\ntwo"}\n\n{"text": "\\u7b2c\\ud83d\\ude00"}'},
        ["--jsonl", "text", "a.jsonl"], None, {"a.jsonl:1": "one\ntwo", "a.jsonl:3": "第😀"},
    ),
    "JSON Lines with ids": (
        {"a.jsonl": BOM + '{"body": "one", "key": "k"}\n{"body": "two", "key": 7}\n'},
        ["--jsonl", "body", "--id", "key", "a.jsonl"], None, {"k": "one", "7": "two"},
    ),
    "NUL in JSON": ({"a.jsonl": '{"text": "one\\u0000two"}'}, ["--jsonl", "text", "a.jsonl"], None,
                    {"a.jsonl:1": "one\0two"}),
    "CSV": (
        {"a.csv": "n,text\n1,one\n2,two\n"}, ["--csv", "text", "a.csv"], None, {"a.csv:2": "one", "a.csv:3": "two"},
    ),
    "CSV with quoted fields over several lines": (
        {"a.csv": BOM + 'key,text\r\nk1,"one, ""two""\r\n\r\nthree"\r\nk2,四\r\n'}, ["--csv", "text", "a.csv"], None,
        {"a.csv:2": 'one, "two"\r\n\r\nthree', "a.csv:5": "四"},
    ),
    "CSV with ids": (
        {"a.csv": "key,text\nk1,one\nk2,two\n"}, ["--csv", "text", "--id", "key", "a.csv"], None,
        {"k1": "one", "k2": "two"},
    ),
    "CSV with blank rows and rows too long": (
        {"a.csv": "\nn,text\n\n\n1,one,and more\n\n2,two\n"}, ["--csv", "text", "a.csv"], None,
        {"a.csv:5": "one", "a.csv:7": "two"},
    ),
    "a folder, sorted, hidden files left out": (
        {"notes/b.txt": "one", "notes/a/z.md": "two", "notes/.hidden": "no", "notes/.git/x": "no", "notes/a.c": "0"},
        ["notes"], None, {"notes/a/z.md": "two", "notes/a.c": "0", "notes/b.txt": "one"},
    ),
    "a folder whose own name is hidden": ({".notes/a.txt": "one"}, [".notes"], None, {".notes/a.txt": "one"}),
    "a folder by pattern": (
        {"notes/b.txt": "no", "notes/a/z.md": "two", "notes/b.md": "one"}, ["notes", "--glob", "**/*.md"], None,
        {"notes/a/z.md": "two", "notes/b.md": "one"},
    ),
    "a folder by pattern, at any depth as for an index": (
        {"notes/b.txt": "no", "notes/a/z.md": "two", "notes/b.MD": "one"}, ["notes", "--glob", "*.md"], None,
        {"notes/a/z.md": "two", "notes/b.MD": "one"},
    ),
    "the pattern is for folders, not for files named": (
        {"notes/b.md": "one", "c.txt": "two"}, ["c.txt", "notes", "--glob", "*.md"], None,
        {"c.txt": "two", "notes/b.md": "one"},
    ),
    "a pattern that no shell expanded": (
        {"b.md": "one", "a.md": "two", ".hidden.md": "no", "c.txt": "no", "d.md/x": "three"}, ["*.md"], None,
        {"a.md": "two", "b.md": "one", "d.md/x": "three"},
    ),
    "a pattern over folders": (
        {"n/a/x.md": "one", "n/y.md": "two", "n/a/z.txt": "no"}, ["n/**/?.md"], None,
        {"n/a/x.md": "one", "n/y.md": "two"},
    ),
    "lines of a folder": (
        {"notes/a.txt": "one\ntwo\n", "notes/b.txt": "three\n"}, ["--lines", "notes"], None,
        {"notes/a.txt:1": "one", "notes/a.txt:2": "two", "notes/b.txt:1": "three"},
    ),
    "texts": ({}, ["--text", "one", "--text", "二\n"], None, {"text:1": "one", "text:2": "二\n"}),
    "texts come before files": ({"a": "two"}, ["a", "--text", "one"], None, {"text:1": "one", "a": "two"}),
    "stdin piped in": ({}, [], "one\ntwo\n", {"stdin": "one\ntwo"}),
    "stdin by lines": ({}, ["--lines"], "one\r\n\r\n二", {"stdin:1": "one", "stdin:3": "二"}),
    "stdin as JSON Lines": ({}, ["--jsonl", "text", "-"], '{"text": "one"}\n', {"stdin:1": "one"}),
    "stdin as CSV": ({}, ["--csv", "text"], 'text\n"one\n"\n', {"stdin:2": "one\n"}),
    "stdin among files": (
        {"a.txt": "one", "b.txt": "three"}, ["a.txt", "-", "b.txt"], "two\n",
        {"a.txt": "one", "stdin": "two", "b.txt": "three"},
    ),
    "stdin is left alone where texts are named": ({}, ["--text", "one"], "two", {"text:1": "one"}),
}  # fmt: skip


@pytest.mark.parametrize(("files", "arguments", "stdin", "wanted"), SOURCES.values(), ids=SOURCES)
def test_texts_are_read_from(files, arguments, stdin, wanted, tmp_path):
    write(tmp_path, files)
    result = embed(*arguments, input=stdin)
    assert result.exit_code == 0, result.stderr
    got, answer = records(result.stdout), expected(wanted.values())
    assert [record["id"] for record in got] == list(wanted)
    assert [record["index"] for record in got] == list(range(len(wanted)))
    assert tuple(record["tokens"] for record in got) == answer.prompt_tokens
    np.testing.assert_array_equal([record["embedding"] for record in got], answer.vectors)


@pytest.mark.parametrize("name", ["*.rst", "no/*.md"])
def test_a_pattern_that_nothing_matches(name, tmp_path):
    write(tmp_path, {"a.md": "one"})
    result = embed(name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: there is no file or folder {name}, and none matches it; ")


@pytest.mark.skipif(sys.platform == "win32", reason="no such name there")
def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    write(tmp_path, {"what?": "one", "whats": "two"})
    assert ids(embed("what?").stdout) == ["what?"]


def test_click_leaves_the_arguments_as_they_are_on_windows(monkeypatch):
    asked = []
    monkeypatch.setattr(click.Group, "main", lambda self, *arguments, **extra: asked.append(extra))
    embed("--text", "$HOME")
    assert asked[0]["windows_expand_args"] is False


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


def test_a_csv_field_longer_than_csv_itself_allows(tmp_path):
    long = "word " * 30_000
    assert len(long) > 128 * 1024
    write(tmp_path, {"a.csv": f"text\n{long}\nshort\n"})
    result = embed("--csv", "text", "a.csv", "--max-tokens", 64)
    assert result.exit_code == 0
    answer = expected([long, "short"], max_tokens=64, truncate=True)
    np.testing.assert_array_equal([record["embedding"] for record in records(result.stdout)], answer.vectors)


@pytest.mark.parametrize(
    ("suffix", "output"), [(".jsonl", "notes/out"), (".npy", "notes/out"), (".csv", "notes/a/../out")]
)
def test_the_output_is_no_input_of_its_own_folder(suffix, output, tmp_path):
    write(tmp_path, {"notes/a/x.txt": "one", "notes/z.txt": "two"})
    output = Path(output + suffix)
    assert embed("notes", "-o", output).exit_code == 0
    n_files = len(listing(tmp_path))
    result = embed("notes", "-o", output, "--force", "--no-cache")
    assert result.exit_code == 0
    assert result.stderr.startswith("2 texts, ")
    assert len(listing(tmp_path)) == n_files


@pytest.mark.parametrize("option", ["--force", "--resume"])
@pytest.mark.parametrize("name", ["a.jsonl", "notes/../a.jsonl"])
def test_a_file_cannot_be_both_input_and_output(name, option, tmp_path):
    write(tmp_path, {"a.jsonl": '{"text": "one"}\n', "notes/b.txt": ""})
    before = listing(tmp_path)
    result = embed("--jsonl", "text", "a.jsonl", "-o", name, option)
    assert result.exit_code == 2
    assert result.stderr == "Error: a.jsonl is the output too; write to another file\n"
    assert listing(tmp_path) == before


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_a_file_whose_name_is_not_utf8(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("one")
    result = embed(os.fsdecode(b"caf\xe9.txt"))
    assert result.exit_code == 0
    assert ids(result.stdout) == ["caf?.txt"]


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


def test_many_texts_keep_their_order_through_batches_and_windows(tmp_path):
    lines = [f"{n} " + "word " * (n * 7 % 5) for n in range(1100)]
    write(tmp_path, {"a.jsonl": "".join(json.dumps({"n": n, "text": line}) + "\n" for n, line in enumerate(lines))})
    result = embed("--jsonl", "text", "--id", "n", "a.jsonl", "-d", 32)
    assert result.exit_code == 0
    got = records(result.stdout)
    assert [record["id"] for record in got] == [str(n) for n in range(1100)]
    np.testing.assert_array_equal([record["embedding"] for record in got], expected(lines, dim=32).vectors)
