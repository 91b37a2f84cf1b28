"""filter-pairs: rows come out byte for byte, those that agree and no others."""

from __future__ import annotations

import csv
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from command import expected, listing, run, write
from hypothesis import given
from hypothesis import strategies as st
from job_texts import npy

from q3e_local.cli.texts.raw_csv import RawCsv

HEADER = b'\xef\xbb\xbfid,"zh",en,note\r\n'
AGREE = [b'1,"the cat","the cat sat",\r\n', b'4,"prices\nfell",prices fell, caf\xe9 \r\n']
OTHERS = [b'2,"a, ""b""",nothing,"x"\r\n', b"3,,x,\r\n", b"5,short"]
BYTES = HEADER + AGREE[0] + OTHERS[0] + OTHERS[1] + b"\r\n" + AGREE[1] + OTHERS[2]


@pytest.fixture(autouse=True)
def _pairs(folder):
    write(folder, {"pairs.csv": BYTES})


def filter_pairs(arguments, *more, **options):
    return run("filter-pairs", *arguments.split(), *more, **options)


def pair_scores(left, right, **options):
    return np.einsum("ij,ij->i", expected(left, **options).vectors, expected(right, **options).vectors)


def test_rows_come_out_as_they_are(folder):
    result = filter_pairs("pairs.csv zh en --threshold 0.5 -o kept.csv --dropped rest.csv")
    assert result.exit_code == 0, result.output
    assert (folder / "kept.csv").read_bytes() == HEADER + b"".join(AGREE)
    assert (folder / "rest.csv").read_bytes() == HEADER + b"".join(OTHERS)
    assert "2 of 5 rows kept at 0.5 or above, 2 without text" in result.stderr
    assert "median" in result.stderr
    assert filter_pairs("pairs.csv zh en --threshold 0.5 -q").stdout_bytes == HEADER + b"".join(AGREE)
    assert filter_pairs("- zh en", input=BYTES).stdout_bytes == HEADER + b"".join(AGREE)


def test_the_score_is_a_column_more_also_of_short_rows(folder):
    filter_pairs("pairs.csv zh en --threshold -1 -o k.csv --dropped d.csv", "--score", "how, near")
    kept = list(csv.reader(io.StringIO((folder / "k.csv").read_bytes().decode("utf-8-sig", "replace"), newline="")))
    assert kept[0] == ["id", "zh", "en", "note", "how, near"]
    want = pair_scores(["the cat", 'a, "b"', "prices\nfell"], ["the cat sat", "nothing", "prices fell"])
    assert np.allclose([float(row[4]) for row in kept[1:]], want, atol=1e-5)
    dropped = (folder / "d.csv").read_bytes()
    assert dropped.endswith(b"3,,x,,\r\n5,short,,,")


def test_a_column_is_compared_with_vectors_of_a_file(folder):
    write(folder, {"clips.csv": "name,said\na,the cat sat\nb,\nc,prices fell\n"})
    vectors = expected(["the cat sat", "anything", "the dog"]).vectors
    np.save("clips.npy", 3 * vectors)
    result = filter_pairs("clips.csv said --vectors clips.npy --score score --threshold 0.9")
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["name"], float(row["score"])) == ("a", pytest.approx(1, abs=1e-5))


def test_the_instruction_is_for_both_columns_and_tabs_part_a_tsv(folder):
    write(folder, {"p.tsv": 'a\tb\nthe cat, sat\tthe "cat" sat\n'})
    result = filter_pairs("p.tsv a b --task bitext --score s --threshold -1 -q")
    (row,) = csv.DictReader(io.StringIO(result.stdout), delimiter="\t")
    (score,) = pair_scores(["the cat, sat"], ['the "cat" sat'], task="bitext")
    assert float(row["s"]) == pytest.approx(score, abs=2e-3)
    assert row["b"] == 'the "cat" sat'


@pytest.mark.parametrize(
    ("row", "n_rows", "output"),
    [
        ("the cat sat on a mat,the cat sat on the mat\n", 20_000, "kept.csv"),
        ("the cat sat on the mat,\n", 40_000, "rest.csv"),
    ],
    ids=["rows that agree", "rows without a text"],
)
def test_memory_does_not_grow_with_the_file(row, n_rows, output, folder):
    write(folder, {"short.csv": "a,b\n" + row * 10, "long.csv": "a,b\n" + row * n_rows})

    def most(name):
        tracemalloc.start()
        assert filter_pairs(f"{name}.csv a b -q --dropped rest.csv -o kept.csv --force").exit_code == 0
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    most("short")  # what is loaded once
    least = most("short")
    assert most("long") < least + 1_500_000
    assert (folder / output).read_bytes() == (folder / "long.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("missing.csv a b", 1, ["missing.csv cannot be read"]),
        ("pairs.csv zh xx", 1, ["pairs.csv has no column 'xx'; its columns are id, zh, en, note"]),
        ("empty.csv a b", 1, ["its columns are none"]),
        ("latin.csv caf\u00e9 b", 1, ["latin.csv is not UTF-8 in its first line", "--encoding"]),
        ("book.xlsx a b", 1, ["book.xlsx has no rows of text", "save it as CSV"]),
        ("zipped.csv a b", 1, ["zipped.csv is a zip file, as Excel workbooks and Word files are"]),
        ("pairs.csv zh en --delimiter ::", 2, ["--delimiter is one character", "'::'"]),
        ("wide.csv a b --score s --threshold -1", 1, ["wide.csv:2 has 3 cells, the header has 2"]),
        ("pairs.csv zh", 2, ["give two columns to compare, or one and --vectors"]),
        ("pairs.csv zh en --vectors two.npy", 2, ["give two columns"]),
        ("pairs.csv zh --vectors two.npy", 2, ["two.npy has vectors of dim 32, demo gives 256; give -d 32"]),
        ("pairs.csv zh --vectors two.npy -d 32", 1, ["two.npy has 2 rows, the CSV has more"]),
        ("few.csv a --vectors two.npy -d 32", 1, ["the vectors have 2 rows, few.csv has 1"]),
        ("few.csv a --vectors nan.npy -d 32", 1, ["row 0 of nan.npy has NaN"]),
        ("few.csv a --vectors other.npy -d 32", 2, ["of the space q3e1-0-32-plain: not of demo"]),
        ("pairs.csv zh en --score note", 2, ["has a column 'note' already"]),
        ("pairs.csv zh note", 1, ["pairs.csv:6 column 'note' is not UTF-8", "--encoding"]),
        ("broken.csv a b", 1, ["broken.csv:3 is not CSV"]),
        ("pairs.csv zh en -o pairs.csv --force", 2, ["pairs.csv is the output too"]),
        ("pairs.csv zh en -o x.csv --dropped x.csv", 2, ["are the same file"]),
        ("pairs.csv zh en --threshold 2", 2, ["2.0 is not in the range"]),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_left(arguments, code, said, folder):
    rows = np.eye(2, 32, dtype=np.float32)
    np.save("two.npy", rows)
    np.save("nan.npy", np.nan * rows)
    npy(folder / "other.npy", rows[:1], "q3e1-0-32-plain")
    write(folder, {"latin.csv": b"caf\xe9,b\nx,y\n", "book.xlsx": b"PK\x03\x04", "zipped.csv": b"PK\x03\x04\0\n"})
    write(folder, {"wide.csv": "a,b\n1,2,3\n", "empty.csv": "", "few.csv": "a\nx\n"})
    write(folder, {"broken.csv": 'a,b\n1,2\n"x"y,z\n'})
    before = listing(folder)
    result = filter_pairs(arguments if "-o" in arguments else f"{arguments} -o out.csv")
    assert result.exit_code == code, result.output
    assert [part for part in said if part not in result.stderr] == []
    assert listing(folder) == before


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "utf-8-sig", "utf-8"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_pairs_of_every_table_come_out_as_they_are(encoding, delimiter, tmp_path):
    lines = ["编号;听到;写的", '1;"预算；获批";预算；获批', "2;办公室搬迁;the cat sat", "3;再开会;再开会。"]
    raw = [f"{line}\r\n".replace(";", delimiter).encode(encoding) for line in lines]
    # A byte order mark stands before the first line alone.
    n_mark = {"utf-16": 2, "utf-8-sig": 3}.get(encoding, 0)
    raw = [raw[0], *(line[n_mark:] for line in raw[1:])]
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


CELL = st.text(st.sampled_from('ab,"\n\r é中'), max_size=6)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=5), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_csv_is_read_as_csv_reads_it_and_written_as_it_was(cells, end, is_quoted):
    if not is_quoted:  # csv writes a lone return as it is, and reads it as the end of a row
        cells = [[cell.replace("\r", "") for cell in row] for row in cells]
    stream = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if is_quoted else csv.QUOTE_MINIMAL
    csv.writer(stream, lineterminator=end, quoting=quoting).writerows([["x", "y"], *cells])
    raw = stream.getvalue().encode()
    rows = RawCsv("it", io.BytesIO(raw), ("y", "x"), ",", None)
    found = list(rows.rows())
    assert [rows.texts(row) for row in found] == [[y, x] for x, y in cells]
    assert b"".join(rows.written(row) for row in [rows.first, *found]) == raw
    scored = rows.written(rows.first, "s") + b"".join(rows.written(row, "0.5") for row in found)
    again = list(csv.reader(io.StringIO(scored.decode(), newline="")))
    assert again == [["x", "y", "s"], *([x, y, "0.5"] for x, y in cells)]
