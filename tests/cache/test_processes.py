"""Processes and threads that use the file of a cache at once."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from paths import TESTS
from vectors_for_caches import Filling, entry, is_same, item, key, warnings

from q3e_local.cache.sqlite import SqliteCache

TEXTS = Filling(120)

WRITER = """
import sys
sys.path.insert(0, {tests!r})
from vectors_for_caches import item
from q3e_local.cache.sqlite import SqliteCache
cache = SqliteCache({path!r}, {size})
for turn in range({turns}):
    names = [f"text {{number}}" for number in range(turn * 40, turn * 40 + 40)]
    cache.put_many([item(name) for name in names])
    print(turn, flush=True)
cache.close()
"""


def writer(path: Path, size: int = 1 << 30, turns: int = 1_000_000) -> subprocess.Popen[str]:
    program = WRITER.format(tests=str(TESTS), path=str(path), size=size, turns=turns)
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end_well(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        _, talk = process.communicate()
        assert (process.returncode, talk) == (0, "")


def is_sound(path: Path) -> bool:
    """Whether the file was never set aside, and SQLite finds no fault in it."""
    with closing(apsw.Connection(str(path))) as connection:
        is_ok = connection.execute("PRAGMA integrity_check").get == "ok"
    return is_ok and not list(path.parent.glob("*.damaged-*"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_writer_that_is_killed_leaves_a_sound_file(opened, path, caplog):
    n_before = 0
    for turn in range(8):
        process = writer(path)
        assert process.stdout is not None
        for _ in range(3 + 4 * turn):
            line = process.stdout.readline()
        process.kill()
        process.communicate()
        cache = opened()
        n_rows = Filling(4000).n_right(cache)
        assert n_rows >= max(n_before, 40 * (int(line) + 1)), "vectors that were written before are lost"
        n_before = n_rows
        cache.close()
        assert is_sound(path)
    assert not warnings(caplog)


@pytest.mark.parametrize("size", [1 << 30, 1_000_000], ids=["roomy", "evicting"])
def test_processes_that_write_at_once_lose_nothing(opened, path, caplog, size):
    end_well(*[writer(path, size, turns=30) for _ in range(3)])
    n_rows = Filling(1200).n_right(opened())
    assert n_rows == 1200 if size > 1_000_000 else 0 < n_rows <= 1200
    opened().close()
    assert is_sound(path)
    assert not warnings(caplog)


def test_processes_that_begin_a_file_at_once_begin_one(path):
    end_well(*[writer(path, turns=1) for _ in range(4)])
    assert is_sound(path)


def _in_a_child(cache: SqliteCache, answer: Any) -> None:
    right = TEXTS.n_right(cache)
    cache.put_many([item("of the child")])
    cache.close()
    answer.put(right)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are not forked there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own(opened, path):
    cache = opened()
    TEXTS.put(cache)
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    with cache._lock:  # a thread that is at work holds it, which no test can time
        child = context.Process(target=_in_a_child, args=(cache, answer))
        child.start()
        assert answer.get(timeout=60) == 120
        child.join()
    assert TEXTS.n_right(cache) == 120
    assert is_same(cache.get_many([key("of the child")])[0], entry("of the child"))
    cache.close()
    assert is_sound(path)


def test_a_thread_that_closes_the_cache_disturbs_no_other(opened):
    cache = opened()
    TEXTS.put(cache)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda do: do(cache), (SqliteCache.close, TEXTS.n_right, TEXTS.put) * 4))
    assert TEXTS.n_right(opened()) == 120
