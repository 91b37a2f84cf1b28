"""filter-pairs: rows come out byte for byte, those that agree and no others."""

from __future__ import annotations

import csv
import io
import tracemalloc

import numpy as np
import pytest
from command import expected, listing, run, write
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.cli.texts.raw_csv import RawCsv

HEADER = b'\xef\xbb\xbfid,"zh",en,note\r\n'
AGREE = [b'1,"the cat","the cat sat",\r\n', b'4,"prices\nfell",prices fell, caf\xe9 \r\n']
OTHERS = [b'2,"a, ""b""",nothing,"x"\r\n', b"3,,x,\r\n", b"5,short"]
BYTES = HEADER + AGREE[0] + OTHERS[0] + OTHERS[1] + b"\r\n" + AGREE[1] + OTHERS[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_MODEL", "demo")
    monkeypatch.setenv("Q3E_CACHE", "off")
    write(tmp_path, {"pairs.csv": BYTES})
    return tmp_path


def pair_scores(left, right, **options):
    return np.einsum("ij,ij->i", expected(left, **options).vectors, expected(right, **options).vectors)


def test_rows_come_out_as_they_are(folder):
    result = run(
        "filter-pairs", "pairs.csv", "zh", "en", "--threshold", "0.5", "-o", "kept.csv", "--dropped", "rest.csv"
    )
    assert result.exit_code == 0, result.output
    assert (folder / "kept.csv").read_bytes() == HEADER + b"".join(AGREE)
    assert (folder / "rest.csv").read_bytes() == HEADER + b"".join(OTHERS)
    assert "2 of 5 rows kept at 0.5 or above, 2 without text" in result.stderr
    assert "median" in result.stderr
    assert run("filter-pairs", "pairs.csv", "zh", "en", "--threshold", "0.5", "-q").stdout_bytes == HEADER + b"".join(
        AGREE
    )
    assert run("filter-pairs", "-", "zh", "en", input=BYTES).stdout_bytes == HEADER + b"".join(AGREE)


def test_the_score_is_a_column_more_also_of_short_rows(folder):
    run(
        "filter-pairs",
        "pairs.csv",
        "zh",
        "en",
        "--score",
        "how, near",
        "--threshold",
        "-1",
        "-o",
        "k.csv",
        "--dropped",
        "d.csv",
    )
    kept = list(csv.reader(io.StringIO((folder / "k.csv").read_bytes().decode("utf-8-sig", "replace"), newline="")))
    assert kept[0] == ["id", "zh", "en", "note", "how, near"]
    want = pair_scores(["the cat", 'a, "b"', "prices\nfell"], ["the cat sat", "nothing", "prices fell"])
    assert np.allclose([float(row[4]) for row in kept[1:]], want, atol=1e-5)
    dropped = (folder / "d.csv").read_bytes()
    assert dropped.endswith(b"3,,x,,\r\n5,short,,,")


def test_a_column_is_compared_with_given_vectors(folder):
    write(folder, {"clips.csv": "name,said\na,the cat sat\nb,\nc,prices fell\n"})
    vectors = expected(["the cat sat", "anything", "the dog"]).vectors
    np.save("clips.npy", 3 * vectors)
    result = run(
        "filter-pairs", "clips.csv", "said", "--vectors", "clips.npy", "--score", "score", "--threshold", "0.9"
    )
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["name"], float(row["score"])) == ("a", pytest.approx(1, abs=1e-5))


def test_the_instruction_is_for_both_columns_and_tabs_part_a_tsv(folder):
    write(folder, {"p.tsv": 'a\tb\nthe cat, sat\tthe "cat" sat\n'})
    result = run("filter-pairs", "p.tsv", "a", "b", "--task", "bitext", "--score", "s", "--threshold", "-1", "-q")
    (row,) = csv.DictReader(io.StringIO(result.stdout), delimiter="\t")
    assert float(row["s"]) == pytest.approx(
        pair_scores(["the cat, sat"], ['the "cat" sat'], task="bitext")[0], abs=2e-3
    )
    assert row["b"] == 'the "cat" sat'


def test_rows_without_text_are_given_out_as_they_are_read(folder):
    write(folder, {"long.csv": "a,b\n" + "the cat sat on the mat,\n" * 40_000})
    arguments = ("filter-pairs", "long.csv", "a", "b", "-q", "--dropped", "rest.csv", "-o", "kept.csv")
    run(*arguments, "--force")  # what is loaded once
    tracemalloc.start()
    assert run(*arguments, "--force").exit_code == 0
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4_000_000
    assert (folder / "rest.csv").read_bytes() == (folder / "long.csv").read_bytes()


def test_memory_does_not_grow_with_the_file(folder):
    write(folder, {"long.csv": "a,b\n" + "the cat,the cat sat on the mat\n" * 20_000})
    arguments = ("filter-pairs", "long.csv", "a", "b", "-q", "-o", "kept.csv")
    run(*arguments, "--force")  # what is loaded once
    tracemalloc.start()
    assert run(*arguments, "--force").exit_code == 0
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4_000_000
    assert (folder / "kept.csv").read_bytes() == (folder / "long.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("missing.csv", "a", "b"), 1, ["missing.csv cannot be read"]),
        (("pairs.csv", "zh", "xx"), 1, ["pairs.csv has no column 'xx'; its columns are id, zh, en, note"]),
        (("empty.csv", "a", "b"), 1, ["its columns are none"]),
        (("latin.csv", "caf\u00e9", "b"), 1, ["latin.csv is not UTF-8 in its first line", "--encoding"]),
        (("book.xlsx", "a", "b"), 1, ["book.xlsx has no rows of text", "save it as CSV"]),
        (("zipped.csv", "a", "b"), 1, ["zipped.csv is a zip file, as Excel workbooks are"]),
        (("pairs.csv", "zh", "en", "--delimiter", "::"), 2, ["--delimiter is one character", "'::'"]),
        (
            ("wide.csv", "a", "b", "--score", "s", "--threshold", "-1"),
            1,
            ["wide.csv:2 has 3 cells, the header has 2"],
        ),
        (("pairs.csv", "zh"), 2, ["give two columns to compare, or one and --vectors"]),
        (("pairs.csv", "zh", "en", "--vectors", "two.npy"), 2, ["give two columns"]),
        (
            ("pairs.csv", "zh", "--vectors", "two.npy"),
            2,
            ["two.npy has vectors of dim 32, demo gives 256; give -d 32"],
        ),
        (("pairs.csv", "zh", "--vectors", "two.npy", "-d", "32"), 1, ["two.npy has 2 rows, the CSV has more"]),
        (("few.csv", "a", "--vectors", "two.npy", "-d", "32"), 1, ["the vectors have 2 rows, few.csv has 1"]),
        (("few.csv", "a", "--vectors", "nan.npy", "-d", "32"), 1, ["row 0 of nan.npy has NaN"]),
        (("few.csv", "a", "--vectors", "other.npy", "-d", "32"), 2, ["of the space q3e1-0-32-plain: not of demo"]),
        (("pairs.csv", "zh", "en", "--score", "note"), 2, ["has a column 'note' already"]),
        (("pairs.csv", "zh", "note"), 1, ["pairs.csv:6 column 'note' is not UTF-8", "--encoding"]),
        (("broken.csv", "a", "b"), 1, ["broken.csv:3 is not CSV"]),
        (("pairs.csv", "zh", "en", "-o", "pairs.csv", "--force"), 2, ["pairs.csv is the output too"]),
        (("pairs.csv", "zh", "en", "-o", "x.csv", "--dropped", "x.csv"), 2, ["are the same file"]),
        (("pairs.csv", "zh", "en", "--threshold", "2"), 2, ["2.0 is not in the range"]),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_left(arguments, code, said, folder):
    for name, scale in {"two": 1, "nan": np.nan, "other": 1}.items():
        np.save(f"{name}.npy", scale * np.eye(1 if name == "other" else 2, 32, dtype=np.float32))
    row = '{"index":0,"id":"x","text_sha256":"0","space":"q3e1-0-32-plain"}\n'
    files = {
        "latin.csv": b"caf\xe9,b\nx,y\n",
        "book.xlsx": b"PK\x03\x04",
        "zipped.csv": b"PK\x03\x04\0\n",
        "wide.csv": "a,b\n1,2,3\n",
        "empty.csv": "",
        "few.csv": "a\nx\n",
        "broken.csv": 'a,b\n1,2\n"x"y,z\n',
        "other.npy.rows.jsonl": row,
    }
    write(folder, files)
    before = listing(folder)
    output = () if "-o" in arguments else ("-o", "out.csv")
    result = run("filter-pairs", *arguments, *output)
    assert result.exit_code == code, result.output
    assert [part for part in said if part not in result.stderr] == []
    assert listing(folder) == before


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
    assert rows.first() + b"".join(rows.written(row) for row in found) == raw
    scored = rows.first("s") + b"".join(rows.written(row, 0.5, True) for row in found)
    again = list(csv.reader(io.StringIO(scored.decode(), newline="")))
    assert again == [["x", "y", "s"], *([x, y, "0.5"] for x, y in cells)]
