"""Records of Parquet files and Excel workbooks: rows, types, sheets, and what is wrong with a file."""

from __future__ import annotations

import sys
import zipfile
from datetime import date, datetime, time, timedelta

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import xlsxwriter
from command import texts_of, write

from q3e_local.cli.texts import Layout, find
from q3e_local.errors import Q3EError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Parquet.


def parquet(name, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), name, row_group_size=2)


def test_parquet_is_read_row_by_row():
    texts = pyarrow.array(["one", "二", None, " ", "five"])
    parquet("t.parquet", id=[7, 8, 9, 10, 11], text=texts, n=[1.5] * 5)
    assert texts_of("t.parquet", column="text") == {
        "t.parquet:1": "one", "t.parquet:2": "二", "t.parquet:3": "! has no text in it",
        "t.parquet:4": "! has no text in it", "t.parquet:5": "five",
    }  # fmt: skip
    assert list(texts_of("t.parquet", column="text", id_field="id"))[:2] == ["7", "8"]


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())])
def test_parquet_stores_texts_in_several_ways(kind):
    parquet("t.parquet", text=pyarrow.array(["one", "two", "one"]).cast(kind))
    assert list(texts_of("t.parquet", column="text").values()) == ["one", "two", "one"]


def test_the_rows_of_a_parquet_file_share_its_bytes():
    parquet("t.parquet", text=["one", "two", "three"])
    source = find(["t.parquet"], [], None, Layout(column="text"))
    assert sum(item.n_bytes for item in source.read()) == source.n_bytes()


def test_a_faulty_parquet_file_is_refused_with_the_reason(tmp_path):
    parquet("t.parquet", text=["one"], n=[1])
    write(tmp_path, {"broken.parquet": (tmp_path / "t.parquet").read_bytes()[:-9] + b"PAR1"})
    assert texts_of("t.parquet", column="n") == {"t.parquet": "! has no text in the column 'n' but int64"}
    assert texts_of("t.parquet", column="texts")["t.parquet"] == (
        "! has no column 'texts'; its columns are text, n; the nearest is 'text'"
    )
    assert texts_of("broken.parquet", column="text")["broken.parquet"].startswith("! cannot be read as Parquet (")
    for layout in ({}, {"lines": True}):
        assert texts_of("t.parquet", **layout) == {"t.parquet": "! is Parquet; for its rows give --csv COLUMN"}
    (tmp_path / "t.parquet").rename("t.csv")
    assert texts_of("t.csv", column="text") == {"t.csv": "! is Parquet; name a file that ends in .parquet"}


# Excel.


def workbook(name, rows, sheet="Sheet1", **others):
    """A workbook by xlsxwriter, since openpyxl is what reads it."""
    with xlsxwriter.Workbook(name, {"default_date_format": "yyyy-mm-dd", "in_memory": True}) as book:
        for title, cells in {sheet: rows, **others}.items():
            page = book.add_worksheet(title)
            for place, row in enumerate(cells):
                page.write_row(place, 0, row)


def test_a_workbook_is_read_by_the_names_in_its_first_row():
    workbook("t.xlsx", [["id", "文本", "n"], ["a", "第三季度预算", 1], ["b", "two\nlines", 2], ["c", None, 3]])
    assert texts_of("t.xlsx", column="文本") == {
        "t.xlsx:2": "第三季度预算", "t.xlsx:3": "two\nlines", "t.xlsx:4": "! has no text in it",
    }  # fmt: skip
    assert list(texts_of("t.xlsx", column="文本", id_field="id")) == ["a", "b", "c"]


@pytest.mark.parametrize("n_rows", [1, 7, 300])
def test_the_rows_of_a_workbook_share_its_bytes(n_rows):
    workbook("t.xlsx", [["text"], *([f"text {n}"] for n in range(n_rows))])
    source = find(["t.xlsx"], [], None, Layout(column="text"))
    shares = [item.n_bytes for item in source.read()]
    assert source.n_bytes() // 2 - n_rows <= sum(shares) <= source.n_bytes()
    assert len(set(shares)) == 1


def test_rows_are_counted_as_excel_counts_them_and_those_without_values_are_none():
    workbook("t.xlsx", [[], [], ["text"], ["one"], [], ["two"], [None], [None]])
    assert texts_of("t.xlsx", column="text") == {"t.xlsx:4": "one", "t.xlsx:6": "two"}


def test_cells_that_are_no_text_are_read_as_excel_shows_them():
    book = openpyxl.Workbook()
    values = [
        13800138000, 13800138000.0, 2.5, True, date(2024, 1, 31), datetime(2024, 1, 31, 13, 5), time(9, 30),
        timedelta(hours=30), "01",
    ]  # fmt: skip
    for row in [["text"], *([value] for value in values)]:
        book.active.append(row)
    book.save("t.xlsx")
    assert list(texts_of("t.xlsx", column="text").values()) == [
        "13800138000", "13800138000", "2.5", "TRUE", "2024-01-31", "2024-01-31 13:05:00", "09:30:00",
        "1 day, 6:00:00", "01",
    ]  # fmt: skip


def test_an_error_of_excel_is_no_text():
    book = openpyxl.Workbook()
    for cell, value in {"A1": "text", "A2": "#N/A", "A3": "one"}.items():
        book.active[cell] = value
    book.save("t.xlsx")
    assert texts_of("t.xlsx", column="text") == {
        "t.xlsx:2": "! has Excel's error #N/A in the column 'text'", "t.xlsx:3": "one",
    }  # fmt: skip


def test_the_first_sheet_is_read_or_the_sheet_of_the_option():
    workbook("t.xlsx", [["text"], ["one"]], "January", February=[["text"], ["two"]])
    said = []
    assert texts_of("t.xlsx", said.append, column="text") == {"t.xlsx:2": "one"}
    assert said == ["t.xlsx: the sheet 'January' is read, the first of 2; --sheet names another"]
    assert texts_of("t.xlsx", said.append, column="text", sheet="February") == {"t.xlsx:2": "two"}
    assert len(said) == 1
    assert texts_of("t.xlsx", column="text", sheet="Febuary") == {
        "t.xlsx": "! has no sheet 'Febuary'; its sheets are January, February; the nearest is 'February'"
    }


def test_a_workbook_that_is_wrong_about_its_size_is_read_whole(tmp_path):
    workbook("t.xlsx", [["text", "n"], ["one", 1], ["two", 2]])
    with zipfile.ZipFile("t.xlsx") as source, zipfile.ZipFile("u.xlsx", "w") as target:
        for part in source.infolist():
            raw = source.read(part)
            target.writestr(part.filename, raw.replace(b'<dimension ref="A1:B3"/>', b'<dimension ref="A1"/>'))
            assert part.filename != "xl/worksheets/sheet1.xml" or b"A1:B3" in raw
    assert texts_of("u.xlsx", column="text", id_field="n") == {"1": "one", "2": "two"}


def test_a_faulty_workbook_is_refused_with_the_reason(tmp_path):
    workbook("t.xlsx", [["text"], ["one"]])
    old = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    write(tmp_path, {"old.xlsx": old, "old.csv": old})
    write(tmp_path, {"broken.xlsx": (tmp_path / "t.xlsx").read_bytes()[:300], "empty.xlsx": b""})
    refused = "! is encrypted, or from Excel 2003 or before; save it as .xlsx without a password"
    assert texts_of("old.xlsx", column="text") == {"old.xlsx": refused}
    refused = "! is an Excel workbook of 2003 or before; save it as .xlsx"
    assert texts_of("old.csv", column="text") == {"old.csv": refused}
    for name in ("broken.xlsx", "empty.xlsx"):
        assert texts_of(name, column="text")[name].startswith("! cannot be read as an Excel workbook (")
    assert texts_of("t.xlsx", lines=True) == {"t.xlsx": "! is an Excel workbook; for its rows give --csv COLUMN"}
    assert texts_of("t.xlsx") == {"t.xlsx": "Sheet1\n\ntext\n\none"}
    (tmp_path / "t.xlsx").rename("t.csv")
    assert texts_of("t.csv", column="text")["t.csv"].startswith("! is a zip file, as Excel workbooks and")


def test_a_package_that_is_missing_is_answered_with_the_way_to_get_it(monkeypatch, tmp_path):
    write(tmp_path, {"t.parquet": b"PK"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Q3EError) as error:
        texts_of("t.parquet", column="text")
    assert str(error.value) == "reading Parquet needs pyarrow; install it with: pip install 'q3e-local[parquet]'"
