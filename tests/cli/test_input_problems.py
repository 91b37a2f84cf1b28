"""What `embed` says of a file, a record or a text that cannot be embedded, and what becomes of the others."""

from __future__ import annotations

import os
import sys

import pytest
from alike import assert_alike
from command import embed, expected, ids, records, write

# Of three texts, the second, in place of SECOND, cannot be read. By the place where the texts are: the files, the
# arguments, and the id of the third text.
PLACES = {
    "files": ({"1": "one", "2": "SECOND", "3": "three"}, ["1", "2", "3"], "3"),
    "lines": ({"a": "one\nSECOND\nthree"}, ["--lines", "a"], "a:3"),
    "json": ({"a": '{"text": "one"}\nSECOND\n{"text": "three"}'}, ["--jsonl", "text", "a"], "a:3"),
    "json with ids": (
        {"a": '{"text": "one", "n": 1}\nSECOND\n{"text": "three", "n": 3}'},
        ["--jsonl", "text", "--id", "n", "a"], "3",
    ),
    "csv": ({"a": "n,text\n1,one\nSECOND\n3,three"}, ["--csv", "text", "a"], "a:4"),
    "csv with ids": ({"a": "n,text\n1,one\nSECOND\n3,three"}, ["--csv", "text", "--id", "n", "a"], "3"),
    "csv files": (
        {"1": "n,text\n1,one", "2": "SECOND", "3": "n,text\n3,three"}, ["--csv", "text", "1", "2", "3"], "3:2",
    ),
    "csv files with ids": (
        {"1": "n,text\n1,one", "2": "SECOND", "3": "n,text\n3,three"},
        ["--csv", "text", "--id", "n", "1", "2", "3"], "3",
    ),
}  # fmt: skip
# Name: the place, the second text, and what is said of it.
SECOND = {
    "bytes that are not UTF-8": (
        "files", "第三季度预算\n搬".encode() + b"\xff", "2 is not UTF-8: byte 0xff in line 2 (at byte 22)",
    ),
    "a binary file": ("files", b"GIF\0\xff", "2 is a binary file (NUL at byte 3)"),
    "an empty file": ("files", "", "2 has no text in it"),
    "only a byte order mark": ("files", "\ufeff", "2 has no text in it"),
    "only blanks": ("files", " \n\t\u3000", "2 has no text in it"),
    "bytes in a line that are not UTF-8": ("lines", b"caf\xe9", "a:2 is not UTF-8: byte 0xe9 at byte 3"),
    "a line of UTF-16 without a byte order mark": ("lines", b"t\0w\0o\0", "a:2 is a binary file (NUL at byte 1)"),
    "NUL in a line": ("lines", "tw\0o", "a:2 is a binary file (NUL at byte 2)"),
    "bytes in JSON that are not UTF-8": ("json", b'{"text": "\xff"}', "a:2 is not JSON: "),
    "an empty JSON text": ("json", '{"text": ""}', "a:2 has no text in it"),
    "no such JSON field": ("json", '{"tekst": "two"}', "a:2 has no field 'text'"),
    "a JSON number": ("json", '{"text": 2}', "a:2 field 'text' is no text but int"),
    "a JSON list of texts": ("json", '{"text": ["two"]}', "a:2 field 'text' is no text but list"),
    "a line that is not JSON": ("json", '{"text": ', "a:2 is not JSON: "),
    "a line that is no object": ("json", '["two"]', "a:2 is not a JSON object but list"),
    "a lone surrogate in JSON": ("json", '{"text": "\\ud83d"}', "a:2 is not JSON: "),
    "JSON null": ("json with ids", '{"text": null, "n": 2}', "2 field 'text' is null (a:2)"),
    "no id": ("json with ids", '{"text": "two"}', "a:2 has no 'n' to take as its id"),
    "an id that is no name": ("json with ids", '{"text": "two", "n": 2.5}', "a:2 has no 'n' to take as its id"),
    "bytes in CSV that are not UTF-8": ("csv", b"2,caf\xe9", "a:3 field 'text' is not UTF-8"),
    "an empty CSV cell": ("csv", '2,""', "a:3 has no text in it"),
    "a CSV row that is too short": ("csv", "2", "a:3 has no field 'text'"),
    "an id that is not UTF-8": ("csv with ids", b"\xe9,two", "a:3 field 'n' is not UTF-8"),
    "a CSV file whose head is not UTF-8": ("csv files", b"text,caf\xe9\ntwo", "2 is not UTF-8 in its first line"),
    "no such CSV column": ("csv files", "n,tekst\n2,two", "2 has no column 'text'; its columns are n, tekst"),
    "an empty CSV file": ("csv files", "", "2 has no column 'text'; its columns are none"),
    "a CSV file whose first line never ends": ("csv files", '"te\nxt', "2:1 is not CSV: "),
    "a CSV quote that never ends": ("csv files", 'text\n"two\n', "2:2 is not CSV: "),
    "no CSV column of ids": ("csv files with ids", "no,text\n2,two", "2 has no column 'n'; its columns are no, text"),
}  # fmt: skip


def case(place: str, second: str | bytes, said: str) -> tuple[dict[str, bytes], list[str], str, str]:
    files, arguments, third = PLACES[place]
    second = second.encode() if isinstance(second, str) else second
    files = {name: content.encode().replace(b"SECOND", second) for name, content in files.items()}
    return files, arguments, said, third


# Name: the files, the arguments, what is said of the second text, and the id of the third.
PROBLEMS = {name: case(*problem) for name, problem in SECOND.items()} | {
    "an empty text": ({"3": "three"}, ["--text", "one", "--text", "", "3"], "text:2 has no text in it", "3"),
    "a text that is too long": (
        {"1": "one", "2": "two and a good many words more", "3": "three"},
        ["--max-tokens", "9", "--too-long", "error", "1", "2", "3"], "2 has 14 tokens, the limit is 9; ", "3",
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
        arguments, piped = ["-" if argument == "a" else argument for argument in arguments], files["a"]
        said = said.replace("a:", "stdin:")
    else:
        piped = None
    result = embed(*arguments, input=piped)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {said}")
    assert len(result.stderr.splitlines()) == 1
    (first,) = records(result.stdout)
    assert first["index"] == 0
    assert_alike(first["embedding"], expected(["one"]).vectors[0])


@pytest.mark.parametrize(("files", "arguments", "said", "third"), PROBLEMS.values(), ids=PROBLEMS)
def test_skip_errors_embeds_the_others_and_lists_what_failed(files, arguments, said, third, tmp_path):
    write(tmp_path, files)
    result = embed(*arguments, "--skip-errors")
    assert result.exit_code == 3
    assert f"\n1 skipped:\n  {said}" in result.stderr
    got = records(result.stdout)
    assert [(record["index"], record["id"]) for record in got][1:] == [(2, third)]
    assert_alike([record["embedding"] for record in got], expected(["one", "three"]).vectors)


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
