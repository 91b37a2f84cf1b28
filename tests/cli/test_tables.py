"""Tables through `embed` and the jobs: columns that are kept, encodings, delimiters, and tables of every kind."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import job_texts
import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import xlsxwriter
from command import embed, expected, records, run, write

GBK = "编号;文本;标签\n1;第三季度预算已获批准;好\n2;办公室搬迁;坏\n".encode("gbk")


@pytest.fixture(autouse=True)
def _tables(table, tmp_path):
    write(tmp_path, {"gbk.csv": GBK})


def test_columns_are_kept_in_json_lines():
    got = records(embed("--csv", "text", "t.csv", "--keep", "label,date", "--blank", "skip").stdout)
    kept = [(record["index"], record["label"], record["date"]) for record in got]
    assert kept == [(0, "good", "2024-01-31"), (2, "", "2024-02-01")]
    np.testing.assert_array_equal([record["embedding"] for record in got], expected(["one", "three"]).vectors)


def test_columns_are_kept_in_csv_json_and_beside_an_array():
    options = ("--csv", "text", "t.csv", "--keep", "date", "--keep", "label", "--blank", "skip", "-d", 32)
    got = job_texts.table(embed(*options, "--format", "csv").stdout)
    assert [(row["date"], row["label"]) for row in got] == [("2024-01-31", "good"), ("2024-02-01", "")]
    assert list(got[0])[:7] == ["index", "id", "tokens", "truncated", "date", "label", "e0"]
    (first, second) = json.loads(embed(*options, "--format", "json").stdout)["data"]
    assert (first["label"], second["date"], first["object"]) == ("good", "2024-02-01", "embedding")
    assert embed(*options, "-o", "out.npy").exit_code == 0
    beside = [json.loads(line) for line in Path("out.npy.rows.jsonl").read_text().splitlines()]
    assert [(record["row"], record["index"], record["label"]) for record in beside] == [(0, 0, "good"), (1, 2, "")]


def test_fields_of_json_are_kept_as_they_are(tmp_path):
    values = [{"n": 1.5, "tags": ["a", {"b": None}], "who": "我", "ok": True}, {"n": None}]
    lines = [json.dumps({"t": f"text {n}"} | fields) for n, fields in enumerate(values)]
    write(tmp_path, {"a.jsonl": "\n".join(lines)})
    options = ("--jsonl", "t", "a.jsonl", "--keep", "n,tags,who,ok")
    got = records(embed(*options).stdout)
    kept = [{name: record[name] for name in values[0]} for record in got]
    assert kept == [values[0], dict.fromkeys(values[0])]
    (first, second) = job_texts.table(embed(*options, "--format", "csv").stdout)
    assert [first[name] for name in values[0]] == ["1.5", '["a",{"b":null}]', "我", "true"]
    assert {second[name] for name in values[0]} == {""}


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
    (record,) = records(embed("--csv", "text", "t.xlsx", "--keep", "n,day,ok,none").stdout)
    kept = [record[name] for name in ("id", "n", "day", "ok", "none")]
    assert kept == ["t.xlsx:2", 2.5, "2024-01-31", True, None]
    np.testing.assert_array_equal(record["embedding"], expected(["一"]).vectors[0])


def test_a_row_whose_text_is_an_error_of_excel_keeps_its_id_and_columns():
    book = openpyxl.Workbook()
    for row in (["key", "text", "n"], ["a", "#N/A", 7], ["b", "one", 8]):
        book.active.append(row)
    book.save("t.xlsx")
    options = ("--csv", "text", "--id", "key", "t.xlsx", "--keep", "n")
    got = records(embed(*options, "--blank", "zeros").stdout)
    assert [(record["id"], record["n"], record.get("blank")) for record in got] == [("a", 7, True), ("b", 8, None)]
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


@pytest.mark.parametrize(
    ("header", "names", "kept"),
    [('"a, b",c', '"a, b"', {"a, b": "x"}), ("部门,日期", "部门，日期", {"部门": "x", "日期": "y"})],
    ids=["a comma in quotes", "a full-width comma"],
)
def test_names_are_parted_by_commas_of_both_widths_and_quoted_where_they_have_one(header, names, kept, tmp_path):
    write(tmp_path, {"c.csv": f"text,{header}\none,x,y\n"})
    (record,) = records(embed("--csv", "text", "c.csv", "--keep", names).stdout)
    assert {name: record[name] for name in kept} == kept


def test_a_field_to_keep_that_no_record_has_is_a_mistake(tmp_path):
    write(tmp_path, {"a.jsonl": '{"t": "one", "label": 1}\n{"t": "two"}\n'})
    result = embed("--jsonl", "t", "a.jsonl", "--keep", "labels")
    assert (result.exit_code, result.stderr) == (1, "Error: no record has the field 'labels' to keep\n")


def test_a_gbk_table_is_embedded_and_said_so_once():
    result = embed("--csv", "文本", "gbk.csv", "--keep", "标签")
    got = records(result.stdout)
    assert [record["标签"] for record in got] == ["好", "坏"]
    np.testing.assert_array_equal(
        [record["embedding"] for record in got], expected(["第三季度预算已获批准", "办公室搬迁"]).vectors
    )
    assert result.stderr.count("gbk.csv: read as GB18030, not UTF-8; if that is wrong, give --encoding\n") == 1
    assert embed("--csv", "文本", "gbk.csv", "-q").stderr == ""
    for name in ("semicolon", ";"):
        same = embed("--csv", "文本", "gbk.csv", "--delimiter", name, "--encoding", "gbk", "--keep", "标签")
        assert same.stdout == result.stdout


@pytest.mark.parametrize("command", ["similar --file", "duplicates --threshold -1", "cluster -k 2"])
def test_jobs_read_tables_of_every_kind(command, tmp_path):
    texts = ["第三季度预算已获批准", "办公室搬迁推迟到五月", "the cat sat"]
    table = "".join(f"{n}|{text}\n" for n, text in enumerate(["文本", *texts]))
    write(tmp_path, {"a.csv": table.encode("gbk"), "b.csv": table})
    pyarrow.parquet.write_table(pyarrow.table({"文本": texts}), "c.parquet")
    with xlsxwriter.Workbook("d.xlsx") as book:
        book.add_worksheet("S").write_column(0, 0, ["文本", *texts])
    for name in ("a.csv", "b.csv", "c.parquet", "d.xlsx"):
        result = run(*command.split(), name, "--csv", "文本", "--json")
        assert result.exit_code == 0, result.output
        assert [text for text in texts if text not in result.stdout] == []
        assert ("read as GB18030" in result.stderr) == (name == "a.csv")


def test_a_job_names_what_fails_and_offers_what_helps(tmp_path):
    write(tmp_path, {"e.csv": "text,n\n,1\n,2\n", "two.csv": "text,n\none,0\n,1\n,2\n"})
    result = run("duplicates", "two.csv", "--csv", "text")
    said = "2 of 3 texts are blank: two.csv:3, two.csv:4; go on without them: --skip-errors"
    assert result.stderr == f"Error: {said}\n"
    assert "--skip-errors" not in run("duplicates", "e.csv", "--csv", "text").stderr
