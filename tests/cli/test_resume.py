"""`--resume`: an interrupted output is continued to the very file of a run in one go, or refused and left alone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from command import embed, expected, ids, listing, write

from q3e_local.llama.engine import LlamaEngine

pytestmark = pytest.mark.usefixtures("each_alone")

N_LINES = 6
LINES = [f"line {n}" for n in range(N_LINES)]
FORMATS = [("out.jsonl", "float32"), ("out.npy", "float32"), ("out.npy", "int8")]


@pytest.fixture(autouse=True)
def _lines(tmp_path):
    write(tmp_path, {"a.txt": "\n".join(LINES)})


@pytest.fixture
def decoded(demo_loaded, each_alone, monkeypatch):
    """The number of texts in each batch that the model computes."""
    n_texts, decode = [], LlamaEngine.decode

    def counting(engine: LlamaEngine, sequences: list[list[int]], n_prefix: list[int]) -> np.ndarray:
        n_texts.append(len(sequences))
        return decode(engine, sequences, n_prefix)

    monkeypatch.setattr(LlamaEngine, "decode", counting)
    return n_texts


def lines_in_one_go(folder: Path, name: str, *options: object) -> dict[str, bytes]:
    """The output's bytes, and those of the rows beside a .npy; takes both away again."""
    before = set(listing(folder))
    assert embed("--lines", "a.txt", "-d", 32, "-q", "-o", name, *options).exit_code == 0
    written = {path: raw for path, raw in listing(folder).items() if path not in before}
    for path in written:
        (folder / path).unlink()
    return written


def cuts(raw: bytes) -> list[int]:
    """Where a file of lines may have stopped: around each end of a line, and within."""
    ends = [place + 1 for place, byte in enumerate(raw) if byte == ord("\n")]
    near = {place for end in ends for place in (end - 1, end, end + 1, end + 5, end - 100)}
    return sorted(place for place in near | {0, 1, 5} if 0 <= place <= len(raw))


def test_json_lines_go_on_from_wherever_they_stopped(decoded, tmp_path):
    (whole,) = lines_in_one_go(tmp_path, "out.jsonl").values()
    for cut in cuts(whole):
        (tmp_path / "out.jsonl").write_bytes(whole[:cut])
        decoded.clear()
        result = embed("--lines", "a.txt", "-d", 32, "-o", "out.jsonl", "--resume")
        assert result.exit_code == 0, (cut, result.stderr)
        assert (tmp_path / "out.jsonl").read_bytes() == whole, cut
        n_before = whole[:cut].count(b"\n")
        assert sum(decoded) == N_LINES - n_before, cut
        assert f" ({n_before} were there already), " in result.stderr or n_before == 0


@pytest.mark.parametrize(("dtype", "counted"), [("float32", False), ("int8", True), ("binary", False)])
def test_npy_goes_on_from_wherever_either_file_stopped(dtype, counted, decoded, tmp_path):
    options = ("--dtype", dtype)
    files = lines_in_one_go(tmp_path, "out.npy", *options)
    whole, rows = files["out.npy"], files["out.npy.rows.jsonl"]
    n_bytes = np.load(io.BytesIO(whole))[0].nbytes
    begin = len(whole) - N_LINES * n_bytes
    # The header counts the rows when a run ends; before that it says there are none.
    header = whole[:begin] if counted else whole[:begin].replace(b"(6, ", b"(0, ")
    assert counted or header != whole[:begin]
    for cut_rows in [0, 3, *(place for place in cuts(rows) if place > 5)][::4]:
        for cut in (0, 1, n_bytes, 4 * n_bytes - 1, 4 * n_bytes, 6 * n_bytes):
            write(tmp_path, {"out.npy": header + whole[begin : begin + cut], "out.npy.rows.jsonl": rows[:cut_rows]})
            decoded.clear()
            result = embed("--lines", "a.txt", "-d", 32, "-o", "out.npy", "--resume", *options)
            assert result.exit_code == 0, (cut, cut_rows, result.stderr)
            assert (tmp_path / "out.npy").read_bytes() == whole, (cut, cut_rows)
            assert (tmp_path / "out.npy.rows.jsonl").read_bytes() == rows, (cut, cut_rows)
            n_before = min(cut // n_bytes, rows[:cut_rows].count(b"\n"))
            assert sum(decoded) == N_LINES - n_before, (cut, cut_rows)


@pytest.mark.parametrize("there", [{}, {"out.jsonl": b"", "out.npy": b""}], ids=["no file", "an empty file"])
@pytest.mark.parametrize(("name", "dtype"), FORMATS)
def test_a_file_without_records_is_begun(name, dtype, there, tmp_path):
    files = lines_in_one_go(tmp_path, name, "--dtype", dtype)
    write(tmp_path, {path: raw for path, raw in there.items() if path == name})
    assert embed("--lines", "a.txt", "-d", 32, "-o", name, "--dtype", dtype, "--resume").exit_code == 0
    assert {path: raw for path, raw in listing(tmp_path).items() if path != "a.txt"} == files


@pytest.mark.parametrize(("name", "dtype"), FORMATS)
def test_what_is_complete_is_left_as_it_is(name, dtype, decoded, tmp_path):
    write(tmp_path, lines_in_one_go(tmp_path, name, "--dtype", dtype))
    before = listing(tmp_path)
    decoded.clear()
    result = embed("--lines", "a.txt", "-d", 32, "-o", name, "--dtype", dtype, "--resume")
    assert result.exit_code == 0
    assert result.stderr.startswith("0 texts (6 were there already), 0 tokens\n")
    assert decoded == []
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("name", "dtype"), FORMATS)
def test_inputs_that_have_grown_are_appended(name, dtype, tmp_path):
    write(tmp_path, lines_in_one_go(tmp_path, name, "--dtype", dtype))
    write(tmp_path, {"a.txt": "\n".join([*LINES, "one more", "and one more"])})
    assert embed("--lines", "a.txt", "-d", 32, "-o", name, "--dtype", dtype, "--resume").exit_code == 0
    resumed = {path: raw for path, raw in listing(tmp_path).items() if path != "a.txt"}
    for path in resumed:
        (tmp_path / path).unlink()
    assert lines_in_one_go(tmp_path, name, "--dtype", dtype) == resumed


# Options of the first run, of the second, and what is said: both what is there and what was asked for.
OTHERS = {
    "another dim": (["-d", "32"], ["-d", "64"], ["-32-plain", "-64-plain", "; write to a new file"]),
    "a task": ([], ["--task", "sts"], ["-256-plain", "another model file, dim or instruction"]),
    "a query": ([], ["--as", "query"], ["-256-plain", "another model file, dim or instruction"]),
    "another dtype": ([], ["--dtype", "int8"], ["it holds float32 vectors, not int8"]),
    "the dtype left out": (["--dtype", "float16"], [], ["it holds float16 vectors, not float32"]),
}


def assert_refused(folder: Path, arguments: str, *said: str) -> None:
    """With --resume the command fails in one sentence, and leaves all files as they are."""
    before = listing(folder)
    result = embed(*arguments.split(), "--resume")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1), result.stderr
    assert [part for part in said if part not in result.stderr] == []
    assert listing(folder) == before


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize(("first", "second", "said"), OTHERS.values(), ids=OTHERS)
def test_another_output_is_refused_and_left_alone(first, second, said, is_partial, name, tmp_path):
    assert embed("--lines", "a.txt", "-o", name, *first).exit_code == 0
    if is_partial:
        for path in tmp_path.glob("out.*"):
            path.write_bytes(path.read_bytes()[:-10])
    assert_refused(tmp_path, f"--lines a.txt -o {name} {' '.join(second)}", "Error: cannot continue out.", *said)


# What the inputs are afterwards: (files, arguments, what is said of them).
CHANGED = {
    "other inputs": (
        {"b.txt": "\n".join(LINES)}, "--lines b.txt",
        "Error: the inputs are not those of the output: text 0 is b.txt:1, it was a.txt:1; write to a new file\n",
    ),
    "a text that was edited": (
        {"a.txt": "\n".join([LINES[0], "edited", *LINES[2:]])}, "--lines a.txt",
        "Error: a.txt:2 is not the text it was when the output was begun (edited, or another field or column)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
@pytest.mark.parametrize(("files", "arguments", "said"), CHANGED.values(), ids=CHANGED)
def test_inputs_that_are_not_those_of_the_output_are_refused(files, arguments, said, name, tmp_path):
    assert embed("--lines", "a.txt", "-o", name).exit_code == 0
    write(tmp_path, files)
    assert_refused(tmp_path, f"{arguments} -o {name}", said)


def test_another_column_is_refused(tmp_path):
    write(tmp_path, {"t.csv": "id,body,subject\n1,one,eins\n2,two,zwei\n"})
    assert embed("--csv", "body", "--id", "id", "t.csv", "-o", "t.jsonl").exit_code == 0
    assert_refused(tmp_path, "--csv subject --id id t.csv -o t.jsonl", "another field or column")


FOREIGN = {
    "records of something else": '{"text": "one"}\n{"text": "two"}\n',
    "one record without a newline": '{"text": "one"}',
    "a JSON document": '{\n  "text": "one"\n}\n',
    "a list": "[1, 2]\n",
    "a number": "1\n",
    "prose": "Dear Sir or Madam",
    "bytes": b"\x89PNG\r\n\x1a\n\0\xff",
    "a blank line": "\n",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_something_else_is_refused_and_left_alone(content, tmp_path):
    write(tmp_path, {"out.jsonl": content})
    said = "Error: cannot continue out.jsonl: line 1 is not a record of q3e-local embed\n"
    assert_refused(tmp_path, "--lines a.txt -o out.jsonl", said)


def test_something_else_after_our_records_is_refused_and_left_alone(tmp_path):
    assert embed("--lines", "a.txt", "-o", "out.jsonl").exit_code == 0
    with Path("out.jsonl").open("a") as file:
        file.write("a note of mine")
    assert_refused(tmp_path, "--lines a.txt -o out.jsonl", "line 7 is not a record")


NO_ARRAY = "cannot continue out.npy: it is no array of shape (n, 32) and type float32"


@pytest.mark.parametrize("shape", [(6, 64), (6,), (6, 2, 16)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_array_of_something_else_is_refused_and_left_alone(shape, dtype, tmp_path):
    write(tmp_path, lines_in_one_go(tmp_path, "out.npy"))
    np.save("out.npy", np.zeros(shape, dtype))
    assert_refused(tmp_path, "--lines a.txt -d 32 -o out.npy", NO_ARRAY)


@pytest.mark.parametrize("rows", ["", '{"ind'])
def test_an_array_of_something_else_is_left_alone_though_its_rows_say_nothing(rows, tmp_path):
    np.save("out.npy", np.zeros((6, 64)))
    write(tmp_path, {"out.npy.rows.jsonl": rows})
    assert_refused(tmp_path, "--lines a.txt -d 32 -o out.npy", NO_ARRAY)


@pytest.mark.parametrize("n_bytes", [3, 9, 100, 127])
def test_an_array_cut_within_its_header_is_refused(n_bytes, tmp_path):
    files = lines_in_one_go(tmp_path, "out.npy")
    write(tmp_path, files | {"out.npy": files["out.npy"][:n_bytes]})
    assert_refused(tmp_path, "--lines a.txt -d 32 -o out.npy", NO_ARRAY)


def test_an_array_without_its_rows_is_refused(tmp_path):
    write(tmp_path, lines_in_one_go(tmp_path, "out.npy"))
    (tmp_path / "out.npy.rows.jsonl").unlink()
    said = "out.npy.rows.jsonl beside it is gone; replace both with --force"
    assert_refused(tmp_path, "--lines a.txt -d 32 -o out.npy", said)


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
def test_a_skipped_text_that_is_mended_is_embedded_then(name, decoded, tmp_path):
    write(tmp_path, {"1": "one", "2": "", "3": "three"})
    assert embed("1", "2", "3", "-d", 32, "-o", name, "--skip-errors").exit_code == 3
    again = embed("1", "2", "3", "-d", 32, "-o", name, "--skip-errors", "--resume")
    assert again.exit_code == 3
    assert "0 texts (2 were there already)" in again.stderr
    write(tmp_path, {"2": "two"})
    decoded.clear()
    result = embed("1", "2", "3", "-d", 32, "-o", name, "--resume")
    assert result.exit_code == 0
    assert decoded == [1]
    described = tmp_path / (name if name == "out.jsonl" else "out.npy.rows.jsonl")
    order = [json.loads(line)["index"] for line in described.read_bytes().splitlines()]
    assert order == [0, 2, 1]
    vectors = expected(["one", "three", "two"], dim=32).vectors
    if name == "out.npy":
        np.testing.assert_array_equal(np.load(name), vectors)
    else:
        assert ids(described.read_bytes()) == ["1", "3", "2"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
def test_a_run_that_failed_goes_on_once_the_input_is_mended(name, tmp_path):
    files = lines_in_one_go(tmp_path, name)
    write(tmp_path, {"a.txt": "\n".join([*LINES[:3], "far too many words here", *LINES[4:]])})
    options = ["--lines", "a.txt", "-d", "32", "-o", name, "--max-tokens", "8", "--too-long", "error"]
    result = embed(*options)
    assert result.exit_code == 1, result.stderr
    command = f"q3e-local embed -m demo {' '.join(options)} --resume"
    assert f"3 texts are in {name}; go on with: {command}\n" in result.stderr
    write(tmp_path, {"a.txt": "\n".join(LINES)})
    assert embed("--lines", "a.txt", "-d", 32, "-o", name, "--resume").exit_code == 0
    assert {path: raw for path, raw in listing(tmp_path).items() if path != "a.txt"} == files
