"""Runs that are interrupted or killed, and two at once: what a run has done stays, and the next run goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import PROGRAM
from indexed_folder import Held, counts, many
from waiting import until

import q3e_local
from q3e_local import VectorIndex
from q3e_local.errors import IndexFileError, OptionError
from q3e_local.search.documents import space_of
from q3e_local.search.indexing.folders import index_folders
from q3e_local.search.indexing.tally import Tally
from q3e_local.search.places import alone


@pytest.mark.parametrize("n_before", [1, 5, 16])
def test_an_interrupted_run_goes_on(world, n_before):
    many(world.folder, 20)

    def interrupt(n_bytes: int, n_chunks: int, n_tokens: int) -> None:
        if n_chunks >= n_before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.index(progress=interrupt, chunk_tokens=900)
    n_kept = len(Held(world.db).files)
    assert n_kept <= n_before
    tally = world.index(chunk_tokens=900)
    assert counts(tally) == (20 - n_kept, 0, n_kept, 0)
    continued = Held(world.db)
    world.db.unlink()
    world.index(chunk_tokens=900)
    assert continued == Held(world.db)


def command(folder: Path, db: Path) -> list[str]:
    return [*PROGRAM, "index", str(folder), "--db", str(db), "-m", "demo", "-d", "32", "--threads", "1", "--no-cache"]


def n_files(db: Path) -> int:
    """How many files the index has so far, while another process writes it. Searches it, too."""
    try:
        with VectorIndex(db) as index:
            index.search("word7", mode="words")
            return index.facts().n_files
    except (IndexFileError, OptionError):  # the index is not there yet, or is being made
        return 0


@pytest.fixture
def in_one_go(tmp_path: Path) -> tuple[Path, Held]:
    """A folder, and what an index of it holds after a run that nothing stopped."""
    folder = tmp_path / "many"
    many(folder)
    with q3e_local.load("demo", n_threads=1) as embedder:
        space = space_of(embedder, 32)
        index_folders(tmp_path / "whole.q3e", [folder], lambda index: (embedder, space), Tally())
    return folder, Held(tmp_path / "whole.q3e")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_any_point_it_goes_on(in_one_go, tmp_path):
    folder, whole = in_one_go
    db = tmp_path / "killed.q3e"
    for n_least in (1, 20, 40):
        process = subprocess.Popen(command(folder, db), stderr=subprocess.DEVNULL)
        until(lambda least=n_least, process=process: n_files(db) >= least or process.poll() is not None)
        process.kill()
        process.wait()
    assert 40 <= n_files(db) <= 60
    subprocess.run(command(folder, db), check=True, stderr=subprocess.DEVNULL)
    assert Held(db) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_keeps_what_is_done(in_one_go, tmp_path):
    folder, whole = in_one_go
    db = tmp_path / "stopped.q3e"
    process = subprocess.Popen(command(folder, db), stderr=subprocess.PIPE, text=True)
    until(lambda: n_files(db) >= 10)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    n_kept = n_files(db)
    again = " ".join(["q3e-local", *command(folder, db)[3:]])
    assert said == f"Interrupted: {n_kept} files are done and kept; go on with the others by: {again}\n"
    subprocess.run(command(folder, db), check=True, stderr=subprocess.DEVNULL)
    assert Held(db) == whole


def test_the_second_of_two_runs_waits_and_says_so(in_one_go, tmp_path):
    folder, whole = in_one_go
    db = tmp_path / "both.q3e"
    with alone(db):
        process = subprocess.Popen(command(folder, db), stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert process.stderr.readline() == f"another run is at work on {db}; waiting for it to end\n"
        assert not db.exists()
    second = subprocess.Popen(command(folder, db), stderr=subprocess.DEVNULL)
    assert (process.wait(60), second.wait(60)) == (0, 0)
    process.stderr.close()
    assert Held(db) == whole
