"""A cache's file that is damaged, or is another program's, costs one warning, and gives right vectors or none."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import apsw
import pytest
from closed import closed
from command import write
from vectors_for_caches import BIG, SPACE, TEXTS, Filling, item, warnings

from q3e_local.cache.sqlite import SqliteCache, file, table


def aside(path: Path) -> list[Path]:
    return sorted(file for file in path.parent.glob("*.damaged-*") if not file.name.endswith(("-wal", "-shm")))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of a cache: `db` after it was closed; `live` and `wal`, which has the newest rows, before that."""
    path = tmp_path_factory.mktemp("sound") / "v.sqlite"
    cache = SqliteCache(path)
    Filling(60).put(cache)
    cache.close()
    cache = SqliteCache(path)
    for number in range(60):
        cache.put_many([item(f"text {number}", space=BIG)])
    found = {"live": path.read_bytes(), "wal": Path(f"{path}-wal").read_bytes()}
    cache.close()
    return found | {"db": path.read_bytes()}


@pytest.fixture
def closed_file(filled, path) -> Path:
    """The file of a cache that has TEXTS, which nobody has open."""
    filled.close()
    return path


def sql(path: Path, statement: str, **values: object) -> None:
    with apsw.Connection(str(path)) as connection:
        connection.execute(statement, values)
    connection.close()


def changed(random: random.Random, content: bytes) -> bytes:
    """The content with random bytes, zeros or bytes from elsewhere in the file at random places, or cut."""
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
    for seed in range(40):
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        chance = random.Random(f"{part} {seed}")
        content = changed(chance, sound[part])
        path.write_bytes(content if part == "db" else sound["live"])
        if part == "wal":
            Path(f"{path}-wal").write_bytes(content)
        caplog.clear()
        cache = opened()
        n_found.append(TEXTS.n_right(cache))
        chance.choice((cache.stats, cache.clear, lambda: None))()
        TEXTS.put(cache)
        TEXTS.n_right(cache)
        cache.close()
        assert len(aside(path)) <= 1
        n_aside += len(aside(path))
        assert any("is damaged" in line for line in warnings(caplog)) or not aside(path)
        cache = opened()
        TEXTS.n_right(cache)
        cache.close()
    # The seeds cover all cases: few vectors lost, many vectors lost, and a file that was set aside.
    assert min(n_found) < len(TEXTS) / 2 + 10 < len(TEXTS) - 10 < max(n_found)
    assert n_aside or part == "wal"  # SQLite reads a log up to its first damaged frame: no damage is seen


# What lies at the path instead of a cache.
STRANGE = {
    "prose": b"These are notes, and no database at all.\n" * 100,
    "noise": random.Random(1).randbytes(50_000),
    "zeros": bytes(8192),
    "the first half of its header": b"SQLite format 3\0" + bytes(34),
    "only the beginning of its header": b"SQLite",
}


def is_begun_anew(cache: SqliteCache, path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """Check that a damaged file was set aside, with one warning. Returns where it is now."""
    TEXTS.n_right(cache)
    TEXTS.put(cache)  # the damage may be found here, and then these vectors are not kept
    TEXTS.put(cache)
    assert TEXTS.n_right(cache) == len(TEXTS)
    (kept,) = aside(path)
    (line,) = warnings(caplog)
    assert str(path) in line
    assert kept.name in line
    return kept


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_what_is_no_database_is_set_aside_whole(content, opened, path, caplog):
    write(path.parent, {path.name: content})
    assert is_begun_anew(opened(), path, caplog).read_bytes() == content


@pytest.mark.parametrize("n_bytes", [100, 1000, 4096, 5000, 40_960, 100_000])
def test_a_truncated_file_is_set_aside(sound, n_bytes, opened, path, caplog):
    write(path.parent, {path.name: sound["db"][:n_bytes]})
    assert is_begun_anew(opened(), path, caplog).stat().st_size >= n_bytes


@pytest.mark.parametrize(
    "statement",
    ["PRAGMA application_id = 7", "PRAGMA user_version = 0", "ALTER TABLE entry DROP COLUMN space"],
)
def test_a_cache_with_a_wrong_header_or_schema_is_set_aside(opened, closed_file, caplog, statement):
    sql(closed_file, statement)
    is_begun_anew(opened(), closed_file, caplog)


def test_an_empty_file_becomes_a_cache(opened, path, caplog):
    write(path.parent, {path.name: b""})
    TEXTS.put(opened())
    assert TEXTS.n_right(opened()) == len(TEXTS)
    assert not warnings(caplog)


def is_left_alone(cache: SqliteCache, path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Check that the cache leaves the file as it is, with one warning. Returns the warning without the path."""
    before = path.read_bytes()
    for _ in range(2):
        assert TEXTS.n_right(cache) == 0
        TEXTS.put(cache)
    assert cache.stats() is cache.clear() is None
    cache.close()
    assert path.read_bytes() == before
    assert not aside(path)
    (line,) = warnings(caplog)
    return line.removeprefix(f"{path} ")


def test_a_newer_schema_is_left_alone(opened, closed_file, caplog):
    sql(closed_file, f"PRAGMA user_version = {table.SCHEMA + 1}")
    assert is_left_alone(opened(), closed_file, caplog) == (
        "is of a newer q3e-local; update this one, or give Q3E_CACHE another path; going on without the cache"
    )


def test_a_database_of_another_program_is_left_alone(opened, path, caplog):
    path.parent.mkdir()
    sql(path, "CREATE TABLE entry (text)")
    assert is_left_alone(opened(), path, caplog) == (
        "is a database of another program; give Q3E_CACHE another path; going on without the cache"
    )


def test_a_damaged_file_that_cannot_be_renamed_stays(opened, path, caplog, monkeypatch):
    write(path.parent, {path.name: STRANGE["prose"]})
    monkeypatch.setattr(Path, "rename", closed)
    line = is_left_alone(opened(), path, caplog)
    assert "cannot be renamed: Permission denied; going on without the cache" in line


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
def test_a_row_that_is_not_what_was_put_is_a_miss_and_is_replaced(opened, closed_file, caplog, statement):
    with apsw.Connection(str(closed_file)) as connection:
        place = connection.execute("SELECT key FROM entry WHERE space = ? LIMIT 1", (str(SPACE),)).get
    sql(closed_file, statement, k=place, s=str(SPACE))
    cache = opened()
    assert TEXTS.n_right(cache) == TEXTS.n_right(cache) == len(TEXTS) - 1
    said = [] if "DELETE" in statement else [f"{closed_file} has a damaged vector, which is computed anew"]
    assert warnings(caplog) == said
    TEXTS.put(cache)
    assert TEXTS.n_right(cache) == len(TEXTS)
    assert not aside(closed_file)


@pytest.mark.parametrize("used", ["'soon'", "x'ff'", "1e300", "-5", "9223372036854775807"])
def test_a_damaged_time_costs_no_vector(opened, closed_file, used):
    sql(closed_file, f"UPDATE entry SET used = {used}")
    for _ in range(2):
        cache = opened()
        assert TEXTS.n_right(cache) == len(TEXTS)
        cache.close()


def test_damage_that_comes_again_is_not_set_aside_again(filled, path, caplog, clock, monkeypatch):
    def fail(*_: object) -> None:
        raise file.DamagedError("a failing disk")

    monkeypatch.setattr(table, "rows", fail)
    for _ in range(5):
        assert TEXTS.n_right(filled) == 0
        TEXTS.put(filled)
        clock[0] += 100
    assert len(aside(path)) == 1
    assert len(warnings(caplog)) == 2


def test_only_the_first_process_that_finds_the_damage_sets_the_file_aside(path):
    first, second = file.CacheFile(path), file.CacheFile(path)
    first.connection()
    second.connection()
    assert first.set_aside() is not None
    first.connection()  # to a new file
    assert second.set_aside() is None
    assert len(aside(path)) == 1
    first.disconnect()


def test_clearing_all_deletes_the_damaged_files_that_were_set_aside(opened, path):
    write(path.parent, {path.name: STRANGE["prose"]})
    (other := path.parent / "other.sqlite.damaged-1").touch()
    cache = opened()
    TEXTS.put(cache)
    assert len(aside(path)) == 2
    assert cache.clear() is not None
    assert aside(path) == [other]
