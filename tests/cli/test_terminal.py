"""What stands on a terminal when a command is done, and while it is at work: no line is torn or glued to another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from command import PROGRAM, records, write
from hub import Fault
from paths import TESTS

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals", allow_module_level=True)

from screen import Gates, on_screen, wait_until  # it imports what Windows lacks

GATED = [sys.executable, str(TESTS / "gated_engine.py")]
# 14 or 15 ids each: four to a batch of 64.
TEXTS = [f"line {number} 预算" for number in range(12)]
TO_FILE = ("embed", "-m", "demo", "--lines", "a.txt", "-o", "o.npy")
SIZES = [(40, 24), (80, 24), (100, 30), (140, 50)]


@pytest.fixture(autouse=True)
def _texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"a.txt": "\n".join(TEXTS)})


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    return Gates(tmp_path / "gates")


def gated(*arguments: object) -> list[str]:
    return [*GATED, *(str(one) for one in arguments)]


# A table on the terminal that has the live line too.


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_the_table_is_not_torn_by_the_live_line(columns, rows, gates):
    arguments = gated("embed", "-m", "demo", "--lines", "a.txt")
    with on_screen(arguments, columns, rows, gates.environment) as screen:
        screen.wait_for("0 of 12 texts")
        gates.open(1)
        gates.open(2)
        wait_until(lambda: any(line.startswith("a.txt:1 ") for line in screen.lines))
        wait_until(lambda: " of 12 texts" in screen.lines[-1])
        gates.open("all")
        assert screen.end() == 0
        shown = screen.lines
    gates.open("all")
    with on_screen(arguments, columns, rows, gates.environment, stderr=subprocess.DEVNULL) as alone:
        assert alone.end() == 0
        assert len(alone.lines) == 13
        assert shown[:13] == alone.lines
    # The summary, which a narrow terminal wraps; the seconds differ.
    summary = r"12 texts, 170 tokens in [\d.]+ s: [\d,]+ tokens/smodel demo, dim 64, space \S+"
    assert re.fullmatch(summary, "".join(shown[13:]))


@pytest.mark.parametrize("columns", [80, 120])
def test_the_demo_shows_a_table_and_a_summary_and_nothing_else(columns, tmp_path):
    notes = {f"笔记/第{number}季.md": "# 季度预算复盘\n参加人：财务部 " * 30 for number in range(7)}
    write(tmp_path, notes)
    arguments = [*PROGRAM, "embed", "笔记", "-m", "demo", "--format", "table", "--no-cache"]
    with on_screen(arguments, columns) as screen:
        assert screen.end() == 0
        header, *lines, counts, model = screen.lines
    assert header.split()[:3] == ["id", "text", "tokens"]
    assert [line.split()[0][-5:] for line in lines] == [f"{number}季.md" for number in range(7)]
    assert all("256 1.0000" in line for line in lines)
    assert counts.startswith("7 texts, ")
    assert model.startswith("model demo, dim 256, ")


def test_what_others_print_is_on_lines_of_its_own(gates):
    with on_screen(gated(*TO_FILE), 100, 30,
                   gates.environment | {"LOUD": "2"}) as screen:  # fmt: skip
        gates.open(1)
        screen.wait_for(" of 12 texts")
        gates.open(2)
        screen.wait_for("what a library prints")
        wait_until(lambda: " of 12 texts" in screen.lines[-1])
        assert screen.lines[:-1] == ["a warning of a library", "what a library prints"]
        gates.open("all")
        assert screen.end() == 0
        assert screen.lines[:2] == ["a warning of a library", "what a library prints"]
        assert [line.split()[0] for line in screen.lines[2:]] == ["12", "model"]


def test_a_pipe_gets_the_rows_while_the_live_line_stays(gates):
    with on_screen(gated("embed", "-m", "demo", "--lines", "a.txt"), 100, 30, gates.environment,
                   stdout=subprocess.PIPE) as screen:  # fmt: skip
        gates.open(1)
        gates.open(2)
        first = screen.process.stdout.readline()
        screen.wait_for(" of 12 texts")
        assert len(screen.lines) == 1
        gates.open("all")
        piped = first + screen.process.stdout.read()
        assert screen.end() == 0
        assert [line.split()[0] for line in screen.lines] == ["12", "model"]
    assert len(records(piped)) == 12


def test_a_window_made_narrower_keeps_no_remains(gates):
    with on_screen(gated(*TO_FILE), 120, 30, gates.environment) as screen:
        screen.wait_for("0 of 12 texts")
        screen.resize(50, 30)
        gates.open(1)
        gates.open(2)
        screen.wait_for("8 of 12 texts")
        assert len(screen.lines) == 1
        gates.open("all")
        assert screen.end() == 0
        assert "".join(screen.lines).startswith("12 texts, ")


def test_the_cursor_waits_before_the_live_line_so_that_wrapping_it_leaves_nothing(gates):
    with on_screen(gated(*TO_FILE), 100, 30, gates.environment) as screen:
        screen.wait_for("0 of 12 texts")
        assert (screen.cursor, b"\x1b[?25l" in screen.raw) == ((0, 0), False)
        gates.open("all")
        assert screen.end() == 0


def test_no_terminal_no_live_line(gates):
    gates.open("all")
    environment = {"TERM": "xterm", **gates.environment}
    got = subprocess.run(gated("embed", "-m", "demo", "--lines", "a.txt"), capture_output=True, check=True,
                         env=os.environ | environment)  # fmt: skip
    assert [line.split()[0] for line in got.stderr.decode().splitlines()] == ["12", "model"]
    with on_screen(gated(*TO_FILE), 100, 30,
                   gates.environment | {"TERM": "dumb"}) as screen:  # fmt: skip
        assert screen.end() == 0
        assert b"\x1b" not in screen.raw
        assert [line.split()[0] for line in screen.lines] == ["12", "model"]


def test_loading_is_said_at_once(gates):
    gates.close("load")
    with on_screen(gated(*TO_FILE), 100, 30, gates.environment) as screen:
        gates.wait_for("load")
        screen.wait_for("loading demo (3.")
        assert len(screen.lines) == 1
        assert screen.lines[0].endswith(" MB)")
        gates.open("load")
        screen.wait_for("0 of 12 texts")
        assert "loading" not in screen.text
        gates.open("all")
        assert screen.end() == 0


def test_quiet_is_quiet_on_a_terminal_too(gates):
    gates.open("all")
    with on_screen(gated("embed", "-m", "demo", "-q", "--lines", "a.txt", "-o", "o.npy"), 100, 30,
                   gates.environment) as screen:  # fmt: skip
        assert screen.end() == 0
        assert screen.raw == b""


# Other commands.


def test_index_counts_files(gates, tmp_path):
    write(tmp_path, {f"notes/{number}.txt": f"note number {number} " * 3 for number in range(6)})
    with on_screen(gated("index", "notes", "--db", "n.q3e", "-m", "demo", "--no-cache"), 100, 30,
                   gates.environment) as screen:  # fmt: skip
        screen.wait_for("0 of 6 files")
        gates.open(1)
        gates.open(2)
        screen.wait_for(" left")
        gates.open("all")
        assert screen.end() == 0
        assert [line.split()[0] for line in screen.lines] == ["files:", "chunks:", "n.q3e"]


def test_what_is_counted_once_is_one(gates, tmp_path):
    write(tmp_path, {"one.txt": "one", "notes/one.txt": "one"})
    with on_screen(gated("embed", "-m", "demo", "one.txt", "-o", "o.npy"), 100, 30, gates.environment) as screen:
        screen.wait_for("0 of 1 text")
        assert "1 texts" not in screen.text
        gates.open("all")
        assert screen.end() == 0
        assert screen.lines[0].startswith("1 text, ")
    with on_screen(gated("index", "notes", "--db", "n.q3e", "-m", "demo"), 100, 30, gates.environment) as screen:
        assert screen.end() == 0
        assert screen.lines[-1].startswith("n.q3e holds 1 file, 1 chunk: ")


def test_the_line_begins_where_resume_does(gates):
    gates.open("all")
    arguments = gated("embed", "-m", "demo", "--lines", "a.txt", "-o", "o.jsonl")
    subprocess.run([*arguments, "-q"], check=True, env=os.environ | gates.environment)
    kept = Path("o.jsonl").read_bytes().splitlines(keepends=True)[:8]
    Path("o.jsonl").write_bytes(b"".join(kept))
    gates.close("all")
    with on_screen([*arguments, "--resume"], 100, 30, gates.environment) as screen:
        screen.wait_for("8 of 12 texts")
        assert " 0 of" not in screen.raw.decode()
        gates.open("all")
        assert screen.end() == 0
        assert screen.lines[0].startswith("4 texts (8 were there already), ")


def test_rows_of_zeros_are_counted_as_all_rows_are(gates):
    write(Path.cwd(), {"z.txt": "\n\n".join(TEXTS[:10])})
    gates.open("all")
    arguments = gated("embed", "-m", "demo", "--lines", "z.txt", "--blank", "zeros", "-o", "o.jsonl")
    subprocess.run([*arguments, "-q"], check=True, env=os.environ | gates.environment)
    kept = Path("o.jsonl").read_bytes().splitlines(keepends=True)[:7]  # four texts, and three blank ones
    Path("o.jsonl").write_bytes(b"".join(kept))
    gates.close("all")
    gates.open(1)
    with on_screen([*arguments, "--resume"], 100, 30, gates.environment) as screen:
        gates.wait_for(2)
        screen.wait_for("16 of 19 texts")  # a batch of four texts, and the five blank ones around them
        gates.open("all")
        assert screen.end() == 0
        assert "of 10 texts" not in screen.raw.decode()


def test_a_terminal_without_braille_gets_another_spinner(gates):
    with on_screen(gated(*TO_FILE), 100, 30,
                   gates.environment | {"PYTHONIOENCODING": "ascii"}) as screen:  # fmt: skip
        screen.wait_for("0 of 12 texts")
        gates.open("all")
        assert screen.end() == 0
        assert screen.raw.isascii()
        assert b"?" not in screen.raw


def test_a_pull_shows_its_steps_and_leaves_no_trace_of_them(world):
    with on_screen([*PROGRAM, "pull", "tiny:1b"], 300, 30) as screen:
        assert screen.end() == 0
        said = screen.raw.decode()
        assert "downloading from 127.0.0.1" in said
        assert "checking Tiny-1B-f16.gguf" in said
        shown = [line.split()[:2] for line in screen.lines]
    assert shown == [["Pulling", "tiny:1b,"], ["1.", "download"], ["2.", "quantize"], ["tiny:1b", "is"]]


def test_a_pull_that_is_stopped_says_how_to_go_on(world):
    gate = threading.Event()
    world.hub.faults.append(Fault(gate=gate))
    with on_screen([*PROGRAM, "pull", "tiny:1b-q8_0"], 120, 30) as screen:
        screen.wait_for("downloading from 127.0.0.1")
        screen.press(b"\x03")
        assert screen.end() == 130
        gate.set()
        again = "q3e-local pull tiny:1b-q8_0"
        assert screen.lines[-1] == f"Interrupted: what was downloaded is kept; go on with: {again}"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no shell with jobs")
def test_a_job_in_the_background_leaves_the_terminal_to_the_shell(gates):
    script = 'set -m; "$@" & wait $!'
    with on_screen(
        [shutil.which("bash"), "-c", script, "bash", *gated(*TO_FILE)], 100, 30, gates.environment
    ) as screen:
        gates.wait_for(1)
        gates.open("all")
        assert screen.end() == 0
        assert [line.split()[0] for line in screen.lines[:2]] == ["12", "model"]
        assert b"0 of 12" not in screen.raw
