"""Ctrl-C on a terminal keeps what is computed, and says what is kept; a second Ctrl-C never waits."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import numpy as np
import pytest
from command import records, write
from screen import Gates, Screen, wait_until

from q3e_local import VectorIndex

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals", allow_module_level=True)

CTRL_C = b"\x03"
# 6 ids each: eight to a batch, of which a window fills two.
TEXTS = [f"line{number:02}" for number in range(60)]
FINISHING = "finishing this batch; Ctrl-C again ends at once"


@pytest.fixture(autouse=True)
def _texts(tmp_path):
    write(tmp_path, {"my texts.txt": "\n".join(TEXTS)})


@pytest.fixture
def gates(gates):
    """The first two batches need not wait."""
    gates.open(1, 2)
    return gates


@contextmanager
def interrupted(gates: Gates, *arguments, gate=3, shows=" of 60 texts", **more) -> Iterator[Screen]:
    """A command on a terminal, once Ctrl-C was pressed while the batch behind `gate` was at work."""
    with gates.on_screen(*arguments, columns=160, **more) as screen:
        gates.wait_for(gate)
        screen.wait_for(shows)
        screen.press(CTRL_C)
        screen.wait_for(FINISHING)
        yield screen


def n_kept(name: str) -> int:
    """Whole records in an output, read as its users do."""
    if name.endswith(".npy"):
        vectors = np.load(name)
        assert len(vectors) == len(Path(f"{name}.rows.jsonl").read_text().splitlines())
        return len(vectors)
    return len(records(Path(name).read_text()))


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
def test_the_batch_is_finished_and_what_is_said_to_be_kept_is_there(name, gates):
    arguments = ("embed", "-m", "demo", "--lines", "my texts.txt", "-o", name)
    with interrupted(gates, *arguments) as screen:
        assert screen.process.poll() is None
        gates.open(3)
        assert screen.end() == 130
        first, last = screen.lines
    assert not gates.has_begun(4)
    assert first == FINISHING
    n_texts = n_kept(name)
    command = f"q3e-local {shlex.join(arguments)} --resume"
    assert last == f"Interrupted: {n_texts} texts are in {name}; go on with: {command}"
    assert 16 < n_texts < 60
    # That command does go on.
    said = gates.run(*shlex.split(last.partition("q3e-local ")[2]))
    assert said.startswith(f"{60 - n_texts} texts ({n_texts} were there already), ")
    assert n_kept(name) == 60


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
def test_a_second_ctrl_c_does_not_wait_for_a_batch_that_never_ends(name, gates):
    with interrupted(gates, "embed", "-m", "demo", "--lines", "my texts.txt", "-o", name) as screen:
        screen.press(CTRL_C)
        assert screen.end() == 130
        assert screen.lines[0] == FINISHING
        assert screen.lines[1].startswith(f"Interrupted: {n_kept(name)} texts are in {name}; go on with: ")
        assert len(screen.lines) == 2


def test_what_is_said_to_be_in_a_store_is_there(gates):
    lines = [f'{{"id": {number}, "text": "{text}"}}' for number, text in enumerate(TEXTS)]
    write(Path.cwd(), {"texts.jsonl": "\n".join(lines)})
    arguments = ("embed", "-m", "demo", "texts.jsonl", "--jsonl", "text", "--id", "id", "--to", "s.sqlite")
    with interrupted(gates, *arguments) as screen:
        gates.open(3)
        assert screen.end() == 130
        last = screen.lines[-1]
    connection = apsw.Connection("s.sqlite")
    n_texts = connection.execute("SELECT count(*) FROM q3e").get
    assert last == f"Interrupted: {n_texts} texts are in s.sqlite#q3e; go on with: q3e-local {shlex.join(arguments)}"
    assert 16 < n_texts < 60
    said = gates.run(*shlex.split(last.partition("q3e-local ")[2]))
    assert said.startswith(f"{60 - n_texts} texts ({n_texts} were there already), ")
    assert connection.execute("SELECT count(*) FROM q3e").get == 60


def test_when_the_last_batch_was_at_work_all_is_done(gates):
    write(Path.cwd(), {"few.txt": "\n".join(TEXTS[:8])})
    gates.close(1)
    arguments = ("embed", "-m", "demo", "--lines", "few.txt", "-o", "few.csv.npy")
    with interrupted(gates, *arguments, gate=1, shows="0 of 8 texts") as screen:
        gates.finish(screen)
        assert [line.split()[0] for line in screen.lines] == ["finishing", "8", "model"]
    assert n_kept("few.csv.npy") == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["embed", "--lines"], "16 texts were written; with -o FILE.jsonl"),
        (["embed", "--lines", "-o", "o.csv"], "nothing is kept of 16 texts: only .jsonl"),
        (["similar"], ""),
    ],
)
def test_where_nothing_can_be_kept_the_first_ctrl_c_ends_the_command_at_once(arguments, said, gates):
    with gates.on_screen(*arguments, "-m", "demo", "my texts.txt", columns=160) as screen:
        gates.wait_for(3)
        wait_until(lambda: " of 60 texts" in screen.lines[-1])
        screen.press(CTRL_C)
        assert screen.end() == 130
        assert FINISHING not in screen.text
        assert screen.lines[-1].startswith(f"Interrupted: {said}" if said else "Interrupted.")
    assert not Path("o.csv").exists()


def test_loading_is_not_waited_for(gates):
    gates.close("load")
    with gates.on_screen("embed", "-m", "demo", "my texts.txt") as screen:
        gates.wait_for("load")
        screen.wait_for("loading demo")
        screen.press(CTRL_C)
        assert screen.end() == 130
        assert screen.lines == ["Interrupted."]


def test_sigterm_does_not_wait_for_the_batch(gates):
    arguments = ("embed", "-m", "demo", "--lines", "my texts.txt", "-o", "out.jsonl")
    with gates.on_screen(*arguments, columns=160) as screen:
        gates.wait_for(3)
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 130
        assert screen.lines[0].startswith(f"Interrupted: {n_kept('out.jsonl')} texts are in out.jsonl; go on with: ")


# Indexes.


@pytest.fixture
def notes(tmp_path: Path) -> None:
    write(tmp_path, {f"notes/{number:02}.txt": f"line{number:02}" for number in range(60)})


INDEX = ("index", "notes", "--db", "n.q3e", "-m", "demo", "--no-cache")


def test_an_index_keeps_the_files_that_it_says_it_keeps(notes, gates):
    with interrupted(gates, *INDEX, shows=" of 60 files") as screen:
        gates.open(3)
        assert screen.end() == 130
        with VectorIndex("n.q3e") as index:
            n_files = index.facts().n_files
        assert n_files > 0
        assert screen.lines == [
            FINISHING,
            f"Interrupted: {n_files} files are done and kept; go on with the others by: q3e-local {' '.join(INDEX)}",
        ]
    assert not gates.has_begun(4)


def test_a_second_ctrl_c_does_not_wait_in_an_index_either(notes, gates):
    with interrupted(gates, *INDEX, shows=" of 60 files") as screen:
        screen.press(CTRL_C)
        assert screen.end() == 130
        with VectorIndex("n.q3e") as index:
            assert screen.lines[-1].startswith(f"Interrupted: {index.facts().n_files} files are done and kept; ")


def test_ctrl_c_is_how_watching_ends(notes, gates):
    gates.open("all")
    with gates.on_screen(*INDEX, "--watch") as screen:
        screen.wait_for("watching for changes; Ctrl-C ends")
        screen.press(CTRL_C)
        assert screen.end() == 0
        assert screen.lines[-1] == "no longer watching"
        assert "Interrupted" not in screen.text


def test_a_rebuilding_says_what_is_kept_and_goes_on(notes, gates):
    write(Path.cwd(), {f"notes/{number:03}.txt": f"more{number:03}" for number in range(40)})
    gates.run(*INDEX)
    rebuild = ("index", "rebuild", "--db", "n.q3e", "-m", "demo", "-d", "64", "--no-cache")
    another = {"DIGEST": "another model"}
    gates.open(*range(1, 9))  # a window of 64 chunks, eight to a batch
    gates.forget()
    with interrupted(gates, *rebuild, gate=9, shows="64 of 100 chunks", more=another) as screen:
        gates.open(9)
        assert screen.end() == 130
        command = f"q3e-local {' '.join(rebuild)}"
        assert screen.lines[1:] == [f"Interrupted: 64 of 100 chunks are done and kept; go on with: {command}"]
    gates.close(1)
    with gates.on_screen(*rebuild, columns=160, more=another) as screen:
        screen.wait_for("64 of 100 chunks")
        gates.finish(screen)


def test_while_modules_are_loading_it_is_no_traceback(tmp_path):
    write(
        tmp_path / "slow",
        {"click.py": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(60)\n"},
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "slow"), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "q3e_local", "--version"], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
