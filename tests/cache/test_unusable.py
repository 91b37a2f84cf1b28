"""A cache whose file is locked, full, closed, in the way or taken away costs one warning, and work goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from closed import closed
from paths import TESTS
from vectors_for_caches import BIG, TEXTS, entry, is_same, item, key, warnings

from q3e_local.cache.sqlite import file


def blocked(path: Path, how: str) -> None:
    if how == "its folder is a file":
        path.parent.write_text("in the way")
    else:
        path.mkdir(parents=True)


@pytest.mark.parametrize("how", ["its folder is a file", "it is a folder"])
def test_a_path_that_cannot_be_a_file_is_told_once(opened, path, caplog, how):
    blocked(path, how)
    cache = opened()
    for _ in range(3):
        assert TEXTS.n_right(cache) == 0
        TEXTS.put(cache)
    (line,) = warnings(caplog)
    assert str(path) in line
    assert line.endswith("; going on without the cache")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is closed to this user")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_place_that_may_not_be_written_is_told_once(opened, filled, path, caplog, what):
    filled.close()
    (path.parent if what == "folder" else path).chmod(0o500)
    cache = opened()
    TEXTS.n_right(cache)
    TEXTS.put(cache)
    path.parent.chmod(0o700)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("pragma", ["query_only = ON", "max_page_count = 1"], ids=["read-only", "full"])
def test_a_full_or_read_only_disk_is_told_once_and_is_still_read(filled, path, caplog, clock, pragma):
    connection = filled._file.connection()  # the pragma acts as such a disk does, which a test cannot make
    connection.execute(f"PRAGMA {pragma}").fetchall()
    for turn in range(4):
        filled.put_many([item(f"new {turn} {number}", space=BIG) for number in range(300)])
        assert TEXTS.n_right(filled) == len(TEXTS)
        clock[0] += 100
    (line,) = warnings(caplog)
    assert line.startswith(f"cannot write {path}: ")
    connection.execute("PRAGMA query_only = OFF; PRAGMA max_page_count = 1000000").fetchall()
    filled.put_many([item("new")])
    assert is_same(filled.get_many([key("new")])[0], entry("new"))


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from vectors_for_caches import entry, is_same, item, key
from q3e_local.cache.sqlite import SqliteCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cache = SqliteCache({path!r})
cache.put_many([item("before")])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for number in range(20):
    cache.put_many([item(f"{{number}} {{each}}") for each in range(100)])
    assert is_same(cache.get_many([key("before")])[0], entry("before"))
cache.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_file_that_may_grow_no_further_costs_nothing_but_the_new_vectors(opened, path):
    path.parent.mkdir()
    program = FULL_DISK.format(tests=str(TESTS), path=str(path))
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stderr
    assert got.stderr.count("going on without the cache") == 1, got.stderr
    assert is_same(opened().get_many([key("before")])[0], entry("before"))


def test_a_locked_file_is_read_and_written_again_later(opened, path, caplog, clock, monkeypatch):
    monkeypatch.setattr(file, "BUSY_S", 0.05)  # before the cache is opened
    cache = opened()
    TEXTS.put(cache)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    for number in range(3):
        cache.put_many([item(f"new {number}")])
        assert TEXTS.n_right(cache) == len(TEXTS)
        clock[0] += 100
    assert warnings(caplog) == [f"{path} is locked by another program; going on without the cache"]
    other.execute("ROLLBACK")
    other.close()
    cache.put_many([item("later")])
    assert is_same(opened().get_many([key("later")])[0], entry("later"))
    assert len(warnings(caplog)) == 1


def test_while_it_rests_nothing_is_tried(opened, path, clock, monkeypatch):
    blocked(path, "it is a folder")
    tries: list[object] = []
    connection = file.CacheFile.connection
    monkeypatch.setattr(file.CacheFile, "connection", lambda self: tries.append(self) or connection(self))
    cache = opened()
    for _ in range(10):
        TEXTS.n_right(cache)
        TEXTS.put(cache)
    assert len(tries) == 1
    clock[0] += 31
    TEXTS.n_right(cache)
    assert len(tries) == 2


def test_a_full_disk_can_be_cleared(filled, path, clock):
    connection = filled._file.connection()  # the pragma acts as such a disk does, which a test cannot make
    connection.execute("PRAGMA max_page_count = 1").fetchall()
    TEXTS.put(filled)
    clock[0] += 31
    assert filled.clear() == len(TEXTS)
    assert not path.exists()
    TEXTS.put(filled)
    assert TEXTS.n_right(filled) == len(TEXTS)


def test_a_file_that_another_process_has_open_is_cleared_where_it_cannot_be_deleted(opened, filled, monkeypatch):
    other = opened()
    assert TEXTS.n_right(other) == len(TEXTS)
    monkeypatch.setattr(Path, "unlink", closed)
    assert filled.clear() == len(TEXTS)
    assert TEXTS.n_right(filled) == TEXTS.n_right(other) == 0
    TEXTS.put(other)
    assert TEXTS.n_right(filled) == len(TEXTS)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted there")
@pytest.mark.parametrize("how", ["deleted", "set aside"])
def test_a_file_that_another_process_took_away_is_begun_anew(opened, filled, path, caplog, how):
    if how == "deleted":
        for beside in path.parent.iterdir():
            beside.unlink()
    else:
        other = file.CacheFile(path)
        other.connection()
        other.set_aside()
    assert TEXTS.n_right(filled) == 0
    TEXTS.put(filled)
    assert TEXTS.n_right(filled) == TEXTS.n_right(opened()) == len(TEXTS)
    assert not warnings(caplog)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be renamed there")
def test_a_file_that_is_deleted_while_it_is_measured_counts_nothing(filled, path, monkeypatch):
    sizes = {end: Path(f"{path}{end}").stat().st_size for end in ("", "-wal", "-shm")}
    assert filled.stats().n_bytes == sum(sizes.values())
    stat = Path.stat

    def gone(self, **options):
        if self.name.endswith("-wal"):
            raise FileNotFoundError(self)
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", gone)
    assert filled.stats().n_bytes == sizes[""] + sizes["-shm"]
