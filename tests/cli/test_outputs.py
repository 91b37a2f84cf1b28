"""What `q3e-local embed` writes: each format read back with somebody else's reader, and files that land whole."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from command import command, embed, expected, listing, records, run, write
from paths import ROOT

TEXTS = ["What did we decide?", "第三季度预算", "short"]
LAYOUT = ["--lines", "文,a.txt"]  # a name that CSV must quote
IDS = [f"文,a.txt:{n}" for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def _three_lines(tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    write(tmp_path, {"文,a.txt": "\n".join(TEXTS)})


def in_dtype(vectors: np.ndarray, dtype: str) -> np.ndarray:
    """What each form of the numbers is, said once more in NumPy."""
    if dtype == "int8":
        return np.rint(vectors / np.abs(vectors).max(axis=1, keepdims=True) * 127).astype(np.int8)
    if dtype == "binary":
        bits = ["".join("1" if number > 0 else "0" for number in row) for row in vectors]
        eights = [[row[i : i + 8].ljust(8, "0") for i in range(0, len(row), 8)] for row in bits]
        return np.array([[int(eight, 2) for eight in row] for row in eights], np.uint8)
    return vectors.astype(dtype)


def read_jsonl(raw: bytes, dtype: np.dtype) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in raw.splitlines()], dtype)


def read_json(raw: bytes, dtype: np.dtype) -> np.ndarray:
    return np.array([entry["embedding"] for entry in json.loads(raw)["data"]], dtype)


def read_csv(raw: bytes, dtype: np.dtype) -> np.ndarray:
    rows = list(csv.reader(io.StringIO(raw.decode("utf-8"), newline="")))
    begin = rows[0].index("e0")
    return np.array([[float(cell) for cell in row[begin:]] for row in rows[1:]]).astype(dtype)


def read_base64(raw: bytes, dtype: np.dtype) -> np.ndarray:
    return np.array([np.frombuffer(base64.b64decode(line), dtype.newbyteorder("<")) for line in raw.splitlines()])


def read_npy(raw: bytes, dtype: np.dtype) -> np.ndarray:
    array = np.load(io.BytesIO(raw))
    assert array.dtype == dtype
    return array


def read_parquet(raw: bytes, dtype: np.dtype) -> np.ndarray:
    column = pyarrow.parquet.read_table(io.BytesIO(raw)).column("embedding")
    assert column.type.value_type.to_pandas_dtype() == dtype
    return np.array(column.to_pylist(), dtype)


READERS: dict[str, tuple[str, Callable[[bytes, Any], np.ndarray]]] = {
    "jsonl": (".jsonl", read_jsonl),
    "json": (".json", read_json),
    "csv": (".csv", read_csv),
    "npy": (".npy", read_npy),
    "base64": (".b64", read_base64),
    "parquet": (".parquet", read_parquet),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "binary"])
@pytest.mark.parametrize("form", READERS)
def test_numbers_read_back_to_the_very_same(form, dtype, tmp_path):
    suffix, read = READERS[form]
    to_stdout = embed(*LAYOUT, "--format", form, "--dtype", dtype, "-d", 100)
    to_file = embed(*LAYOUT, "--dtype", dtype, "-d", 100, "-o", "out" + suffix)
    assert (to_stdout.exit_code, to_file.exit_code, to_file.stdout) == (0, 0, "")
    raw = (tmp_path / ("out" + suffix)).read_bytes()
    assert raw == to_stdout.stdout_bytes
    wanted = in_dtype(expected(TEXTS, dim=100).vectors, dtype)
    got = read(raw, wanted.dtype)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
    if dtype == "int8":
        assert np.abs(got.astype(int)).max(axis=1).tolist() == [127, 127, 127]
    if dtype == "binary":
        assert got.shape == (3, 13)
        assert not (got[:, -1] & 0b1111).any()  # 100 bits end in the middle of the last byte


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_json_lines_have_these_fields(dtype):
    answer = expected(TEXTS, max_tokens=7, truncate=True)
    result = embed(*LAYOUT, "--max-tokens", 7, "--dtype", dtype)
    lines = result.stdout_bytes.split(b"\n")
    assert lines.pop() == b""
    for index, line in enumerate(lines):
        fields = json.loads(line)
        del fields["embedding"]
        assert fields == {
            "index": index,
            "id": IDS[index],
            "tokens": answer.prompt_tokens[index],
            "truncated": answer.truncated[index],
            "space": answer.space,
            "text_sha256": hashlib.sha256(TEXTS[index].encode()).hexdigest()[:16],
        } | ({} if dtype == "float32" else {"dtype": dtype})
        assert list(json.loads(line))[-1] == "embedding"


def test_json_is_openai_s_list_and_the_space():
    answer = expected(TEXTS)
    whole = json.loads(embed(*LAYOUT, "--format", "json").stdout)
    for index, entry in enumerate(whole["data"]):
        assert len(entry.pop("embedding")) == 256
        assert entry == {"object": "embedding", "index": index}
    n_tokens = sum(answer.prompt_tokens)
    del whole["data"]
    assert whole == {
        "object": "list",
        "model": "demo",
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        "space": answer.space,
    }


def test_csv_has_a_header_and_quotes_what_must_be():
    answer = expected(TEXTS, dim=32, max_tokens=7, truncate=True)
    result = embed(*LAYOUT, "--format", "csv", "-d", 32, "--max-tokens", 7)
    rows = list(csv.DictReader(io.StringIO(result.stdout_bytes.decode("utf-8"), newline="")))
    assert list(rows[0]) == ["index", "id", "tokens", "truncated", *(f"e{i}" for i in range(32))]
    assert [row["index"] for row in rows] == ["0", "1", "2"]
    assert [row["id"] for row in rows] == IDS
    assert [int(row["tokens"]) for row in rows] == list(answer.prompt_tokens)
    assert [row["truncated"] for row in rows] == [str(cut).lower() for cut in answer.truncated]


@pytest.mark.parametrize("dtype", ["float16", "int8", "binary"])
def test_json_and_csv_say_a_dtype_that_is_not_float32(dtype):
    assert json.loads(embed(*LAYOUT, "--format", "json", "--dtype", dtype).stdout)["dtype"] == dtype
    result = embed(*LAYOUT, "--format", "csv", "--dtype", dtype)
    rows = list(csv.DictReader(io.StringIO(result.stdout_bytes.decode("utf-8"), newline="")))
    assert list(rows[0])[3:6] == ["truncated", "dtype", "e0"]
    assert {row["dtype"] for row in rows} == {dtype}


def test_npy_rows_are_described_beside_the_file(tmp_path):
    assert embed(*LAYOUT, "-o", "out.npy").exit_code == 0
    rows = (tmp_path / "out.npy.rows.jsonl").read_text(encoding="utf-8")
    wanted = [json.loads(line) for line in embed(*LAYOUT).stdout.splitlines()]
    for row, fields in enumerate(wanted):
        del fields["embedding"]
        fields["row"] = row
    assert [json.loads(line) for line in rows.splitlines()] == wanted


def test_parquet_columns_and_metadata(tmp_path):
    answer = expected(TEXTS)
    assert embed(*LAYOUT, "-o", "out.parquet").exit_code == 0
    table = pyarrow.parquet.read_table("out.parquet")
    assert table.column_names == ["index", "id", "tokens", "truncated", "embedding"]
    assert table.column("index").to_pylist() == [0, 1, 2]
    assert table.column("id").to_pylist() == IDS
    assert table.column("tokens").to_pylist() == list(answer.prompt_tokens)
    assert table.column("truncated").to_pylist() == [False] * 3
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert {key: metadata[key] for key in ("model", "space", "dtype")} == {
        "model": "demo",
        "space": answer.space,
        "dtype": "float32",
    }


def test_many_rows_are_several_groups_of_parquet_and_an_array_that_loads_lazily(tmp_path):
    lines = [str(n) for n in range(1030)]
    write(tmp_path, {"many": "\n".join(lines)})
    for name in ("out.parquet", "out.npy"):
        assert embed("--lines", "many", "-d", 32, "-o", name).exit_code == 0
    assert pyarrow.parquet.ParquetFile("out.parquet").num_row_groups == 2
    table = pyarrow.parquet.read_table("out.parquet")
    assert table.column("index").to_pylist() == list(range(1030))
    vectors = expected(lines, dim=32).vectors
    np.testing.assert_array_equal(np.array(table.column("embedding").to_pylist(), np.float32), vectors)
    np.testing.assert_array_equal(np.load("out.npy", mmap_mode="r"), vectors)


def test_parquet_without_pyarrow_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    before = listing(tmp_path)
    result = embed("--text", "one", "-o", "out.parquet")
    assert result.exit_code == 1
    assert result.stderr == "Error: Parquet needs pyarrow; install it with: pip install 'q3e-local[parquet]'\n"
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", ["a.ndjson", "a.JSONL"])
def test_json_lines_have_another_suffix_too(name, tmp_path):
    assert embed(*LAYOUT, "-o", name).exit_code == 0
    assert (tmp_path / name).read_bytes() == embed(*LAYOUT, "--format", "jsonl").stdout_bytes


def test_the_format_asked_for_wins_over_the_suffix(tmp_path):
    assert embed(*LAYOUT, "-o", "a.csv", "--format", "jsonl").exit_code == 0
    assert [record["id"] for record in records((tmp_path / "a.csv").read_bytes())] == IDS


@pytest.mark.parametrize("form", ["jsonl", "npy", "parquet"])
def test_in_a_pipe_the_format_is_json_lines_and_others_go_through_it_too(form):
    options = () if form == "jsonl" else ("--format", form)
    got = subprocess.run(command(*LAYOUT, "-q", *options), stdout=subprocess.PIPE, check=True).stdout
    np.testing.assert_array_equal(READERS[form][1](got, np.dtype(np.float32)), expected(TEXTS).vectors)


# The table.


def test_the_table_has_a_line_for_each_text(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    answer = expected(TEXTS, max_tokens=7, truncate=True)
    result = embed(*LAYOUT, "--format", "table", "--max-tokens", 7)
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["id", "text", "tokens", "dim", "norm", "first", "values"]
    for line, name, text, vector, truncated in zip(lines, IDS, TEXTS, answer.vectors, answer.truncated, strict=True):
        assert line.startswith(name)
        assert text in line
        assert (" 7 cut " in line) == truncated
        assert line.split()[-5:-3] == ["256", "1.0000"]
        np.testing.assert_allclose([float(cell) for cell in line.split()[-3:]], vector[:3], atol=6e-5)


@pytest.mark.parametrize("columns", [60, 80, 140, 300])
def test_the_table_fits_the_terminal(columns, monkeypatch, tmp_path):
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", str(columns))
    name = "很长的文件夹名字/" * 5 + "notes-about-the-budget.md"
    write(tmp_path, {name: "预算 budget\n\t第三季度 " * 40})
    result = embed(name, "--format", "table")
    widths = [cell_len(line) for line in result.stdout.splitlines()]
    assert max(widths) <= max(columns, 71)  # with less room than that it would say nothing
    assert "get.md" in result.stdout
    assert "…" in result.stdout
    assert len(widths) == 2


def test_the_table_does_not_let_a_text_steer_the_terminal(tmp_path):
    result = embed("--text", "one \x1b[2J\x9b31m\x07two", "--format", "table")
    assert result.exit_code == 0
    assert "one [2J 31m two" in result.stdout
    assert not set(result.stdout) & {"\x1b", "\x9b", "\x07"}


def test_an_id_as_long_as_a_book_does_not_hang_the_table(tmp_path):
    write(tmp_path, {"a.jsonl": json.dumps({"text": "one", "key": "第三" * 500_000 + " end"})})
    started = time.process_time()  # of this process alone, whatever else the machine is at
    result = embed("--jsonl", "text", "--id", "key", "a.jsonl", "--format", "table")
    assert "第三 end one " in result.stdout
    assert time.process_time() - started < 10


def test_a_clock_that_stands_still_is_no_division_by_zero(monkeypatch):
    monkeypatch.setattr("q3e_local.cli.commands.embed.time.perf_counter", lambda: 7.0)
    result = embed(*LAYOUT)
    assert result.exit_code == 0
    assert re.match(r"3 texts, \d+ tokens\n", result.stderr)


def test_the_demo_of_make_shows_every_note(monkeypatch):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\t@\$\(BIN\)/(q3e-local .*)$", makefile, re.MULTILINE)
    _, *arguments = shlex.split(line)
    monkeypatch.chdir(ROOT)
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    rows = result.stdout.splitlines()[1:]
    notes = sorted((ROOT / "examples/notes").iterdir())
    assert len(rows) == len(notes) == 7
    for row, note in zip(rows, notes, strict=True):
        assert row.split()[0].removeprefix("…").endswith(note.name[-15:])
