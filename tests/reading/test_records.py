"""Tables and texts as people have them: delimiters, encodings, pipes. Read without a model."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest
from command import texts_of, write

from q3e_local.cli.texts import Layout, find
from q3e_local.errors import OptionError
from q3e_local.reading.delimiters import choose


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
    assert list(texts_of("t.csv", column="text").values()) == texts


def test_the_first_line_of_excel_counts_as_a_line(tmp_path):
    write(tmp_path, {"t.csv": 'sep=;\nid;text\n1;"one\nmore"\n2;two\n'})
    assert texts_of("t.csv", column="text") == {"t.csv:3": "one\nmore", "t.csv:5": "two"}


def test_the_delimiter_of_the_option_is_taken(tmp_path):
    write(tmp_path, {"t.csv": "text,id;n\none,1;1\n", "t.txt": "text^n\none^1\n"})
    write(tmp_path, {"sep.csv": "sep=;\ntext,n\none,2\n"})
    assert texts_of("t.csv", column="text,id", delimiter=";") == {"t.csv:2": "one,1"}
    assert texts_of("t.txt", column="text", delimiter="^") == {"t.txt:2": "one"}
    assert texts_of("sep.csv", column="text", delimiter=",") == {"sep.csv:3": "one"}


def test_a_tsv_has_tabs_and_quotes_in_it_are_characters_unless_they_enclose(tmp_path):
    tables = {
        'text\tn\n"Hello", she said\t1\nfive "inches\t2\n': ['"Hello", she said', 'five "inches'],
        'text\tn\n"one\ttwo"\t1\n': ["one\ttwo"],
        "text\none, two\n": ["one, two"],
    }
    for table, texts in tables.items():
        write(tmp_path, {"t.tsv": table})
        assert list(texts_of("t.tsv", column="text").values()) == texts


def test_what_is_cut_at_the_end_of_the_sample_says_nothing():
    assert choose('id;text\n1;one\n2;"two, thr', False, ["text"]) == ";"
    assert choose("text\none\ntwo, thr", False, ["text"]) == ","  # the row may go on


def test_a_column_that_is_missing_is_named_with_those_there_are_and_the_nearest(tmp_path):
    write(tmp_path, {"t.csv": "id;titel;text\n1;x;one\n", "many.csv": ",".join(f"c{n}" for n in range(100)) + "\n"})
    assert texts_of("t.csv", column="title") == {
        "t.csv": "! has no column 'title'; its columns are id, titel, text; the nearest is 'titel'"
    }
    assert texts_of("many.csv", column="zz")["many.csv"].endswith("c28, c29 and 70 more")


def test_a_column_there_twice_is_no_answer(tmp_path):
    write(tmp_path, {"t.csv": "text,text\none,two\n"})
    problem = "! has 2 columns named 'text'; give all but one another name"
    assert texts_of("t.csv", column="text") == {"t.csv": problem}


CHINESE = "编号,文本\n1,第三季度预算已获批准\n2,办公室搬迁推迟到五月\n"


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-16", "utf-16-be", "utf-8", "utf-8-sig", "utf-32"])
def test_the_encoding_of_a_table_is_found_and_named_where_it_was_guessed(encoding, tmp_path):
    raw = CHINESE.encode(encoding)
    write(tmp_path, {"t.csv": b"\xfe\xff" + raw if encoding == "utf-16-be" else raw})
    said = []
    found = texts_of("t.csv", said.append, column="文本")
    assert found == {"t.csv:2": "第三季度预算已获批准", "t.csv:3": "办公室搬迁推迟到五月"}
    # The others are UTF-8, or have a byte order mark.
    is_guessed = encoding in ("gbk", "gb18030")
    assert said == ["t.csv: read as GB18030, not UTF-8; if that is wrong, give --encoding"] * is_guessed


def test_lines_json_and_whole_files_are_read_in_their_encoding_too(tmp_path):
    first, second = "第三季度的预算已经获得批准", "办公室搬迁推迟"
    write(tmp_path, {"lines.txt": "预算\r\n\r\n搬迁\r\n".encode("utf-16")})
    write(tmp_path, {"gbk.txt": f"{first}\n{second}\n".encode("gbk")})
    write(tmp_path, {"a.jsonl": '{"t": "预算"}\n{"t": "搬迁"}\n'.encode("utf-16")})
    assert texts_of("lines.txt", lines=True) == {"lines.txt:1": "预算", "lines.txt:3": "搬迁"}
    assert texts_of("gbk.txt", lines=True) == {"gbk.txt:1": first, "gbk.txt:2": second}
    assert texts_of("gbk.txt") == {"gbk.txt": f"{first}\n{second}"}
    assert texts_of("a.jsonl", jsonl="t") == {"a.jsonl:1": "预算", "a.jsonl:2": "搬迁"}


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
    assert list(texts_of("t.csv", column="text").values())[-1].startswith(f"! {said}")


@pytest.mark.parametrize("encoding", ["gbk", "big5", "shift_jis", "cp1251", "utf-16-le"])
def test_the_encoding_of_the_option_is_taken(encoding, tmp_path):
    text = {"big5": "預算", "shift_jis": "予算が", "cp1251": "Бюджет"}.get(encoding, "价")
    write(tmp_path, {"t.csv": f"id,text\n1,{text}\n".encode(encoding)})
    from q3e_local.cli.texts.layout import encoding_of

    said = []
    assert texts_of("t.csv", said.append, column="text", encoding=encoding_of(encoding)) == {"t.csv:2": text}
    assert said == []


def test_a_byte_order_mark_is_believed_before_an_option(tmp_path):
    write(tmp_path, {"t.csv": CHINESE.encode("utf-8-sig")})
    said = []
    assert "第三季度预算已获批准" in texts_of("t.csv", said.append, column="文本", encoding="gb18030").values()
    assert said == ["t.csv: read as UTF-8, as its byte order mark says, not as GB18030"]


def test_a_wrong_byte_spoils_no_record_but_that_it_is_in(tmp_path):
    rows = ["文本,编号", "第三季度预算,1", "办公室搬迁,2", "招聘计划,3"]
    gbk = [row.encode("gbk") for row in rows]
    gbk[2] = gbk[2].replace("搬".encode("gbk"), b"\xff\xff")
    write(tmp_path, {"t.csv": b"\n".join(gbk)})
    assert list(texts_of("t.csv", column="文本", encoding="gb18030").values()) == [
        "第三季度预算", "! field '文本' is not GB18030", "招聘计划",
    ]  # fmt: skip
    lone = "一\n".encode("utf-16-le") + b"\x3d\xd8" + "二\n三\n".encode("utf-16-le")  # half of a pair
    write(tmp_path, {"u.txt": b"\xff\xfe" + lone})
    assert list(texts_of("u.txt", lines=True).values()) == ["一", "! is not UTF-16", "三"]


def test_chinese_far_behind_the_beginning_of_a_file_is_found(tmp_path):
    rows = "id,text\n" + "".join(f"{n},plain words\n" for n in range(200_000))
    write(tmp_path, {"t.csv": rows.encode() + "x,第三季度的预算已经获得批准办公室搬迁\n".encode("gbk")})
    assert len(rows) > 1 << 21
    assert texts_of("t.csv", column="text")["t.csv:200002"] == "第三季度的预算已经获得批准办公室搬迁"


def test_characters_on_the_edges_of_what_is_read_at_a_time(tmp_path):
    line = "第三季度预算已获批准办公室搬迁推迟到五月"
    raw = ("a" + f"{line}\n" * 20_000).encode("gb18030")
    write(tmp_path, {"t.txt": raw, "u.txt": ("\ufeff" + f"{line}\n" * 20_000).encode("utf-16-le")})
    assert list(texts_of("t.txt", lines=True).values()) == ["a" + line] + [line] * 19_999
    assert set(texts_of("u.txt", lines=True).values()) == {line}


class Pipe(io.RawIOBase):
    """A pipe whose writer writes piece by piece: each read returns the next piece."""

    def __init__(self, *pieces):
        self._pieces = list(pieces)

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._pieces.pop(0) if self._pieces else b""
        buffer[: len(data)] = data
        return len(data)


class Stdin:
    def __init__(self, buffer):
        self.buffer = buffer

    def isatty(self):
        return False


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16"])
def test_a_pipe_shows_its_encoding_when_it_comes_to_it(encoding, monkeypatch):
    text = "id,text\n1,plain words\n2,第三季度预算已获批准\n3,办公室搬迁推迟\n".encode(encoding)
    monkeypatch.setattr(sys, "stdin", Stdin(io.BufferedReader(Pipe(text[:9], text[9:30], text[30:]))))
    said = []
    texts = ["plain words", "第三季度预算已获批准", "办公室搬迁推迟"]
    assert list(texts_of("-", said.append, column="text").values()) == texts
    assert len(said) == (encoding == "gbk")  # UTF-16 has a byte order mark


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipes there")
def test_the_first_record_of_a_pipe_is_read_before_the_second_is_written(monkeypatch):
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stdin, os.fdopen(theirs, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", Stdin(stdin))
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
    assert len(texts_of("n", said.append)) == 9
    named = [line.split(":")[0] for line in said]
    assert named == [*(f"n/{n}.txt" for n in range(5)), "more files like these are not named"]


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
        texts_of(name, **layout)
