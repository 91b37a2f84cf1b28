"""What stands on a terminal when a command is done, and while it is at work: no line is torn or glued to another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from command import PROGRAM, command, records, write
from hub import Fault
from screen import gated, on_screen, wait_until

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals", allow_module_level=True)

# 14 or 15 ids each: four to a batch of 64.
TEXTS = [f"line {number} 预算" for number in range(12)]
TO_FILE = ("embed", "-m", "demo", "--lines", "a.txt", "-o", "o.npy")


@pytest.fixture(autouse=True)
def _texts(tmp_path):
    write(tmp_path, {"a.txt": "\n".join(TEXTS)})


# A table on the terminal that has the live line too.


@pytest.mark.parametrize(("columns", "rows"), [(40, 24), (80, 24), (100, 30), (140, 50)])
def test_the_table_is_not_torn_by_the_live_line(columns, rows, gates):
    arguments = ("embed", "-m", "demo", "--lines", "a.txt")
    with gates.on_screen(*arguments, columns=columns, rows=rows) as screen:
        screen.wait_for("0 of 12 texts")
        gates.open(1, 2)
        wait_until(lambda: any(line.startswith("a.txt:1 ") for line in screen.lines))
        wait_until(lambda: " of 12 texts" in screen.lines[-1])
        gates.finish(screen)
        shown = screen.lines
    with gates.on_screen(*arguments, columns=columns, rows=rows, stderr=subprocess.DEVNULL) as alone:
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


def test_what_libraries_print_stands_on_separate_lines(gates):
    with gates.on_screen(*TO_FILE, more={"LOUD": "2"}) as screen:
        gates.open(1)
        screen.wait_for(" of 12 texts")
        gates.open(2)
        screen.wait_for("what a library prints")
        wait_until(lambda: " of 12 texts" in screen.lines[-1])
        assert screen.lines[:-1] == ["a warning of a library", "what a library prints"]
        gates.finish(screen)
        assert screen.lines[:2] == ["a warning of a library", "what a library prints"]
        assert [line.split()[0] for line in screen.lines[2:]] == ["12", "model"]


def test_a_pipe_gets_the_rows_while_the_live_line_stays(gates):
    with gates.on_screen("embed", "-m", "demo", "--lines", "a.txt", stdout=subprocess.PIPE) as screen:
        gates.open(1, 2)
        first = screen.process.stdout.readline()
        screen.wait_for(" of 12 texts")
        assert len(screen.lines) == 1
        gates.open("all")
        piped = first + screen.process.stdout.read()
        assert screen.end() == 0
        assert [line.split()[0] for line in screen.lines] == ["12", "model"]
    assert len(records(piped)) == 12


def test_a_window_made_narrower_keeps_no_remains(gates):
    with gates.on_screen(*TO_FILE, columns=120) as screen:
        screen.wait_for("0 of 12 texts")
        screen.resize(50, 30)
        gates.open(1, 2)
        screen.wait_for("8 of 12 texts")
        assert len(screen.lines) == 1
        gates.finish(screen)
        assert "".join(screen.lines).startswith("12 texts, ")


def test_the_cursor_waits_before_the_live_line_so_that_wrapping_it_leaves_nothing(gates):
    with gates.on_screen(*TO_FILE) as screen:
        screen.wait_for("0 of 12 texts")
        assert (screen.cursor, b"\x1b[?25l" in screen.raw) == ((0, 0), False)
        gates.finish(screen)


def test_no_terminal_no_live_line(gates):
    said = gates.run("embed", "-m", "demo", "--lines", "a.txt", more={"TERM": "xterm"})
    assert [line.split()[0] for line in said.splitlines()] == ["12", "model"]
    with gates.on_screen(*TO_FILE, more={"TERM": "dumb"}) as screen:
        gates.finish(screen)
        assert b"\x1b" not in screen.raw
        assert [line.split()[0] for line in screen.lines] == ["12", "model"]


def test_loading_is_said_at_once(gates):
    gates.close("load")
    with gates.on_screen(*TO_FILE) as screen:
        gates.wait_for("load")
        screen.wait_for("loading demo (12.")
        assert len(screen.lines) == 1
        assert screen.lines[0].endswith(" MB)")
        gates.open("load")
        screen.wait_for("0 of 12 texts")
        assert "loading" not in screen.text
        gates.finish(screen)


def test_quiet_is_quiet_on_a_terminal_too(gates):
    with gates.on_screen(*TO_FILE, "-q") as screen:
        gates.finish(screen)
        assert screen.raw == b""


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_binary_formats_are_kept_from_a_terminal(form):
    with on_screen(command("--text", "one", "--format", form)) as screen:
        assert screen.end() == 2
        said = f"{form} is binary and would spoil the terminal; write it with -o FILE, or pipe it"
        assert screen.text == f"Error: {said}"


def test_nothing_to_embed_on_a_terminal():
    with on_screen(command()) as screen:
        assert screen.end() == 2
        assert screen.text == "Error: nothing to read: name files or folders, give --text, or pipe text in"


# Other commands.


def test_index_counts_files(gates, tmp_path):
    write(tmp_path, {f"notes/{number}.txt": f"note number {number} " * 3 for number in range(6)})
    with gates.on_screen("index", "notes", "--db", "n.q3e", "-m", "demo", "--no-cache") as screen:
        screen.wait_for("0 of 6 files")
        gates.open(1, 2)
        screen.wait_for(" left")
        gates.finish(screen)
        assert [line.split()[0] for line in screen.lines] == ["files:", "chunks:", "n.q3e"]


def test_what_is_counted_once_is_one(gates, tmp_path):
    write(tmp_path, {"one.txt": "one", "notes/one.txt": "one"})
    with gates.on_screen("embed", "-m", "demo", "one.txt", "-o", "o.npy") as screen:
        screen.wait_for("0 of 1 text")
        assert "1 texts" not in screen.text
        gates.finish(screen)
        assert screen.lines[0].startswith("1 text, ")
    with gates.on_screen("index", "notes", "--db", "n.q3e", "-m", "demo") as screen:
        assert screen.end() == 0
        assert screen.lines[-1].startswith("n.q3e holds 1 file, 1 chunk: ")


def keep_lines(name: str, n_lines: int) -> None:
    """Leave so many lines of an output, as an interruption does."""
    Path(name).write_bytes(b"".join(Path(name).read_bytes().splitlines(keepends=True)[:n_lines]))


def test_the_line_begins_where_resume_does(gates):
    arguments = ("embed", "-m", "demo", "--lines", "a.txt", "-o", "o.jsonl")
    gates.run(*arguments)
    keep_lines("o.jsonl", 8)
    with gates.on_screen(*arguments, "--resume") as screen:
        screen.wait_for("8 of 12 texts")
        assert " 0 of" not in screen.raw.decode()
        gates.finish(screen)
        assert screen.lines[0].startswith("4 texts (8 were there already), ")


def test_rows_of_zeros_are_counted_as_all_rows_are(gates):
    write(Path.cwd(), {"z.txt": "\n\n".join(TEXTS[:10])})
    arguments = ("embed", "-m", "demo", "--lines", "z.txt", "--blank", "zeros", "-o", "o.jsonl")
    gates.run(*arguments)
    keep_lines("o.jsonl", 7)  # four texts, and three blank ones
    gates.forget()
    gates.open(1)
    with gates.on_screen(*arguments, "--resume") as screen:
        gates.wait_for(2)
        screen.wait_for("16 of 19 texts")  # a batch of four texts, and the five blank ones around them
        gates.finish(screen)
        assert "of 10 texts" not in screen.raw.decode()


def test_a_terminal_without_braille_gets_another_spinner(gates):
    with gates.on_screen(*TO_FILE, more={"PYTHONIOENCODING": "ascii"}) as screen:
        screen.wait_for("0 of 12 texts")
        gates.finish(screen)
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
    in_background = [shutil.which("bash"), "-c", 'set -m; "$@" & wait $!', "bash"]
    with on_screen([*in_background, *gated(*TO_FILE)], environment=gates.environment) as screen:
        gates.wait_for(1)
        gates.finish(screen)
        assert [line.split()[0] for line in screen.lines[:2]] == ["12", "model"]
        assert b"0 of 12" not in screen.raw
