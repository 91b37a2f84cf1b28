"""Tables and texts as people have them: delimiters, encodings, Excel's and Parquet's cells. Read without a model."""

from __future__ import annotations

import io
import os
import sys
import threading
import zipfile
from datetime import date, datetime, time, timedelta

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import xlsxwriter
from command import write

from q3e_local.cli.texts import Layout, find
from q3e_local.errors import OptionError, Q3EError
from q3e_local.reading.delimiters import choose


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(name, tell=lambda line: None, **layout):
    """Id and text of each record, or its problem."""
    items = find([str(name)], [], None, Layout(**layout)).read(tell)
    return {item.id: item.text if item.problem is None else f"! {item.problem}" for item in items}


# name: the table, and what the column `text` of it has.
TABLES = {
    "commas": ("id,text\n1,one\n2,two\n", ["one", "two"]),
    "semicolons": ("id;text\n1;one, and more\n2;two, too\n", ["one, and more", "two, too"]),
    "semicolons and decimal commas": ("id;price;text\n1;2,50;one\n2;3,75;two\n", ["one", "two"]),
    "tabs": ("id\ttext\n1\tone; two, three\n", ["one; two, three"]),
    "bars": ("id|text\n1|one,two;three\n", ["one,two;three"]),
    "quoted delimiters": ('text;n\n"one; ""two""\nthree";1\nfour;2\n', ['one; "two"\nthree', "four"]),
    "a column by itself": ("text\none\ntwo\n", ["one", "two"]),
    "a column by itself, with commas in it": ("text\none, two\nthree\n", ["one, two", "three"]),
    "a column by itself, with commas in every row": ("text\none, two\nthree, four\n", ["one, two", "three, four"]),
    "a column by itself, in quotes": ('text\n"one, two"\n"three"\n', ["one, two", "three"]),
    "a header and nothing else": ("id;text\n", []),
    "more semicolons than commas": ("id,text\n1,a;b;c;d\n2,e;f;g;h\n", ["a;b;c;d", "e;f;g;h"]),
    "the line that Excel writes first": ("sep=;\nid;text\n1;one\n", ["one"]),
    "the same of a bar, with a byte order mark": ("\ufeffsep=|\r\nid|text\r\n1|one,two\r\n", ["one,two"]),
    "rows of other lengths": ("id;text;n\n1;one\n2;two;2;3\n", ["one", "two"]),
}


@pytest.mark.parametrize(("table", "texts"), TABLES.values(), ids=TABLES)
def test_the_delimiter_is_found(table, texts, tmp_path):
    write(tmp_path, {"t.csv": table})
    assert list(read("t.csv", column="text").values()) == texts


def test_lines_are_counted_with_the_first_one_of_excel(tmp_path):
    write(tmp_path, {"t.csv": 'sep=;\nid;text\n1;"one\nmore"\n2;two\n'})
    assert read("t.csv", column="text") == {"t.csv:3": "one\nmore", "t.csv:5": "two"}


def test_a_delimiter_that_is_given_is_taken(tmp_path):
    write(
        tmp_path, {"t.csv": "text,id;n\none,1;1\n", "t.txt": "text^n\none^1\n", "sep.csv": "sep=;\ntext,n\none,2\n"}
    )
    assert read("t.csv", column="text,id", delimiter=";") == {"t.csv:2": "one,1"}
    assert read("t.txt", column="text", delimiter="^") == {"t.txt:2": "one"}
    assert read("sep.csv", column="text", delimiter=",") == {"sep.csv:3": "one"}


def test_a_tsv_has_tabs_and_quotes_in_it_are_characters_unless_they_enclose(tmp_path):
    write(
        tmp_path,
        {
            "a.tsv": 'text\tn\n"Hello", she said\t1\nfive "inches\t2\n',
            "b.tsv": 'text\tn\n"one\ttwo"\t1\n',
            "c.tsv": "text\none, two\n",
        },
    )
    assert list(read("a.tsv", column="text").values()) == ['"Hello", she said', 'five "inches']
    assert list(read("b.tsv", column="text").values()) == ["one\ttwo"]
    assert list(read("c.tsv", column="text").values()) == ["one, two"]


def test_what_is_cut_at_the_end_of_the_sample_says_nothing():
    assert choose('id;text\n1;one\n2;"two, thr', False, ["text"]) == ";"
    assert choose("text\none\ntwo, thr", False, ["text"]) == ","  # the row may go on


def test_a_column_that_is_missing_is_named_with_those_there_are_and_the_nearest(tmp_path):
    write(tmp_path, {"t.csv": "id;titel;text\n1;x;one\n", "many.csv": ",".join(f"c{n}" for n in range(100)) + "\n"})
    assert read("t.csv", column="title") == {
        "t.csv": "! has no column 'title'; its columns are id, titel, text; the nearest is 'titel'"
    }
    assert read("many.csv", column="zz")["many.csv"].endswith("c28, c29 and 70 more")


def test_a_column_there_twice_is_no_answer(tmp_path):
    write(tmp_path, {"t.csv": "text,text\none,two\n"})
    assert read("t.csv", column="text") == {"t.csv": "! has 2 columns named 'text'; give all but one another name"}


CHINESE = "编号,文本\n1,第三季度预算已获批准\n2,办公室搬迁推迟到五月\n"


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-16", "utf-16-be", "utf-8", "utf-8-sig", "utf-32"])
def test_the_encoding_of_a_table_is_found_and_said(encoding, tmp_path):
    raw = CHINESE.encode(encoding)
    write(tmp_path, {"t.csv": b"\xfe\xff" + raw if encoding == "utf-16-be" else raw})
    said = []
    found = read("t.csv", said.append, column="文本")
    assert found == {"t.csv:2": "第三季度预算已获批准", "t.csv:3": "办公室搬迁推迟到五月"}
    name = {"gbk": "GB18030", "utf-16-be": "UTF-16"}.get(encoding, encoding.upper())
    assert said == ([] if "8" in name and "UTF" in name else [
        f"t.csv: read as {name}, not UTF-8; if that is wrong, give --encoding"
    ])  # fmt: skip


def test_lines_json_and_whole_files_are_read_in_their_encoding_too(tmp_path):
    write(
        tmp_path,
        {
            "lines.txt": "预算\r\n\r\n搬迁\r\n".encode("utf-16"),
            "gbk.txt": "第三季度的预算已经获得批准\n办公室搬迁推迟\n".encode("gbk"),
            "a.jsonl": '{"t": "预算"}\n{"t": "搬迁"}\n'.encode("utf-16"),
        },
    )
    assert read("lines.txt", lines=True) == {"lines.txt:1": "预算", "lines.txt:3": "搬迁"}
    assert read("gbk.txt", lines=True) == {"gbk.txt:1": "第三季度的预算已经获得批准", "gbk.txt:2": "办公室搬迁推迟"}
    assert read("gbk.txt") == {"gbk.txt": "第三季度的预算已经获得批准\n办公室搬迁推迟"}
    assert read("a.jsonl", jsonl="t") == {"a.jsonl:1": "预算", "a.jsonl:2": "搬迁"}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"text\ncaf\xe9 au lait\n", "field 'text' is not UTF-8"),  # Latin, and one byte is no evidence
        ("text\n第三季度的预算\n".encode("gbk"), "field 'text' is not UTF-8"),  # a few are none either
        ("text\n예산이 승인\n".encode("euc_kr"), "field 'text' is not UTF-8"),  # as good as 抗魂捞 铰牢
        ("text\n予算が承認されました\n".encode("shift_jis"), "field 'text' is not UTF-8"),
        ("text\nБюджет утверждён\n".encode("cp1251"), "field 'text' is not UTF-8"),
        (b"text\n" + "预算获批\n".encode() * 9 + "预算获批\n".encode("gbk"), "field 'text' is not UTF-8"),
    ],
    ids=["latin-1", "a word of GBK", "Korean", "Shift-JIS", "Cyrillic", "UTF-8 with a line of GBK"],
)
def test_what_is_not_certain_is_not_guessed(raw, said, tmp_path):
    write(tmp_path, {"t.csv": raw})
    assert list(read("t.csv", column="text").values())[-1].startswith(f"! {said}")


@pytest.mark.parametrize("encoding", ["gbk", "big5", "shift_jis", "cp1251", "utf-16-le"])
def test_an_encoding_that_is_given_is_taken(encoding, tmp_path):
    text = {"big5": "預算", "shift_jis": "予算が", "cp1251": "Бюджет"}.get(encoding, "价")
    write(tmp_path, {"t.csv": f"id,text\n1,{text}\n".encode(encoding)})
    from q3e_local.cli.texts.layout import encoding_of

    said = []
    assert read("t.csv", said.append, column="text", encoding=encoding_of(encoding)) == {"t.csv:2": text}
    assert said == []


def test_a_byte_order_mark_is_believed_before_an_option(tmp_path):
    write(tmp_path, {"t.csv": CHINESE.encode("utf-8-sig")})
    said = []
    assert "第三季度预算已获批准" in read("t.csv", said.append, column="文本", encoding="gb18030").values()
    assert said == ["t.csv: read as UTF-8, as its byte order mark says, not as GB18030"]


def test_a_wrong_byte_spoils_its_own_record_in_every_encoding(tmp_path):
    rows = ["文本,编号", "第三季度预算,1", "办公室搬迁,2", "招聘计划,3"]
    gbk = [row.encode("gbk") for row in rows]
    gbk[2] = gbk[2].replace("搬".encode("gbk"), b"\xff\xff")
    write(tmp_path, {"t.csv": b"\n".join(gbk)})
    assert list(read("t.csv", column="文本", encoding="gb18030").values()) == [
        "第三季度预算", "! field '文本' is not GB18030", "招聘计划",
    ]  # fmt: skip
    lone = "一\n".encode("utf-16-le") + b"\x3d\xd8" + "二\n三\n".encode("utf-16-le")  # half of a pair
    write(tmp_path, {"u.txt": b"\xff\xfe" + lone})
    assert list(read("u.txt", lines=True).values()) == ["一", "! is not UTF-16", "三"]


def test_chinese_far_behind_the_beginning_of_a_file_is_found(tmp_path):
    rows = "id,text\n" + "".join(f"{n},plain words\n" for n in range(200_000))
    write(tmp_path, {"t.csv": rows.encode() + "x,第三季度的预算已经获得批准办公室搬迁\n".encode("gbk")})
    assert len(rows) > 1 << 21
    assert read("t.csv", column="text")["t.csv:200002"] == "第三季度的预算已经获得批准办公室搬迁"


def test_characters_on_the_edges_of_what_is_read_at_a_time(tmp_path):
    line = "第三季度预算已获批准办公室搬迁推迟到五月"
    raw = ("a" + f"{line}\n" * 20_000).encode("gb18030")
    write(tmp_path, {"t.txt": raw, "u.txt": ("\ufeff" + f"{line}\n" * 20_000).encode("utf-16-le")})
    assert list(read("t.txt", lines=True).values()) == ["a" + line] + [line] * 19_999
    assert set(read("u.txt", lines=True).values()) == {line}


class Pipe(io.RawIOBase):
    """A pipe that gives one piece at a time."""

    def __init__(self, *pieces):
        self._pieces = list(pieces)

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._pieces.pop(0) if self._pieces else b""
        buffer[: len(data)] = data
        return len(data)


class _Stdin:
    def __init__(self, *pieces):
        self.buffer = io.BufferedReader(Pipe(*pieces))

    def isatty(self):
        return False


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16"])
def test_a_pipe_shows_its_encoding_when_it_comes_to_it(encoding, monkeypatch):
    text = "id,text\n1,plain words\n2,第三季度预算已获批准\n3,办公室搬迁推迟\n".encode(encoding)
    monkeypatch.setattr(sys, "stdin", _Stdin(text[:9], text[9:30], text[30:]))
    said = []
    assert list(read("-", said.append, column="text").values()) == [
        "plain words",
        "第三季度预算已获批准",
        "办公室搬迁推迟",
    ]
    assert len(said) == (encoding != "utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipes there")
def test_the_first_record_of_a_pipe_is_read_before_the_second_is_written(monkeypatch):
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stdin, os.fdopen(theirs, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": stdin, "isatty": lambda self: False})())
        writer.write(b"one\n")
        items = find(["-"], [], None, Layout(lines=True)).read()
        reader = threading.Thread(target=lambda: first.append(next(items)), daemon=True)
        first = []
        reader.start()
        reader.join(60)
        assert [item.text for item in first] == ["one"]
        writer.write(b"two\n")
        writer.close()
        assert [item.text for item in items] == ["two"]


def test_many_files_in_another_encoding_are_not_all_named(tmp_path):
    write(tmp_path, {f"n/{n}.txt": "第三季度的预算已经获得批准办公室搬迁".encode("gbk") for n in range(9)})
    said = []
    assert len(read("n", said.append)) == 9
    assert [line.split(":")[0] for line in said] == [f"n/{n}.txt" for n in range(5)] + [
        "more files like these are not named"
    ]


# Parquet.


def parquet(name, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), name, row_group_size=2)


def test_parquet_is_read_row_by_row():
    texts = pyarrow.array(["one", "二", None, " ", "five"])
    parquet("t.parquet", id=[7, 8, 9, 10, 11], text=texts, n=[1.5] * 5)
    assert read("t.parquet", column="text") == {
        "t.parquet:1": "one", "t.parquet:2": "二", "t.parquet:3": "! has no text in it",
        "t.parquet:4": "! has no text in it", "t.parquet:5": "five",
    }  # fmt: skip
    assert list(read("t.parquet", column="text", id_field="id"))[:2] == ["7", "8"]


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())])
def test_parquet_stores_texts_in_several_ways(kind):
    parquet("t.parquet", text=pyarrow.array(["one", "two", "one"]).cast(kind))
    assert list(read("t.parquet", column="text").values()) == ["one", "two", "one"]


def test_the_rows_of_a_parquet_file_share_its_bytes():
    parquet("t.parquet", text=["one", "two", "three"])
    source = find(["t.parquet"], [], None, Layout(column="text"))
    assert sum(item.n_bytes for item in source.read()) == source.n_bytes()


def test_what_is_wrong_with_a_parquet_file_is_said(tmp_path):
    parquet("t.parquet", text=["one"], n=[1])
    write(tmp_path, {"broken.parquet": (tmp_path / "t.parquet").read_bytes()[:-9] + b"PAR1"})
    assert read("t.parquet", column="n") == {"t.parquet": "! has no text in the column 'n' but int64"}
    assert read("t.parquet", column="texts")["t.parquet"] == (
        "! has no column 'texts'; its columns are text, n; the nearest is 'text'"
    )
    assert read("broken.parquet", column="text")["broken.parquet"].startswith("! cannot be read as Parquet (")
    assert read("t.parquet") == {"t.parquet": "! is Parquet; for its rows give --csv COLUMN"}
    assert read("t.parquet", lines=True) == {"t.parquet": "! is Parquet; for its rows give --csv COLUMN"}
    (tmp_path / "t.parquet").rename("t.csv")
    assert read("t.csv", column="text") == {"t.csv": "! is Parquet; name a file that ends in .parquet"}


# Excel.


def workbook(name, rows, sheet="Sheet1", **others):
    """Written by another library than the one that reads it."""
    with xlsxwriter.Workbook(name, {"default_date_format": "yyyy-mm-dd", "in_memory": True}) as book:
        for title, cells in {sheet: rows, **others}.items():
            page = book.add_worksheet(title)
            for place, row in enumerate(cells):
                page.write_row(place, 0, row)


def test_a_workbook_is_read_by_the_names_in_its_first_row():
    workbook("t.xlsx", [["id", "文本", "n"], ["a", "第三季度预算", 1], ["b", "two\nlines", 2], ["c", None, 3]])
    assert read("t.xlsx", column="文本") == {
        "t.xlsx:2": "第三季度预算", "t.xlsx:3": "two\nlines", "t.xlsx:4": "! has no text in it",
    }  # fmt: skip
    assert list(read("t.xlsx", column="文本", id_field="id")) == ["a", "b", "c"]


@pytest.mark.parametrize("n_rows", [1, 7, 300])
def test_the_rows_of_a_workbook_share_its_bytes(n_rows):
    workbook("t.xlsx", [["text"], *([f"text {n}"] for n in range(n_rows))])
    source = find(["t.xlsx"], [], None, Layout(column="text"))
    shares = [item.n_bytes for item in source.read()]
    assert source.n_bytes() // 2 - n_rows <= sum(shares) <= source.n_bytes()
    assert len(set(shares)) == 1


def test_rows_are_counted_as_excel_counts_them_and_those_without_values_are_none():
    workbook("t.xlsx", [[], [], ["text"], ["one"], [], ["two"], [None], [None]])
    assert read("t.xlsx", column="text") == {"t.xlsx:4": "one", "t.xlsx:6": "two"}


def test_cells_that_are_no_text_are_read_as_excel_shows_them():
    book = openpyxl.Workbook()
    values = [
        13800138000, 13800138000.0, 2.5, True, date(2024, 1, 31), datetime(2024, 1, 31, 13, 5), time(9, 30),
        timedelta(hours=30), "01",
    ]  # fmt: skip
    for row in [["text"], *([value] for value in values)]:
        book.active.append(row)
    book.save("t.xlsx")
    assert list(read("t.xlsx", column="text").values()) == [
        "13800138000", "13800138000", "2.5", "TRUE", "2024-01-31", "2024-01-31 13:05:00", "09:30:00",
        "1 day, 6:00:00", "01",
    ]  # fmt: skip


def test_an_error_of_excel_is_no_text():
    book = openpyxl.Workbook()
    for cell, value in {"A1": "text", "A2": "#N/A", "A3": "one"}.items():
        book.active[cell] = value
    book.save("t.xlsx")
    assert read("t.xlsx", column="text") == {
        "t.xlsx:2": "! has Excel's error #N/A in the column 'text'", "t.xlsx:3": "one",
    }  # fmt: skip


def test_the_first_sheet_is_read_or_the_one_that_is_named():
    workbook("t.xlsx", [["text"], ["one"]], "January", February=[["text"], ["two"]])
    said = []
    assert read("t.xlsx", said.append, column="text") == {"t.xlsx:2": "one"}
    assert said == ["t.xlsx: the sheet 'January' is read, the first of 2; --sheet names another"]
    assert read("t.xlsx", said.append, column="text", sheet="February") == {"t.xlsx:2": "two"}
    assert len(said) == 1
    assert read("t.xlsx", column="text", sheet="Febuary") == {
        "t.xlsx": "! has no sheet 'Febuary'; its sheets are January, February; the nearest is 'February'"
    }


def test_a_workbook_that_is_wrong_about_its_size_is_read_whole(tmp_path):
    workbook("t.xlsx", [["text", "n"], ["one", 1], ["two", 2]])
    with zipfile.ZipFile("t.xlsx") as source, zipfile.ZipFile("u.xlsx", "w") as target:
        for part in source.infolist():
            raw = source.read(part)
            target.writestr(part.filename, raw.replace(b'<dimension ref="A1:B3"/>', b'<dimension ref="A1"/>'))
            assert part.filename != "xl/worksheets/sheet1.xml" or b"A1:B3" in raw
    assert read("u.xlsx", column="text", id_field="n") == {"1": "one", "2": "two"}


def test_what_is_wrong_with_a_workbook_is_said(tmp_path):
    workbook("t.xlsx", [["text"], ["one"]])
    write(
        tmp_path,
        {
            "old.xlsx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
            "old.csv": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
            "broken.xlsx": (tmp_path / "t.xlsx").read_bytes()[:300],
            "empty.xlsx": b"",
        },
    )
    assert read("old.xlsx", column="text") == {
        "old.xlsx": "! is encrypted, or from Excel 2003 or before; save it as .xlsx without a password"
    }
    assert read("old.csv", column="text") == {"old.csv": "! is an Excel workbook of 2003 or before; save it as .xlsx"}
    for name in ("broken.xlsx", "empty.xlsx"):
        assert read(name, column="text")[name].startswith("! cannot be read as an Excel workbook (")
    assert read("t.xlsx", lines=True) == {"t.xlsx": "! is an Excel workbook; for its rows give --csv COLUMN"}
    assert read("t.xlsx") == {"t.xlsx": "Sheet1\n\ntext\n\none"}
    (tmp_path / "t.xlsx").rename("t.csv")
    assert read("t.csv", column="text")["t.csv"].startswith("! is a zip file, as Excel workbooks are")


def test_a_package_that_is_missing_is_answered_with_the_way_to_get_it(monkeypatch, tmp_path):
    write(tmp_path, {"t.parquet": b"PK"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Q3EError) as error:
        read("t.parquet", column="text")
    assert str(error.value) == "reading Parquet needs pyarrow; install it with: pip install 'q3e-local[parquet]'"


@pytest.mark.parametrize(
    ("name", "layout", "said"),
    [
        ("t.csv", {"column": "text", "sheet": "x"}, "--sheet is for Excel workbooks"),
        ("t.xlsx", {"column": "text", "delimiter": ";"}, "--delimiter is for tables of text"),
        ("t.parquet", {"column": "text", "encoding": "gbk"}, "--encoding is for tables of text"),
        ("t.csv", {"lines": True, "delimiter": ";"}, "--delimiter needs --csv"),
        ("t.csv", {"sheet": "x"}, "--sheet needs --csv"),
        ("t.csv", {"lines": True, "keep": ("x",)}, "--keep needs --jsonl or --csv"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(name, layout, said, tmp_path):
    write(tmp_path, {name: ""})
    with pytest.raises(OptionError, match=said):
        read(name, **layout)
