"""Tables through `embed` and the jobs: what is kept beside a text, what becomes of a blank one, what is said."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import xlsxwriter
from command import command, demo, embed, expected, records, run, write

TABLE = "id;text;label;date\n1;one;good;2024-01-31\n2;;bad;\n3;three;;2024-02-01\n"
GBK = "编号;文本;标签\n1;第三季度预算已获批准;好\n2;办公室搬迁;坏\n".encode("gbk")


@pytest.fixture(autouse=True)
def _loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo model is loaded once for all tests, in a folder with the tables above."""
    embedder = demo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_MODEL", "demo")
    monkeypatch.setenv("Q3E_CACHE", "off")
    monkeypatch.setattr(embedder, "close", lambda: None)
    monkeypatch.setattr("q3e_local.load", lambda model, **options: embedder)
    write(tmp_path, {"t.csv": TABLE, "gbk.csv": GBK})
    return


def vectors(*texts):
    return expected(texts).vectors


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


# --keep.


def test_columns_are_kept_in_json_lines():
    got = records(embed("--csv", "text", "t.csv", "--keep", "label,date", "--blank", "skip").stdout)
    assert [(one["index"], one["label"], one["date"]) for one in got] == [
        (0, "good", "2024-01-31"),
        (2, "", "2024-02-01"),
    ]
    np.testing.assert_array_equal([one["embedding"] for one in got], vectors("one", "three"))


def test_columns_are_kept_in_csv_json_and_beside_an_array():
    options = ("--csv", "text", "t.csv", "--keep", "date", "--keep", "label", "--blank", "skip", "-d", 32)
    got = rows(embed(*options, "--format", "csv").stdout)
    assert [(row["date"], row["label"]) for row in got] == [("2024-01-31", "good"), ("2024-02-01", "")]
    assert list(got[0])[:7] == ["index", "id", "tokens", "truncated", "date", "label", "e0"]
    (first, second) = json.loads(embed(*options, "--format", "json").stdout)["data"]
    assert (first["label"], second["date"], first["object"]) == ("good", "2024-02-01", "embedding")
    assert embed(*options, "-o", "out.npy").exit_code == 0
    beside = [json.loads(line) for line in Path("out.npy.rows.jsonl").read_text().splitlines()]
    assert [(one["row"], one["index"], one["label"]) for one in beside] == [(0, 0, "good"), (1, 2, "")]


def test_fields_of_json_are_kept_as_they_are(tmp_path):
    values = [{"n": 1.5, "tags": ["a", {"b": None}], "who": "我", "ok": True}, {"n": None}]
    write(tmp_path, {"a.jsonl": "".join(json.dumps({"t": f"text {n}"} | one) + "\n" for n, one in enumerate(values))})
    options = ("--jsonl", "t", "a.jsonl", "--keep", "n,tags,who,ok")
    got = records(embed(*options).stdout)
    assert [{name: one[name] for name in ("n", "tags", "who", "ok")} for one in got] == [
        values[0],
        {"n": None, "tags": None, "who": None, "ok": None},
    ]
    (first, second) = rows(embed(*options, "--format", "csv").stdout)
    assert [first[name] for name in ("n", "tags", "who", "ok")] == ["1.5", '["a",{"b":null}]', "我", "true"]
    assert {second[name] for name in ("n", "tags", "who", "ok")} == {""}


PARQUET = {
    "text": pyarrow.array(["one", "two", "three"]),
    "day": pyarrow.array([date(2024, 1, 31), None, date(2024, 2, 1)]),
    "at": pyarrow.array([datetime(2024, 1, 31, 12, 30)] * 3, pyarrow.timestamp("us")),
    "price": pyarrow.array([Decimal("2.50")] * 3, pyarrow.decimal128(6, 2)),
    "tags": pyarrow.array([["a", "b"], [], None], pyarrow.list_(pyarrow.string())),
    "label": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
    "raw": pyarrow.array([b"\0\1", b"", None]),
}
KEPT = "day,at,price,tags,label,raw"


def test_columns_of_parquet_keep_their_types_in_parquet():
    table = pyarrow.table(PARQUET)
    pyarrow.parquet.write_table(table, "t.parquet")
    result = embed("--column", "text", "t.parquet", "--keep", KEPT, "-o", "out.parquet")
    assert result.exit_code == 0, result.stderr
    out = pyarrow.parquet.read_table("out.parquet")
    for name in KEPT.split(","):
        kind = pyarrow.string() if name == "label" else table.schema.field(name).type
        assert out.schema.field(name).type == kind
        assert out.column(name).to_pylist() == table.column(name).to_pylist()


def test_columns_of_parquet_are_dates_and_numbers_in_json():
    pyarrow.parquet.write_table(pyarrow.table(PARQUET), "t.parquet")
    (first, second, third) = records(embed("--csv", "text", "t.parquet", "--keep", KEPT).stdout)
    assert [first[name] for name in KEPT.split(",")] == [
        "2024-01-31", "2024-01-31T12:30:00", "2.50", ["a", "b"], "x", "AAE=",
    ]  # fmt: skip
    assert (second["day"], second["tags"], third["tags"], third["raw"]) == (None, [], None, None)


def test_columns_of_other_tables_are_text_in_parquet(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["two"], "label": [2]}), "t.parquet")
    write(tmp_path, {"one.csv": "text,label\none,1\n"})
    result = embed("--csv", "text", "one.csv", "t.parquet", "--keep", "label", "-o", "out.parquet")
    assert result.exit_code == 0, result.stderr
    out = pyarrow.parquet.read_table("out.parquet")
    assert (out.schema.field("label").type, out.column("label").to_pylist()) == (pyarrow.string(), ["1", "2"])


def test_a_parquet_file_that_is_broken_spoils_only_itself(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one"], "n": [1]}), "a.parquet")
    write(tmp_path, {"b.parquet": b"PAR1"})
    result = embed("--csv", "text", "a.parquet", "b.parquet", "--keep", "n", "--skip-errors", "-o", "out.parquet")
    assert (result.exit_code, "b.parquet cannot be read as Parquet" in result.stderr) == (3, True)
    out = pyarrow.parquet.read_table("out.parquet")
    assert (out.schema.field("n").type, out.column("n").to_pylist()) == (pyarrow.int64(), [1])


def test_cells_of_excel_are_kept_as_numbers_and_dates():
    with xlsxwriter.Workbook("t.xlsx", {"default_date_format": "yyyy-mm-dd"}) as book:
        page = book.add_worksheet()
        page.write_row(0, 0, ["text", "n", "day", "ok", "none"])
        page.write_row(1, 0, ["一", 2.5])
        page.write_datetime(1, 2, datetime(2024, 1, 31))
        page.write_boolean(1, 3, True)
    (one,) = records(embed("--csv", "text", "t.xlsx", "--keep", "n,day,ok,none").stdout)
    assert (one["id"], one["n"], one["day"], one["ok"], one["none"]) == ("t.xlsx:2", 2.5, "2024-01-31", True, None)
    np.testing.assert_array_equal(one["embedding"], vectors("一")[0])


def test_a_row_whose_text_is_an_error_of_excel_keeps_its_id_and_columns():
    book = openpyxl.Workbook()
    for row in (["key", "text", "n"], ["a", "#N/A", 7], ["b", "one", 8]):
        book.active.append(row)
    book.save("t.xlsx")
    options = ("--csv", "text", "--id", "key", "t.xlsx", "--keep", "n")
    got = records(embed(*options, "--blank", "zeros").stdout)
    assert [(one["id"], one["n"], one.get("blank")) for one in got] == [("a", 7, True), ("b", 8, None)]
    assert "a has Excel's error #N/A in the column 'text'" in embed(*options).stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--keep", "tokens"), 2, "--keep tokens: the output has a field 'tokens' already"),
        (("--keep", "id"), 2, "--id id takes the ids from it"),
        (("--keep", "e7"), 2, "the output has a field 'e7' already"),
        (("--keep", "label,label"), 2, "--keep names 'label' twice"),
        (("--keep", "label,"), 2, "--keep has an empty name"),
        (("--keep", "label", "--format", "table"), 2, "table has no place for --keep"),
        (("--keep", "label", "-o", "x.b64"), 2, "base64 has no place for --keep"),
        (("--keep", "labels"), 1, "t.csv has no column 'labels'; its columns are id, text, label, date; the nearest"),
        (("--blank", "zeros", "--format", "json"), 2, "json cannot say that a row is blank"),
        (("--delimiter", ";;"), 2, "--delimiter is one character, or tab, comma, semicolon, pipe or space; got ';;'"),
        (("--encoding", "gkb"), 2, "--encoding 'gkb' is no encoding"),
        (("--encoding", "hex"), 2, "--encoding 'hex' is no encoding"),
    ],
)
def test_what_cannot_be_kept_or_read_is_refused(options, code, said):
    result = embed("--csv", "text", "t.csv", *options)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


def test_a_name_with_a_comma_is_quoted(tmp_path):
    write(tmp_path, {"c.csv": 'text,"a, b"\none,x\n'})
    (one,) = records(embed("--csv", "text", "c.csv", "--keep", '"a, b"').stdout)
    assert one["a, b"] == "x"


def test_a_field_to_keep_that_no_record_has_is_a_mistake(tmp_path):
    write(tmp_path, {"a.jsonl": '{"t": "one", "label": 1}\n{"t": "two"}\n'})
    result = embed("--jsonl", "t", "a.jsonl", "--keep", "labels")
    assert (result.exit_code, result.stderr) == (1, "Error: no record has the field 'labels' to keep\n")


# Blank texts.


def test_blank_texts_are_found_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("q3e_local.load", None)
    write(tmp_path, {"many.csv": "text,n\n" + "".join(f"{'' if n % 3 else n},{n}\n" for n in range(12))})
    result = embed("--csv", "text", "many.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: 8 of 12 texts are blank: many.csv:3, many.csv:4, many.csv:6, many.csv:7, many.csv:9 and 3 more; "
        "leave blank texts out with --blank skip, or embed them as zeros with --blank zeros\n"
    )
    one = embed("--csv", "text", "t.csv")
    assert one.stderr.startswith("Error: t.csv:3 has no text in it; leave blank texts out with --blank skip")


@pytest.mark.parametrize("form", ["npy", "jsonl", "csv", "parquet"])
def test_zeros_keep_the_number_of_each_row(form):
    result = embed("--csv", "text", "t.csv", "--blank", "zeros", "-d", 32, "-o", f"out.{form}")
    assert (result.exit_code, "1 blank text embedded as zeros" in result.stderr) == (0, True)
    if form == "npy":
        got, blank = np.load("out.npy"), [False, True, False]
        beside = [json.loads(line) for line in Path("out.npy.rows.jsonl").read_text().splitlines()]
        assert [one.get("blank", False) for one in beside] == blank
        assert [one["index"] for one in beside] == [0, 1, 2]
    elif form == "jsonl":
        read = records(Path("out.jsonl").read_text())
        got, blank = [one["embedding"] for one in read], [one.get("blank", False) for one in read]
    elif form == "csv":
        read = rows(Path("out.csv").read_text())
        got = [[np.float32(row[f"e{n}"]) for n in range(32)] for row in read]
        blank = [row["blank"] == "true" for row in read]
    else:
        table = pyarrow.parquet.read_table("out.parquet")
        got, blank = table.column("embedding").to_pylist(), table.column("blank").to_pylist()
    one, three = expected(["one", "three"], dim=32).vectors
    np.testing.assert_array_equal(np.asarray(got, np.float32), [one, np.zeros(32), three])
    assert blank == [False, True, False]


def test_blank_texts_that_are_skipped_are_no_failure():
    result = embed("--csv", "text", "t.csv", "--blank", "skip")
    assert result.exit_code == 0
    assert [one["index"] for one in records(result.stdout)] == [0, 2]
    assert result.stderr.endswith("1 blank text left out\n")


def test_many_blank_texts_before_between_and_behind(tmp_path):
    texts = ["", "", "one", "", "two", "", "", "three", "", ""]
    write(tmp_path, {"a.jsonl": "".join(json.dumps({"t": text}) + "\n" for text in texts)})
    assert embed("--jsonl", "t", "a.jsonl", "--blank", "zeros", "-o", "out.npy").exit_code == 0
    got, filled = np.load("out.npy"), vectors("one", "two", "three")
    np.testing.assert_array_equal(got[[2, 4, 7]], filled)
    assert not got[[0, 1, 3, 5, 6, 8, 9]].any()
    piped = embed("--jsonl", "t", "--blank", "zeros", input=Path("a.jsonl").read_text())
    np.testing.assert_array_equal([one["embedding"] for one in records(piped.stdout)], got)


def test_blank_lines_are_rows_where_zeros_are_asked_for(tmp_path):
    write(tmp_path, {"a.txt": "one\n\n \ntwo\n"})
    assert [one["id"] for one in records(embed("--lines", "a.txt").stdout)] == ["a.txt:1", "a.txt:4"]
    assert [one["id"] for one in records(embed("--lines", "a.txt", "--blank", "skip").stdout)] == [
        "a.txt:1",
        "a.txt:4",
    ]
    zeros = records(embed("--lines", "a.txt", "--blank", "zeros").stdout)
    assert [(one["index"], one.get("blank")) for one in zeros] == [(0, None), (1, True), (2, True), (3, None)]
    wrong = embed("--lines", "a.txt", "--blank", "error")
    assert (wrong.exit_code, "2 of 4 texts are blank: a.txt:2, a.txt:3" in wrong.stderr) == (1, True)


def test_blank_files_are_blank_texts_too(tmp_path):
    write(tmp_path, {"n/1": "one", "n/2": " \n", "n/3": "three"})
    got = records(embed("n", "--blank", "zeros").stdout)
    assert [(one["id"], one.get("blank")) for one in got] == [("n/1", None), ("n/2", True), ("n/3", None)]
    assert embed("n", "--blank", "skip").exit_code == 0
    wrong = embed("n")
    assert "n/2 has no text in it; leave blank texts out with --blank skip" in wrong.stderr


def test_a_text_that_fails_keeps_its_row_too_where_zeros_are_asked_for(tmp_path):
    write(tmp_path, {"a.jsonl": '{"t": "one"}\n{"t": 5}\n{"t": "far too many words"}\n{"t": ""}\n{"t": "five"}\n'})
    options = ("--max-tokens", 8, "--too-long", "error", "--blank", "zeros", "--skip-errors")
    result = embed("--jsonl", "t", "a.jsonl", *options, "-o", "out.npy")
    assert result.exit_code == 3
    assert "2 skipped:\n  a.jsonl:2 field 't' is no text but int\n  a.jsonl:3 has " in result.stderr
    np.testing.assert_array_equal(np.load("out.npy").any(axis=1), [True, False, False, False, True])


def test_skip_errors_still_lists_blank_texts():
    result = embed("--csv", "text", "t.csv", "--skip-errors")
    assert (result.exit_code, "1 skipped:\n  t.csv:3 has no text in it\n" in result.stderr) == (3, True)


@pytest.mark.parametrize("blank", ["zeros", "skip"])
@pytest.mark.parametrize("name", ["out.npy", "out.jsonl"])
def test_a_run_with_blank_texts_is_continued(name, blank, tmp_path):
    def files():
        return {path.name: path.read_bytes() for path in tmp_path.glob("out*")}

    options = ("--csv", "text", "t.csv", "--blank", blank, "--keep", "label", "-d", 32, "-o", name)
    assert embed(*options).exit_code == 0
    whole = files()
    for path in tmp_path.glob("out*"):
        path.unlink()
    write(tmp_path, {"t.csv": "".join(TABLE.splitlines(keepends=True)[:3])})  # the text, and the blank one
    assert embed(*options).exit_code == 0
    write(tmp_path, {"t.csv": TABLE})
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


# What is offered.


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


def test_names_to_keep_are_parted_by_full_width_commas_too(tmp_path):
    write(tmp_path, {"t.csv": "text,部门,日期\none,市场,1月\n"})
    result = embed("--csv", "text", "t.csv", "--keep", "部门，日期")
    assert result.exit_code == 0, result.stderr
    assert [(one["部门"], one["日期"]) for one in records(result.stdout)] == [("市场", "1月")]


def test_nothing_is_offered_of_a_table_without_any_text(tmp_path):
    write(tmp_path, {"e.csv": "text,n\n,1\n,2\n"})
    result = embed("--csv", "text", "e.csv")
    assert (result.exit_code, result.stderr) == (1, "Error: 2 of 2 texts are blank: e.csv:2, e.csv:3\n")
    for blank in ("skip", "zeros"):
        for piped in (("e.csv",), ()):
            result = embed("--csv", "text", *piped, "--blank", blank, input=None if piped else "text,n\n,1\n")
            assert (result.exit_code, "all of them are blank" in result.stderr) == (1, True)


# Encodings and delimiters, from the command line.


def test_a_gbk_table_is_embedded_and_said_so_once():
    result = embed("--csv", "文本", "gbk.csv", "--keep", "标签")
    got = records(result.stdout)
    assert [one["标签"] for one in got] == ["好", "坏"]
    np.testing.assert_array_equal([one["embedding"] for one in got], vectors("第三季度预算已获批准", "办公室搬迁"))
    assert result.stderr.count("gbk.csv: read as GB18030, not UTF-8; if that is wrong, give --encoding\n") == 1
    assert embed("--csv", "文本", "gbk.csv", "-q").stderr == ""


@pytest.mark.parametrize("name", ["semicolon", ";"])
def test_delimiter_and_encoding_are_options(name):
    result = embed("--csv", "文本", "gbk.csv", "--delimiter", name, "--encoding", "gbk", "-q")
    assert len(records(result.stdout)) == 2


def test_a_table_without_its_column_is_hinted_at(tmp_path):
    write(tmp_path, {"t.tsv": "text\nmore\n"})
    assert "t.tsv is embedded as one text; for its records give --csv COLUMN" in embed("t.tsv").stderr


# The jobs read the same.


def excel(name, *table):
    with xlsxwriter.Workbook(name) as book:
        page = book.add_worksheet("S")
        for place, row in enumerate(table):
            page.write_row(place, 0, row)


@pytest.mark.parametrize("command", ["similar", "duplicates", "cluster", "match"])
def test_jobs_read_tables_of_every_kind(command, tmp_path):
    texts = ["第三季度预算已获批准", "办公室搬迁推迟到五月", "the cat sat"]
    table = "".join(f"{n}|{text}\n" for n, text in enumerate(["文本", *texts]))
    write(tmp_path, {"a.csv": table.encode("gbk"), "b.csv": table, "phrases.txt": texts[0]})
    pyarrow.parquet.write_table(pyarrow.table({"文本": texts}), "c.parquet")
    excel("d.xlsx", ["文本"], *([text] for text in texts))
    answers = []
    for name in ("a.csv", "b.csv", "c.parquet", "d.xlsx"):
        inputs = {"similar": ("--file", name), "match": (name, "phrases.txt")}.get(command, (name,))
        more = {"cluster": ("-k", "2"), "duplicates": ("--threshold", "-1")}.get(command, ())
        result = run(command, *inputs, "--csv", "文本", *more, "--json")
        assert result.exit_code == 0, result.output
        assert ("read as GB18030" in result.stderr) == (name == "a.csv")
        answers.append(result.stdout.replace(name, "it"))
    found = [[{key: value for key, value in json.loads(line).items() if key not in ("line", "id")}
              for line in answer.splitlines()] for answer in answers]  # fmt: skip
    texts_of = [json.dumps(one, ensure_ascii=False) for one in found]
    assert all("第三季度预算" in one for one in texts_of)
    if command in ("similar", "match"):
        assert found[1:] == found[:1] * 3


def test_a_job_names_what_fails_and_offers_what_helps(tmp_path):
    write(tmp_path, {"e.csv": "text,n\n,1\n,2\n", "two.csv": "text,n\none,0\n,1\n,2\n"})
    result = run("duplicates", "two.csv", "--csv", "text")
    assert result.stderr == (
        "Error: 2 of 3 texts are blank: two.csv:3, two.csv:4; go on without them: --skip-errors\n"
    )
    assert "--skip-errors" not in run("duplicates", "e.csv", "--csv", "text").stderr


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


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "utf-8-sig", "utf-8"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_pairs_of_every_table_come_out_as_they_are(encoding, delimiter, tmp_path):
    lines = [
        "编号;听到;写的\r\n",
        '1;"预算；获批";预算；获批\r\n',
        "2;办公室搬迁;the cat sat\r\n",
        "3;再开会;再开会。\r\n",
    ]
    raw = [
        line.replace(";", delimiter).encode(encoding if n == 0 else encoding.replace("-sig", ""))
        for n, line in enumerate(lines)
    ]
    if encoding == "utf-16":  # one mark, and the bytes of this machine
        raw = [raw[0], *(line[2:] for line in raw[1:])]
    write(tmp_path, {"p.csv": b"".join(raw)})
    result = run("filter-pairs", "p.csv", "听到", "写的", "--threshold", "0.6", "-o", "k.csv", "--dropped", "d.csv")
    assert result.exit_code == 0, result.output
    assert Path("k.csv").read_bytes() == raw[0] + raw[1] + raw[3]
    assert Path("d.csv").read_bytes() == raw[0] + raw[2]
    assert ("p.csv was read and written as" in result.stderr) == (not encoding.startswith("utf-8"))


def test_a_score_is_written_in_the_encoding_of_the_table_below_the_line_of_excel(tmp_path):
    raw = "sep=;\r\n编号;听到;写的\r\n1;第三季度预算;第三季度预算\r\n".encode("gbk")
    write(tmp_path, {"p.csv": raw})
    result = run("filter-pairs", "p.csv", "听到", "写的", "--score", "分数", "-o", "k.csv")
    assert result.exit_code == 0, result.output
    mark, header, row = Path("k.csv").read_bytes().decode("gbk").splitlines()
    assert (mark, header) == ("sep=;", "编号;听到;写的;分数")
    assert row.startswith("1;第三季度预算;第三季度预算;")
    assert float(row.rpartition(";")[2]) == pytest.approx(1, abs=1e-5)


def test_bytes_that_are_not_of_the_encoding_are_refused_where_they_cannot_come_out_again(tmp_path):
    raw = "甲;乙;注\n预算获批;预算获批;好\n".encode("gbk") + b"\xd4\xa4;\xd4\xa4;\xff\n"
    write(tmp_path, {"p.csv": raw})
    result = run("filter-pairs", "p.csv", "甲", "乙", "--encoding", "gbk", "-o", "k.csv")
    assert (result.exit_code, "p.csv:3 is not GB18030" in result.stderr) == (1, True), result.stderr
    assert not Path("k.csv").exists()
