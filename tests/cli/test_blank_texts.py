"""Blank texts and texts that fail through `embed` and the jobs: what becomes of them, and what is offered."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import job_texts
import numpy as np
import pyarrow.parquet
import pytest
from alike import assert_alike
from command import command, embed, expected, ids, records, run, write

pytestmark = pytest.mark.usefixtures("table")


def test_blank_texts_are_found_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("q3e_local.load", None)
    write(tmp_path, {"many.csv": "text,n\n" + "".join(f"{'' if n % 3 else n},{n}\n" for n in range(12))})
    result = embed("--csv", "text", "many.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: 8 of 12 texts are blank: many.csv:3, many.csv:4, many.csv:6, many.csv:7, many.csv:9 and 3 more; "
        "leave blank texts out with --blank skip, or embed them as zeros with --blank zeros\n"
    )
    result = embed("--csv", "text", "t.csv")
    assert result.stderr.startswith("Error: t.csv:3 has no text in it; leave blank texts out with --blank skip")


@pytest.mark.parametrize("form", ["npy", "jsonl", "csv", "parquet"])
def test_zeros_keep_the_number_of_each_row(form):
    result = embed("--csv", "text", "t.csv", "--blank", "zeros", "-d", 32, "-o", f"out.{form}")
    assert (result.exit_code, "1 blank text embedded as zeros" in result.stderr) == (0, True)
    if form == "npy":
        got, blank = np.load("out.npy"), [False, True, False]
        beside = [json.loads(line) for line in Path("out.npy.rows.jsonl").read_text().splitlines()]
        assert [record.get("blank", False) for record in beside] == blank
        assert [record["index"] for record in beside] == [0, 1, 2]
    elif form == "jsonl":
        read = records(Path("out.jsonl").read_text())
        got, blank = [record["embedding"] for record in read], [record.get("blank", False) for record in read]
    elif form == "csv":
        read = job_texts.table(Path("out.csv").read_text())
        got = [[np.float32(row[f"e{n}"]) for n in range(32)] for row in read]
        blank = [row["blank"] == "true" for row in read]
    else:
        table = pyarrow.parquet.read_table("out.parquet")
        got, blank = table.column("embedding").to_pylist(), table.column("blank").to_pylist()
    first, third = expected(["one", "three"], dim=32).vectors
    assert_alike(got, [first, np.zeros(32), third])
    assert blank == [False, True, False]


@pytest.mark.parametrize(
    ("option", "code", "said"),
    [(("--blank", "skip"), 0, "1 blank text left out\n"),
     (("--skip-errors",), 3, "1 skipped:\n  t.csv:3 has no text in it\n")],
)  # fmt: skip
def test_blank_texts_are_left_out_and_counted_or_listed(option, code, said):
    result = embed("--csv", "text", "t.csv", *option)
    assert (result.exit_code, [record["index"] for record in records(result.stdout)]) == (code, [0, 2])
    assert result.stderr.endswith(said)


def test_many_blank_texts_before_between_and_behind(tmp_path):
    texts = ["", "", "one", "", "two", "", "", "three", "", ""]
    write(tmp_path, {"a.jsonl": "".join(json.dumps({"t": text}) + "\n" for text in texts)})
    assert embed("--jsonl", "t", "a.jsonl", "--blank", "zeros", "-o", "out.npy").exit_code == 0
    got, filled = np.load("out.npy"), expected(["one", "two", "three"]).vectors
    assert_alike(got[[2, 4, 7]], filled)
    assert not got[[0, 1, 3, 5, 6, 8, 9]].any()
    piped = embed("--jsonl", "t", "--blank", "zeros", input=Path("a.jsonl").read_text())
    assert_alike([record["embedding"] for record in records(piped.stdout)], got)


def test_blank_lines_are_rows_where_zeros_are_asked_for(tmp_path):
    write(tmp_path, {"a.txt": "one\n\n \ntwo\n"})
    for options in ((), ("--blank", "skip")):
        assert ids(embed("--lines", "a.txt", *options).stdout) == ["a.txt:1", "a.txt:4"]
    zeros = records(embed("--lines", "a.txt", "--blank", "zeros").stdout)
    assert [record["index"] for record in zeros] == [0, 1, 2, 3]
    assert [record.get("blank") for record in zeros] == [None, True, True, None]
    wrong = embed("--lines", "a.txt", "--blank", "error")
    assert (wrong.exit_code, "2 of 4 texts are blank: a.txt:2, a.txt:3" in wrong.stderr) == (1, True)


def test_blank_files_are_blank_texts_too(tmp_path):
    write(tmp_path, {"n/1": "one", "n/2": " \n", "n/3": "three"})
    got = records(embed("n", "--blank", "zeros").stdout)
    assert [(record["id"], record.get("blank")) for record in got] == [("n/1", None), ("n/2", True), ("n/3", None)]
    assert embed("n", "--blank", "skip").exit_code == 0
    wrong = embed("n")
    assert "n/2 has no text in it; leave blank texts out with --blank skip" in wrong.stderr


def test_a_text_that_fails_keeps_its_row_too_where_zeros_are_asked_for(tmp_path):
    write(
        tmp_path,
        {"a.jsonl": '{"t": "one"}\n{"t": 5}\n{"t": "far too many words here"}\n{"t": ""}\n{"t": "five"}\n'},
    )
    options = ("--max-tokens", 8, "--too-long", "error", "--blank", "zeros", "--skip-errors")
    result = embed("--jsonl", "t", "a.jsonl", *options, "-o", "out.npy")
    assert result.exit_code == 3
    assert "2 skipped:\n  a.jsonl:2 field 't' is no text but int\n  a.jsonl:3 has " in result.stderr
    np.testing.assert_array_equal(np.load("out.npy").any(axis=1), [True, False, False, False, True])


@pytest.mark.parametrize("blank", ["zeros", "skip"])
@pytest.mark.parametrize("name", ["out.npy", "out.jsonl"])
def test_a_run_with_blank_texts_is_continued(name, blank, table, each_alone, tmp_path):
    def files():
        return {path.name: path.read_bytes() for path in tmp_path.glob("out*")}

    options = ("--csv", "text", "t.csv", "--blank", blank, "--keep", "label", "-d", 32, "-o", name)
    assert embed(*options).exit_code == 0
    whole = files()
    for path in tmp_path.glob("out*"):
        path.unlink()
    write(tmp_path, {"t.csv": "".join(table.splitlines(keepends=True)[:3])})  # the head and the first two rows
    assert embed(*options).exit_code == 0
    write(tmp_path, {"t.csv": table})
    result = embed(*options, "--resume")
    assert result.exit_code == 0, result.stderr
    assert files() == whole


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (["--blank", "zeros"], ["--blank", "skip"], "it has rows of zeros for blank texts; give --blank zeros"),
        (["--blank", "skip"], ["--blank", "zeros"], "no row for t.csv:3: it was begun without --blank zeros"),
        (
            ["--blank", "skip", "--keep", "label"], ["--blank", "skip"],
            "it was begun with --keep label, not with no --keep",
        ),
        (
            ["--blank", "skip"], ["--blank", "skip", "--keep", "date,label"],
            "it was begun with no --keep, not with --keep date,label",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["out.npy", "out.jsonl"])
def test_a_run_of_other_options_is_not_continued(first, second, said, name):
    assert embed("--csv", "text", "t.csv", *first, "-o", name).exit_code == 0
    before = Path(name).read_bytes()
    result = embed("--csv", "text", "t.csv", *second, "-o", name, "--resume")
    assert (result.exit_code, said in result.stderr) == (1, True), result.stderr
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize(("before", "after"), [("", "two"), ("two", "")])
def test_a_cell_that_was_filled_or_emptied_is_refused(before, after, tmp_path):
    write(tmp_path, {"t.csv": f"text,n\n{before},1\nthree,2\n"})
    options = ("--csv", "text", "t.csv", "--blank", "zeros", "-o", "out.npy")
    assert embed(*options).exit_code == 0
    write(tmp_path, {"t.csv": f"text,n\n{after},1\nthree,2\n"})
    result = embed(*options, "--resume")
    assert (result.exit_code, "t.csv:2 is not the text it was" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("files", "arguments", "is_offered"),
    [
        ({"a": '{"t": 1}\n{"t": "two"}\n'}, ["--jsonl", "t", "a"], True),
        ({"a": '{"t": 1}\n{"t": 2}\n'}, ["--jsonl", "t", "a"], False),
        ({"a": "n,m\n1,2\n"}, ["--csv", "t", "a"], False),
        ({"a": "n,m\n1,2\n", "b": "t\none\n"}, ["--csv", "t", "a", "b"], True),
        ({"a": "\0"}, ["a"], False),
        ({"a": "\0", "b": "two"}, ["a", "b"], True),
        ({"a": "\0", "b": "\0"}, ["a", "b"], False),
    ],
)
def test_going_on_is_offered_where_something_is_left_to_embed(files, arguments, is_offered, tmp_path):
    write(tmp_path, files)
    result = embed(*arguments)
    assert (result.exit_code, "--skip-errors" in result.stderr) == (1, is_offered), result.stderr


@pytest.mark.parametrize(
    ("text", "arguments", "is_offered"),
    [
        ('{"t": 1}\n', ["--jsonl", "t"], True),  # a record may follow
        ("n,m\n1,2\n", ["--csv", "t"], False),  # no record has the column
        ("\0", [], False),  # all of it is one text
    ],
)
def test_of_a_pipe_going_on_is_offered_where_something_may_follow(text, arguments, is_offered):
    result = embed(*arguments, input=text)
    assert (result.exit_code, "--skip-errors" in result.stderr) == (1, is_offered), result.stderr


def test_a_wrong_record_of_a_pipe_is_said_while_the_pipe_is_open(tmp_path):
    """It once waited for the next good record, or the end of the pipe, before it said so."""
    with subprocess.Popen(command("--jsonl", "t"), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b'{"t": 1}\n')
        process.stdin.flush()
        assert process.wait(120) == 1
        assert b"--skip-errors" in process.stderr.read()
        process.stdin.close()


@pytest.mark.parametrize("blank", [(), ("--blank", "zeros"), ("--blank", "skip")])
def test_a_field_that_no_record_has_is_named_with_those_there_are(blank, tmp_path):
    write(tmp_path, {"p.jsonl": '{"text": "one", "n": 1}\n{"text": "two", "n": 2}\n'})
    result = embed("--jsonl", "txt", "p.jsonl", *blank)
    said = "Error: p.jsonl:1 has no field 'txt'; its fields are text, n; the nearest is 'text'\n"
    assert (result.exit_code, result.stderr) == (1, said)


def test_nothing_is_offered_of_a_table_without_any_text(tmp_path):
    write(tmp_path, {"e.csv": "text,n\n,1\n,2\n"})
    result = embed("--csv", "text", "e.csv")
    assert (result.exit_code, result.stderr) == (1, "Error: 2 of 2 texts are blank: e.csv:2, e.csv:3\n")
    for blank in ("skip", "zeros"):
        for piped in (("e.csv",), ()):
            result = embed("--csv", "text", *piped, "--blank", blank, input=None if piped else "text,n\n,1\n")
            assert (result.exit_code, "all of them are blank" in result.stderr) == (1, True)


def test_jobs_leave_out_the_zeros_of_blank_texts(tmp_path):
    write(tmp_path, {"z.csv": "text,n\none,1\n,2\none,3\n"})
    assert embed("--csv", "text", "z.csv", "--blank", "zeros", "-o", "z.npy").exit_code == 0
    for more in ((), ("z.csv", "--csv", "text")):
        result = run("duplicates", "z.npy", *more, "--json")
        assert result.exit_code == 0, result.output
        (group,) = [json.loads(line) for line in result.stdout.splitlines()]
        assert [member["id"] for member in group["members"]] == ["z.csv:2", "z.csv:4"]
        assert "z.npy has zeros for 1 blank text, left out here" in result.stderr
    assert embed("--csv", "text", "z.csv", "--blank", "skip", "-o", "y.npy").exit_code == 0
    assert run("duplicates", "y.npy", "z.csv", "--csv", "text").exit_code == 0


def test_a_row_that_is_wrong_behind_rows_of_zeros_is_named_by_its_number(tmp_path):
    write(tmp_path, {"z.csv": "text,n\n,1\none,2\ntwo,3\n"})
    assert embed("--csv", "text", "z.csv", "--blank", "zeros", "-o", "z.npy").exit_code == 0
    array = np.load("z.npy")
    array[2, 0] = np.nan
    np.save("z.npy", array)
    assert "row 2 of z.npy has NaN" in run("duplicates", "z.npy").stderr


def test_pairs_of_zeros_agree_with_nothing(tmp_path):
    write(tmp_path, {"z.csv": "text,n\none,1\n,2\nthree,3\n", "y.csv": "text\none\ntwo\nthree\n"})
    assert embed("--csv", "text", "z.csv", "--blank", "zeros", "-o", "z.npy").exit_code == 0
    result = run("filter-pairs", "y.csv", "text", "--vectors", "z.npy", "--threshold", "-1")
    assert (result.exit_code, result.stdout) == (0, "text\none\nthree\n"), result.stderr
    assert "2 of 3 rows kept at -1.0 or above, 1 without text" in result.stderr
