"""A file that lands whole, and a lock between processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from q3e_local.files import alone, land, landing, rows_file


def test_a_file_lands_in_a_folder_that_is_made_for_it(tmp_path):
    path = tmp_path / "a" / "b.json"
    land(path, "预算\n")
    assert path.read_bytes() == "预算\n".encode()
    land(path, "new")
    assert (path.read_text(), [each.name for each in path.parent.iterdir()]) == ("new", ["b.json"])


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with landing(path) as stream:
            stream.write(b"half")
            assert path.read_bytes() == b"old"
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"a.bin": b"old"}


def test_the_lines_about_rows_are_beside_their_array():
    assert rows_file(Path("x/a.npy")) == Path("x/a.npy.rows.jsonl")


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its stdin ends."""
    program = (
        "import sys; from pathlib import Path; from q3e_local.files import alone\n"
        "with alone(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_a_lock_that_another_process_holds_is_waited_for(tmp_path):
    lock = tmp_path / "locks" / "a.lock"
    waited = []
    with held_elsewhere(lock) as other:

        def end_the_other() -> None:
            waited.append("once")
            assert other.stdin is not None
            other.stdin.close()

        with alone(lock, end_the_other):
            assert other.wait() == 0
    with alone(lock, lambda: waited.append("again")):
        pass
    assert waited == ["once"]


def test_a_wait_that_has_an_end_or_is_refused(tmp_path):
    def refuse() -> None:
        raise ValueError("busy")

    lock = tmp_path / "a.lock"
    with held_elsewhere(lock):
        with pytest.raises(TimeoutError), alone(lock, wait_s=0.05):
            pass
        with pytest.raises(ValueError, match="busy"), alone(lock, refuse):
            pass
