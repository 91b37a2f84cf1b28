"""A cache's file that is damaged, locked, full, another program's or gone: a right vector or none, one warning."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from paths import TESTS
from vectors_for_caches import SPACE, entry, is_same, item, key

from q3e_local.cache import Entry
from q3e_local.cache.sqlite import SqliteCache, file, table
from q3e_local.space import Space

BIG = Space("ef" * 32, 1024)  # its records take overflow pages
TEXTS = [f"text {number}" for number in range(60)]


@pytest.fixture
def clock() -> list[float]:
    return [1_000_000.0]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "cache" / "v.sqlite"


@pytest.fixture
def opened(path, clock) -> Iterator[Callable[[], SqliteCache]]:
    caches: list[SqliteCache] = []

    def make() -> SqliteCache:
        caches.append(SqliteCache(path, now=lambda: clock[0], monotonic=lambda: clock[0]))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


def put(cache: SqliteCache) -> None:
    cache.put_many([item(text) for text in TEXTS])
    cache.put_many([item(text, space=BIG) for text in TEXTS])


def n_right(cache: SqliteCache) -> int:
    """How many of the vectors are there. Fails the test when one is another than it must be."""
    n_found = 0
    for space in (SPACE, BIG):
        for text, got in zip(TEXTS, cache.get_many([key(text, space=space) for text in TEXTS]), strict=True):
            assert got is None or is_same(got, entry(text, space=space))
            n_found += got is not None
    return n_found


ALL = 2 * len(TEXTS)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def aside(path: Path) -> list[Path]:
    return sorted(one for one in path.parent.glob("*.damaged-*") if not one.name.endswith(("-wal", "-shm")))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of a cache: `db` is closed; `live` and `wal` are it before, with its newest rows in the second."""
    path = tmp_path_factory.mktemp("sound") / "v.sqlite"
    cache = SqliteCache(path)
    cache.put_many([item(text) for text in TEXTS])
    cache.close()
    cache = SqliteCache(path)
    for text in TEXTS:
        cache.put_many([item(text, space=BIG)])
    found = {"live": path.read_bytes(), "wal": Path(f"{path}-wal").read_bytes()}
    cache.close()
    return found | {"db": path.read_bytes()}


def changed(random: random.Random, content: bytes) -> bytes:
    """Some bytes are others, or zeros, or come from elsewhere in the file."""
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 3, 20, 100))):
        at, length = random.randrange(len(damaged)), random.choice((1, 1, 4, 64, 4096))
        kind, other = random.randrange(4), random.randrange(len(damaged))
        length = min(length, len(damaged) - max(at, other))
        damaged[at : at + length] = (
            random.randbytes(length), bytes(length), damaged[other : other + length], b"\xff" * length,
        )[kind]  # fmt: skip
    if random.random() < 0.2:
        del damaged[random.randrange(len(damaged)) :]
    return bytes(damaged)


@pytest.mark.parametrize("part", ["db", "wal"])
def test_whatever_bytes_are_damaged_a_vector_is_right_or_absent(sound, part, opened, path, caplog):
    n_found, n_aside = [], 0
    for seed in range(80):
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        chance = random.Random(f"{part} {seed}")
        content = changed(chance, sound[part])
        path.write_bytes(content if part == "db" else sound["live"])
        if part == "wal":
            Path(f"{path}-wal").write_bytes(content)
        caplog.clear()
        cache = opened()
        n_found.append(n_right(cache))
        chance.choice((cache.stats, cache.clear, lambda: None))()
        put(cache)
        n_right(cache)
        cache.close()
        assert len(aside(path)) <= 1
        if aside(path):
            n_aside += 1
            assert sum("is damaged" in line for line in warnings(caplog)) >= 1
        cache = opened()
        n_right(cache)
        cache.close()
    # The loop has met all cases: little lost, much lost, and a file that was set aside.
    assert min(n_found) < ALL / 2 + 10 < ALL - 10 < max(n_found)
    assert n_aside or part == "wal"  # a damaged frame ends it: what SQLite reads is what was there before


# What lies at the path instead of a cache.
STRANGE = {
    "prose": b"These are notes, and no database at all.\n" * 100,
    "noise": random.Random(1).randbytes(50_000),
    "zeros": bytes(8192),
    "the first half of its header": b"SQLite format 3\0" + bytes(34),
    "only the beginning of its header": b"SQLite",
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_what_is_no_database_is_set_aside_whole_and_told_once(content, opened, path, caplog):
    path.parent.mkdir()
    path.write_bytes(content)
    cache = opened()
    assert n_right(cache) == 0
    put(cache)
    assert n_right(cache) == ALL
    (kept,) = aside(path)
    assert kept.read_bytes() == content
    assert len(warnings(caplog)) == 1
    assert str(path) in caplog.text
    assert kept.name in caplog.text


@pytest.mark.parametrize("n_bytes", [100, 1000, 4096, 5000, 40_960, 100_000])
def test_a_truncated_file_is_set_aside(sound, n_bytes, opened, path, caplog):
    path.parent.mkdir()
    path.write_bytes(sound["db"][:n_bytes])
    cache = opened()
    n_right(cache)
    put(cache)
    assert n_right(cache) == ALL
    assert [one.stat().st_size >= n_bytes for one in aside(path)] == [True]
    assert len(warnings(caplog)) == 1


def test_an_empty_file_becomes_a_cache(opened, path, caplog):
    path.parent.mkdir()
    path.touch()
    put(opened())
    assert n_right(opened()) == ALL
    assert not warnings(caplog)


def sql(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def untouched(cache: SqliteCache, path: Path) -> None:
    """The cache stands aside and leaves the file as it is."""
    before = path.read_bytes()
    assert n_right(cache) == 0
    put(cache)
    assert n_right(cache) == 0
    assert cache.stats() is cache.clear() is None
    cache.close()
    assert path.read_bytes() == before
    assert not aside(path)


def test_a_newer_schema_is_left_alone(opened, path, caplog):
    cache = opened()
    put(cache)
    cache.close()
    sql(path, f"PRAGMA user_version = {table.SCHEMA + 1}")
    untouched(opened(), path)
    (line,) = warnings(caplog)
    advice = "update this one, or give Q3E_CACHE another path"
    assert line == f"{path} is of a newer q3e-local; {advice}; going on without the cache"


def test_a_database_of_another_program_is_left_alone(opened, path, caplog):
    path.parent.mkdir()
    sql(path, "CREATE TABLE entry (text)", "INSERT INTO entry VALUES ('mine')")
    untouched(opened(), path)
    (line,) = warnings(caplog)
    advice = "give Q3E_CACHE another path"
    assert line == f"{path} is a database of another program; {advice}; going on without the cache"


@pytest.mark.parametrize(
    "statement",
    ["PRAGMA application_id = 7", "PRAGMA user_version = 0", "ALTER TABLE entry DROP COLUMN space"],
)
def test_a_cache_with_a_wrong_header_or_schema_is_set_aside(opened, path, caplog, statement):
    cache = opened()
    put(cache)
    cache.close()
    sql(path, statement)
    cache = opened()
    n_right(cache)
    put(cache)  # what is put while the damage is found is not kept
    put(cache)
    assert n_right(cache) == ALL
    assert len(aside(path)) == len(warnings(caplog)) == 1


ROW = "UPDATE entry SET record = {} WHERE key = :k"


@pytest.mark.parametrize(
    "statement",
    [
        ROW.format("(SELECT record FROM entry WHERE key != :k AND space = :s LIMIT 1)"),  # of another text
        ROW.format("(SELECT record FROM entry WHERE space != :s LIMIT 1)"),
        ROW.format("CAST(substr(record, 1, 200) || x'00' || substr(record, 202) AS BLOB)"),  # a number
        ROW.format("CAST(substr(record, 1, 16) || x'ff' || substr(record, 18) AS BLOB)"),  # the count
        ROW.format("substr(record, 1, 100)"),
        ROW.format("x''"),
        ROW.format("'text'"),
        ROW.format("CAST(x'ff80' AS TEXT)"),
        ROW.format("12"),
        ROW.format("1.5, used = 'never'"),
        "DELETE FROM entry WHERE key = :k",
    ],
)
def test_a_row_that_is_not_what_was_put_is_a_miss_and_is_replaced(opened, path, caplog, statement):
    cache = opened()
    put(cache)
    cache.close()
    connection = apsw.Connection(str(path))
    (place,) = connection.execute("SELECT key FROM entry WHERE space = ? LIMIT 1", (str(SPACE),)).fetchone()
    connection.execute(statement, {"k": place, "s": str(SPACE)})
    connection.close()
    cache = opened()
    assert n_right(cache) == n_right(cache) == ALL - 1
    if "DELETE" not in statement:
        assert warnings(caplog) == [f"{path} has a damaged vector, which is computed anew"]
    put(cache)
    assert n_right(cache) == ALL
    assert not aside(path)


@pytest.mark.parametrize("used", ["'soon'", "x'ff'", "1e300", "-5", "9223372036854775807"])
def test_a_damaged_time_costs_no_vector(opened, path, used, clock):
    cache = opened()
    put(cache)
    cache.close()
    sql(path, f"UPDATE entry SET used = {used}")
    cache = opened()
    assert n_right(cache) == ALL
    cache.close()
    assert n_right(opened()) == ALL


def test_damage_that_comes_again_is_not_set_aside_again(opened, path, caplog, clock, monkeypatch):
    def fail(*_: object) -> None:
        raise file.DamagedError("a failing disk")

    cache = opened()
    put(cache)
    monkeypatch.setattr(table, "rows", fail)
    for _ in range(5):
        assert n_right(cache) == 0
        put(cache)
        clock[0] += 100
    assert len(aside(path)) == 1
    assert len(warnings(caplog)) == 2


def test_a_damaged_file_that_cannot_be_renamed_stays(opened, path, caplog, monkeypatch):
    def refuse(self: Path, target: object) -> None:
        raise PermissionError(13, "Permission denied")

    path.parent.mkdir()
    path.write_bytes(STRANGE["prose"])
    monkeypatch.setattr(Path, "rename", refuse)
    untouched(opened(), path)
    (line,) = warnings(caplog)
    assert "cannot be renamed: Permission denied; going on without the cache" in line


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
        assert n_right(cache) == 0
        put(cache)
    (line,) = warnings(caplog)
    assert str(path) in line
    assert line.endswith("; going on without the cache")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is closed to this user")
@pytest.mark.parametrize("closed", ["folder", "file"])
def test_a_place_that_may_not_be_written_is_told_once(opened, path, caplog, closed):
    cache = opened()
    put(cache)
    cache.close()
    (path.parent if closed == "folder" else path).chmod(0o500)
    cache = opened()
    n_right(cache)
    put(cache)
    path.parent.chmod(0o700)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("pragma", ["query_only = ON", "max_page_count = 1"], ids=["read-only", "full"])
def test_a_full_or_read_only_disk_is_told_once_and_is_still_read(opened, path, caplog, clock, pragma):
    cache = opened()
    put(cache)
    cache._file.connection().execute(f"PRAGMA {pragma}").fetchall()
    for number in range(4):
        cache.put_many([item(f"new {number} {each}", space=BIG) for each in range(300)])
        assert n_right(cache) == ALL
        clock[0] += 100
    (line,) = warnings(caplog)
    assert line.startswith(f"cannot write {path}: ")
    cache._file.connection().execute("PRAGMA query_only = OFF")
    cache._file.connection().execute("PRAGMA max_page_count = 1000000").fetchall()
    cache.put_many([item("new")])
    assert is_same(cache.get_many([key("new")])[0], entry("new"))


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
    assert not aside(path)


def test_a_locked_file_is_read_and_written_again_later(opened, path, caplog, clock, monkeypatch):
    monkeypatch.setattr(file, "BUSY_S", 0.05)
    cache = opened()
    put(cache)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    for number in range(3):
        cache.put_many([item(f"new {number}")])
        assert n_right(cache) == ALL
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
        n_right(cache)
        put(cache)
    assert len(tries) == 1
    clock[0] += 31
    n_right(cache)
    assert len(tries) == 2


def test_a_full_disk_can_be_cleared(opened, path, caplog, clock):
    cache = opened()
    put(cache)
    cache._file.connection().execute("PRAGMA max_page_count = 1").fetchall()
    put(cache)
    clock[0] += 31
    assert cache.clear() == ALL
    assert not path.exists()
    put(cache)
    assert n_right(cache) == ALL


def test_a_file_that_another_process_has_open_is_cleared_where_it_cannot_be_deleted(opened, path, monkeypatch):
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    cache, other = opened(), opened()
    put(cache)
    assert n_right(other) == ALL
    monkeypatch.setattr(Path, "unlink", refuse)
    assert cache.clear() == ALL
    assert n_right(cache) == n_right(other) == 0
    put(other)
    assert n_right(cache) == ALL


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted there")
@pytest.mark.parametrize("how", ["deleted", "set aside"])
def test_a_file_that_another_process_took_away_is_begun_anew(opened, path, caplog, how):
    cache = opened()
    put(cache)
    if how == "deleted":
        for one in path.parent.iterdir():
            one.unlink()
    else:
        other = file.CacheFile(path)
        other.connection()
        other.set_aside()
    assert n_right(cache) == 0
    put(cache)
    assert n_right(cache) == n_right(opened()) == ALL
    assert not warnings(caplog)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be renamed there")
def test_a_file_that_goes_while_it_is_measured_counts_nothing(opened, path, monkeypatch):
    cache = opened()
    put(cache)
    beside = Path(f"{path}-wal")
    n_bytes = path.stat().st_size + beside.stat().st_size + Path(f"{path}-shm").stat().st_size
    assert cache.stats().n_bytes == n_bytes
    stat = Path.stat

    def gone(self, **options):
        if self == beside:
            raise FileNotFoundError(self)
        return stat(self, **options)

    n_beside = stat(beside).st_size
    monkeypatch.setattr(Path, "stat", gone)
    assert cache.stats().n_bytes == n_bytes - n_beside


def test_of_two_that_find_the_damage_only_the_first_sets_the_file_aside(opened, path):
    first, second = opened(), opened()
    put(first)
    assert n_right(second) == ALL
    first._set_aside(file.DamagedError("found by both"))
    put(first)
    second._set_aside(file.DamagedError("found by both"))
    assert len(aside(path)) == 1
    assert n_right(first) == n_right(second) == ALL


# Several processes.

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


def sound_rows(cache: SqliteCache, n_texts: int) -> int:
    texts = [f"text {number}" for number in range(n_texts)]
    got: list[Entry | None] = cache.get_many([key(text) for text in texts])
    assert all(one is None or is_same(one, entry(text)) for text, one in zip(texts, got, strict=True))
    return sum(one is not None for one in got)


def is_sound(path: Path) -> bool:
    connection = apsw.Connection(str(path))
    answer = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return answer == [("ok",)]


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
        n_rows = sound_rows(cache, 4000)
        assert n_rows >= max(n_before, 40 * (int(line) + 1)), "what was written before is there"
        n_before = n_rows
        cache.close()
        assert is_sound(path)
    assert not warnings(caplog)
    assert not aside(path)


@pytest.mark.parametrize("size", [1 << 30, 1_000_000], ids=["roomy", "evicting"])
def test_processes_that_write_at_once_lose_nothing(opened, path, caplog, size):
    processes = [writer(path, size, turns=30) for _ in range(3)]
    for process in processes:
        _, talk = process.communicate()
        assert (process.returncode, talk) == (0, "")
    n_rows = sound_rows(opened(), 1200)
    assert n_rows == 1200 if size > 1_000_000 else 0 < n_rows <= 1200
    opened().close()
    assert is_sound(path)
    assert not warnings(caplog)


def test_processes_that_begin_a_file_at_once_begin_one(path):
    processes = [writer(path, turns=1) for _ in range(4)]
    for process in processes:
        _, talk = process.communicate()
        assert (process.returncode, talk) == (0, "")
    assert not aside(path)


def _in_a_child(cache: SqliteCache, answer: Any) -> None:
    right = n_right(cache)
    cache.put_many([item("of the child")])
    cache.close()
    answer.put(right)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are not forked there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own(opened, path):
    cache = opened()
    put(cache)
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    with cache._lock:  # another thread is at work just now
        child = context.Process(target=_in_a_child, args=(cache, answer))
        child.start()
        assert answer.get(timeout=60) == ALL
        child.join()
    assert n_right(cache) == ALL
    assert is_same(cache.get_many([key("of the child")])[0], entry("of the child"))
    cache.close()
    assert is_sound(path)


def test_threads_that_close_it_disturb_nobody(opened):
    cache = opened()
    put(cache)
    threads = [threading.Thread(target=one) for one in (cache.close, lambda: n_right(cache), lambda: put(cache)) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert n_right(opened()) == ALL
