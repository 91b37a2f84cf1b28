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
    calls = []
    monkeypatch.setattr(click.Group, "main", lambda self, *arguments, **extra: calls.append(extra))
    embed("--text", "$HOME")
    assert calls[0]["windows_expand_args"] is False


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


def test_many_texts_keep_their_order_through_batches_and_windows(tmp_path):
    lines = [f"{n} " + "word " * (n * 7 % 5) for n in range(1100)]
    write(tmp_path, {"a.jsonl": "".join(json.dumps({"n": n, "text": line}) + "\n" for n, line in enumerate(lines))})
    result = embed("--jsonl", "text", "--id", "n", "a.jsonl", "-d", 32)
    assert result.exit_code == 0
    got = records(result.stdout)
    assert [record["id"] for record in got] == [str(n) for n in range(1100)]
    np.testing.assert_array_equal([record["embedding"] for record in got], expected(lines, dim=32).vectors)
