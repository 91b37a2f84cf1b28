"""The file of a cache: how large it grows, which vectors leave first, what is read and written, and its rights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake import FakeEngine
from vectors_for_caches import Filling, entry, is_same, item, key

from q3e_local import sqlite
from q3e_local.cache.sqlite import SqliteCache
from q3e_local.embedding.embedder import Embedder
from q3e_local.space import Space

BIG = Space("ef" * 32, 4096)  # a vector takes 16 KiB


def statements(cache: SqliteCache) -> list[str]:
    """The first word of each statement from now on; the list grows."""
    seen: list[str] = []

    def see(cursor: object, sql: str, values: object) -> bool:
        seen.append(sql.split()[0])
        return True

    cache._file.connection().exec_trace = see  # nothing outside tells how many statements a call takes
    return seen


def test_a_thousand_texts_are_written_in_four_transactions_and_read_in_one(opened):
    cache, texts = opened(), Filling(1000)
    seen = statements(cache)
    texts.put(cache)
    assert seen.count("BEGIN") == seen.count("COMMIT") == 4
    del seen[:]
    assert texts.n_right(cache) == 1000
    assert seen == ["BEGIN", *["SELECT"] * 1000, "COMMIT"]


def test_reading_writes_at_the_close_alone_and_only_where_a_vector_was_not_used_for_a_while(opened, clock):
    texts = Filling(20)
    texts.put(opened())
    for n_updates in (0, len(texts)):
        cache = opened()
        seen = statements(cache)
        for _ in range(3):
            assert texts.n_right(cache) == 20
        assert set(seen) == {"BEGIN", "SELECT", "COMMIT"}
        cache.close()
        assert seen.count("UPDATE") == n_updates
        clock[0] += 3600


def test_many_touches_are_written_before_the_end(opened, clock):
    cache, texts = opened(), Filling(4096)
    texts.put(cache)
    clock[0] += 3600
    seen = statements(cache)
    for is_written in (True, False):
        assert texts.n_right(cache) == 4096
        assert ("UPDATE" in seen) is is_written
        del seen[:]


def fill(cache: SqliteCache, name: str, n: int, clock: list[float]) -> list[str]:
    """Put `n` vectors, a second after each other."""
    texts = [f"{name} {number}" for number in range(n)]
    for text in texts:
        clock[0] += 1
        cache.put_many([item(text, space=BIG)])
    return texts


def here(cache: SqliteCache, texts: list[str]) -> list[bool]:
    return [found is not None for found in cache.get_many([key(text, space=BIG) for text in texts])]


def test_the_longest_unused_leave_first(opened, clock):
    cache = opened(2_000_000)
    old = fill(cache, "old", 60, clock)
    clock[0] += 3600
    assert all(here(cache, old[:10]))
    clock[0] += 3600
    new = fill(cache, "new", 60, clock)
    assert all(here(cache, old[:10])), "a vector that was read leaves before others"
    assert all(here(cache, new))
    rest = here(cache, old[10:])
    assert rest == sorted(rest), "a vector leaves before an older vector"
    assert not all(rest)


@pytest.mark.parametrize("hours", [-24 * 400, -1, 24 * 400])
def test_a_clock_that_was_wrong_keeps_nothing_for_ever(opened, clock, hours):
    cache = opened(2_000_000)
    wrong = fill(cache, "wrong", 60, clock)
    clock[0] += 3600 * hours
    assert all(here(cache, wrong[:20]))
    for turn in range(6):
        new = fill(cache, f"new {turn}", 60, clock)
    assert all(here(cache, new))
    assert not any(here(cache, wrong))


def test_the_file_stays_below_its_bound_whatever_is_put(opened, clock, path, caplog):
    cache = opened(3_000_000)
    for turn in range(5):
        cache.put_many([item(f"{turn} {number}", space=BIG) for number in range(400)])  # twice the bound at once
        assert path.stat().st_size <= 3_000_000 + 256 * 17_000
    for turn in range(40):
        fill(cache, f"more {turn}", 5, clock)
    cache.close()
    assert sqlite.n_bytes(path) <= 3_000_000
    assert opened(3_000_000).stats().n_vectors > 100
    assert not caplog.records


def test_a_smaller_bound_gives_the_space_back(opened, clock, path):
    cache = opened()
    Filling(400, (BIG,)).put(cache)
    cache.close()
    assert sqlite.n_bytes(path) > 2_000_000
    cache = opened(2_000_000)
    fill(cache, "more", 8, clock)
    cache.close()
    assert sqlite.n_bytes(path) <= 2_000_000


def test_clearing_gives_the_space_back(opened, path):
    cache = opened()
    Filling(300, (BIG,)).put(cache)
    cache.put_many([item("one")])
    assert cache.clear(lambda space: space == str(BIG)) == 300
    assert sqlite.n_bytes(path) < 200_000
    assert is_same(cache.get_many([key("one")])[0], entry("one"))


def test_asking_an_absent_file_for_its_stats_makes_none(opened, path):
    assert opened().stats().n_vectors == opened().clear() == 0
    assert not path.parent.exists()


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_only_its_user_may_read_it(opened, path):
    def mode(file: Path) -> str:
        return oct(file.stat().st_mode & 0o777)

    opened().put_many([item("one")])
    modes = {file.name: mode(file) for file in path.parent.iterdir() if "lock" not in file.name}
    assert set(modes.values()) == {"0o600"}, modes
    assert mode(path.parent) == "0o700"


def test_no_text_lies_in_the_file(opened, path):
    with Embedder(FakeEngine(), "fake", cache=opened()) as embedder:
        embedder.embed_documents(["a very secret sentence"])
    assert b"secret" not in path.read_bytes()
