"""What a cache gives is what was put in, or nothing: the same for SQLite, a real Redis and a small one of our own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake import FakeEngine
from resp import fake_redis, real_redis
from vectors_for_caches import SPACE, entry, is_same, item, key

from q3e_local.cache import Entry, VectorCache
from q3e_local.cache.choose import chosen, open_cache, size_bytes
from q3e_local.cache.redis import RedisCache
from q3e_local.cache.sqlite import SqliteCache
from q3e_local.embedding.lookup import Lookup, ReadyText
from q3e_local.embedding.preparing import Fitted, Preparation, Terms
from q3e_local.embedding.request import Embedded
from q3e_local.errors import OptionError, TextError
from q3e_local.files import cache_folder
from q3e_local.space import Space
from q3e_local.vectors import finish

GIB = 1 << 30


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with real_redis() as (port, _):
        yield f"redis://127.0.0.1:{port}/3"


@pytest.fixture(params=["SQLite", "redis-server", "our own Redis"])
def make(request, tmp_path) -> Iterator[Callable[[], VectorCache]]:
    """A function that opens the same place again."""
    opened: list[VectorCache] = []

    def of(new: Callable[[], VectorCache]) -> Callable[[], VectorCache]:
        def opening() -> VectorCache:
            opened.append(new())
            return opened[-1]

        return opening

    if request.param == "SQLite":
        yield of(lambda: SqliteCache(tmp_path / "v.sqlite"))
    elif request.param == "redis-server":
        url = request.getfixturevalue("redis_server")
        make = of(lambda: RedisCache(url))
        make().clear()
        yield make
    else:
        with fake_redis() as server:
            yield of(lambda: RedisCache(server.url))
    for cache in opened:
        cache.close()


def test_what_was_put_comes_back_to_the_last_bit_also_later(make, caplog):
    texts = [f"text {number}" for number in range(1200)]  # more than one statement takes
    first = make()
    first.put_many([item(text) for text in texts])
    later = make()
    for cache in (first, later):
        wanted = ["nobody's", *reversed(texts), "text 7"]
        got = cache.get_many([key(text) for text in wanted])
        assert got[0] is None
        assert all(is_same(one, entry(text)) for one, text in zip(got[1:], wanted[1:], strict=True))
    assert cache.get_many([]) == []
    cache.put_many([])
    assert not caplog.records


def test_the_last_put_counts(make):
    cache = make()
    cache.put_many([item("one"), (key("one"), entry("another"))])
    assert is_same(cache.get_many([key("one")])[0], entry("another"))
    cache.put_many([item("one")])
    assert is_same(cache.get_many([key("one")])[0], entry("one"))


def test_whole_cut_and_other_spaces_live_side_by_side(make):
    cache = make()
    others = [
        SPACE, replace(SPACE, dim=128), replace(SPACE, prefix="Instruct: x\nQuery:"),
        # Longer digests that begin alike, as a space is written with the beginning only.
        replace(SPACE, model_digest="ab" * 31 + "cd"),
    ]  # fmt: skip
    items = [item("text", cut_at, space) for space in others for cut_at in (None, 8, 9, 81)]
    cache.put_many(items)
    got = cache.get_many([one for one, _ in items])
    assert all(is_same(one, wanted) for one, (_, wanted) in zip(got, items, strict=True))
    assert cache.get_many([key("text", 1), key("tex"), key("text", 8, replace(SPACE, dim=65))]) == [None] * 3


@pytest.mark.parametrize(
    "change",
    [
        {"pooled": np.full(64, np.nan, np.float32)},
        {"pooled": np.array([np.inf] + [0] * 63, np.float32)},
        {"pooled": np.zeros(64, np.float32)},
        {"pooled": np.array([0] * 63 + [-np.inf], np.float32)},
        {"pooled": np.eye(1, 32, dtype=np.float32)[0]},
        {"pooled": np.eye(1, 64, dtype=np.float64)[0]},
        {"pooled": np.eye(1, 64, dtype=np.float32)},
        {"prompt_tokens": 0},
        {"prompt_tokens": -1},
        {"prompt_tokens": 2**32},
        {"truncated": True},
    ],
    ids=lambda change: " ".join(f"{name} {str(value)[:20]}" for name, value in change.items()),
)
def test_what_is_no_vector_of_the_space_is_not_kept_and_its_neighbours_are(make, change):
    cache = make()
    cache.put_many([item("before"), (key("text"), replace(entry("text"), **change)), item("after")])
    got = cache.get_many([key("before"), key("text"), key("after")])
    assert is_same(got[0], entry("before"))
    assert got[1] is None
    assert is_same(got[2], entry("after"))


def test_a_row_of_a_matrix_is_kept_as_that_row(make):
    matrix = np.asfortranarray(np.stack([entry("a").pooled, entry("b").pooled]))
    cache = make()
    cache.put_many([(key("b"), Entry(matrix[1], 2))])
    assert is_same(cache.get_many([key("b")])[0], entry("b"))


def test_stats_and_clear_by_space(make):
    other = Space("cd" * 32, 32)
    cache = make()
    assert cache.stats().n_vectors == 0
    assert cache.clear() == 0
    cache.put_many([item(f"text {number}") for number in range(300)])
    cache.put_many([item(f"text {number}", space=other) for number in range(7)])
    stats = make().stats()
    assert {one.space: one.n_vectors for one in stats.spaces} == {str(SPACE): 300, str(other): 7}
    assert {one.space: one.n_bytes for one in stats.spaces} == {str(SPACE): 300 * (256 + 20), str(other): 7 * 148}
    assert stats.n_vectors == 307
    assert stats.n_bytes >= 300 * 256
    assert cache.clear(lambda space: space == str(other)) == 7
    assert cache.get_many([key("text 1", space=other)]) == [None]
    assert is_same(cache.get_many([key("text 1")])[0], entry("text 1"))
    assert cache.clear(lambda space: False) == 0
    assert cache.clear() == 300
    assert cache.stats().n_vectors == 0
    cache.put_many([item("again")])
    assert is_same(cache.get_many([key("again")])[0], entry("again"))


def test_a_closed_cache_has_nothing_and_takes_nothing(make, caplog):
    cache = make()
    cache.put_many([item("one")])
    cache.close()
    cache.close()
    cache.put_many([item("two")])
    assert cache.get_many([key("one"), key("two")]) == [None, None]
    assert make().get_many([key("two")]) == [None]
    assert not caplog.records


def test_threads_share_one_cache(make, caplog):
    cache, wrong = make(), []

    def work(number: int) -> None:
        for turn in range(10):
            texts = [f"{(number * turn) % 5} {each}" for each in range(40)]
            cache.put_many([item(text) for text in texts])
            got = cache.get_many([key(text) for text in texts])
            wrong.extend(t for t, one in zip(texts, got, strict=True) if not is_same(one, entry(t)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not caplog.records


# What a request with a limit makes of it, which may let its texts be cut.


def lookup(cache: VectorCache, limit: int, truncate: bool) -> Lookup:
    return Lookup(Preparation(FakeEngine(), Terms("", 64, limit, truncate, "")), cache)


def keep(lookup: Lookup, text: str, kept: Entry) -> None:
    lookup.keep(
        kept.pooled.reshape(1, -1), [(key(text).text_sha256, Fitted([0] * kept.prompt_tokens, kept.truncated))]
    )


def found(lookup: Lookup, *texts: str) -> list[Embedded | TextError | None]:
    ready = (ReadyText(place, text, key(text).text_sha256) for place, text in enumerate(texts))
    return [text.known for text in lookup.all(ready)]


def is_of(known: Embedded | TextError | None, kept: Entry) -> bool:
    """Whether it is what the kept entry comes to at its full dim, to the last bit."""
    return (
        isinstance(known, Embedded)
        and known.vector.tobytes() == finish(kept.pooled.reshape(1, -1)).tobytes()
        and (known.prompt_tokens, known.truncated, known.cached) == (kept.prompt_tokens, kept.truncated, True)
    )


def test_a_request_finds_what_it_kept(make):
    request = lookup(make(), 100, truncate=True)
    assert found(request) == []
    for text in ("a", "b", "预算"):
        keep(request, text, entry(text))
    got = found(request, "预算", "c", "a", "a")
    assert [one is not None for one in got] == [True, False, True, True]
    assert is_of(got[0], entry("预算"))
    assert is_of(got[3], entry("a"))


# A text of 10 bytes and 9 tokens, kept whole, or cut at 5; by whom it may be served.
@pytest.mark.parametrize(
    ("kept_at", "limit", "truncate", "served"),
    [
        (None, 9, True, True), (None, 9, False, True), (None, 10, True, True), (None, 10**6, False, True),
        (None, 8, True, False), (None, 8, False, False), (None, 1, True, False),
        (5, 5, True, True), (5, 5, False, False), (5, 4, True, False), (5, 6, True, False), (5, 9, False, False),
        (5, 10**6, True, False),
    ],
)  # fmt: skip
def test_an_entry_serves_only_requests_it_is_right_for(make, kept_at, limit, truncate, served):
    cache, text = make(), "0123456789"
    kept = Entry(entry(text, kept_at).pooled, 9 if kept_at is None else kept_at, kept_at is not None)
    keep(lookup(cache, kept_at or 1000, truncate=kept_at is not None), text, kept)
    (got,) = found(lookup(cache, limit, truncate), text)
    assert is_of(got, kept) if served else got is None


def test_a_cut_text_and_the_whole_do_not_replace_each_other(make):
    cache, text = make(), "x" * 50
    whole, short = lookup(cache, 1000, True), lookup(cache, 5, True)
    keep(whole, text, Entry(entry(text).pooled, 40))
    keep(short, text, entry(text, 5))
    assert is_of(found(whole, text)[0], Entry(entry(text).pooled, 40))
    assert is_of(found(short, text)[0], entry(text, 5))
    assert found(lookup(cache, 5, False), text) == [None]


# SQLite alone: what it writes, what leaves first, how large it grows.


@pytest.fixture
def clock() -> list[float]:
    return [1_000_000.0]


@pytest.fixture
def opened(tmp_path, clock) -> Iterator[Callable[..., SqliteCache]]:
    caches: list[SqliteCache] = []

    def make(size: int = GIB) -> SqliteCache:
        caches.append(SqliteCache(tmp_path / "v.sqlite", size, now=lambda: clock[0], monotonic=lambda: clock[0]))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


def statements(cache: SqliteCache) -> list[str]:
    """What SQLite is asked from now on; the list grows."""
    seen: list[str] = []

    def see(cursor: object, sql: str, values: object) -> bool:
        seen.append(sql.split()[0])
        return True

    cache._file.connection().exec_trace = see
    return seen


def test_a_thousand_texts_are_two_reads_and_four_transactions(opened):
    cache, texts = opened(), [f"text {number}" for number in range(1000)]
    seen = statements(cache)
    cache.put_many([item(text) for text in texts])
    assert seen.count("BEGIN") == seen.count("COMMIT") == 4
    del seen[:]
    assert all(cache.get_many([key(text) for text in texts]))
    assert seen == ["SELECT", "SELECT"]


def test_reading_a_fresh_vector_writes_nothing_and_an_older_one_is_touched_once(opened, clock):
    cache = opened()
    cache.put_many([item(f"text {number}") for number in range(20)])
    keys = [key(f"text {number}") for number in range(20)]
    seen = statements(cache)
    for _ in range(3):
        assert all(cache.get_many(keys))
    cache.close()
    assert set(seen) == {"SELECT"}
    clock[0] += 3600
    cache = opened()
    seen = statements(cache)
    for _ in range(3):
        assert all(cache.get_many(keys))
    assert set(seen) == {"SELECT"}
    cache.close()
    assert seen.count("UPDATE") == 1


def test_many_touches_are_written_before_the_end(opened, clock):
    cache, texts = opened(), [f"text {number}" for number in range(4096)]
    cache.put_many([item(text) for text in texts])
    clock[0] += 3600
    seen = statements(cache)
    assert all(cache.get_many([key(text) for text in texts]))
    assert "UPDATE" in seen
    del seen[:]
    assert all(cache.get_many([key(text) for text in texts]))
    assert "UPDATE" not in seen


BIG = Space("ef" * 32, 4096)


def fill(cache: SqliteCache, name: str, n: int, clock: list[float]) -> list[str]:
    """`n` vectors of 16 KiB, each a second younger than the one before."""
    texts = [f"{name} {number}" for number in range(n)]
    for text in texts:
        clock[0] += 1
        cache.put_many([item(text, space=BIG)])
    return texts


def here(cache: SqliteCache, texts: list[str]) -> list[bool]:
    return [one is not None for one in cache.get_many([key(text, space=BIG) for text in texts])]


def test_the_longest_unused_leave_first(opened, clock):
    cache = opened(2_000_000)
    old = fill(cache, "old", 60, clock)
    clock[0] += 3600
    used = old[:10]
    assert all(here(cache, used))
    clock[0] += 3600
    new = fill(cache, "new", 60, clock)
    assert all(here(cache, used)), "what was read leaves after what was not"
    assert all(here(cache, new))
    rest = here(cache, old[10:])
    assert rest == sorted(rest), "the older ones have left"
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


def size_of(path: Path) -> int:
    return sum(one.stat().st_size for one in path.parent.glob("v.sqlite*"))


def test_the_file_stays_below_its_bound_whatever_is_put(opened, clock, tmp_path, caplog):
    cache = opened(3_000_000)
    for turn in range(5):
        cache.put_many([item(f"{turn} {number}", space=BIG) for number in range(400)])  # twice the bound at once
        assert (tmp_path / "v.sqlite").stat().st_size <= 3_000_000 + 256 * 17_000
    for turn in range(40):
        fill(cache, f"more {turn}", 5, clock)
    cache.close()
    assert size_of(tmp_path / "v.sqlite") <= 3_000_000
    assert opened(3_000_000).stats().n_vectors > 100
    assert not caplog.records


def test_a_smaller_bound_gives_the_space_back(opened, clock, tmp_path):
    cache = opened(GIB)
    cache.put_many([item(f"text {number}", space=BIG) for number in range(400)])
    cache.close()
    before = size_of(tmp_path / "v.sqlite")
    small = opened(2_000_000)
    fill(small, "more", 8, clock)
    small.close()
    assert size_of(tmp_path / "v.sqlite") <= 2_000_000 < before


def test_clearing_gives_the_space_back(opened, tmp_path):
    cache = opened()
    cache.put_many([item(f"text {number}", space=BIG) for number in range(300)])
    cache.put_many([item("one")])
    assert cache.clear(lambda space: space == str(BIG)) == 300
    assert size_of(tmp_path / "v.sqlite") < 200_000
    assert is_same(cache.get_many([key("one")])[0], entry("one"))


def test_clearing_all_takes_damaged_files_with_it_that_were_set_aside(opened, tmp_path):
    (tmp_path / "v.sqlite").write_bytes(b"no database" * 1000)
    cache = opened()
    cache.put_many([item("one")])
    (other := tmp_path / "other.sqlite.damaged-1").write_bytes(b"")
    assert len(list(tmp_path.glob("v.sqlite.damaged-*"))) == 1
    assert cache.clear() is not None
    assert not list(tmp_path.glob("v.sqlite.damaged-*"))
    assert other.exists()


def test_asking_an_absent_file_for_its_stats_makes_none(tmp_path):
    cache = SqliteCache(tmp_path / "sub" / "v.sqlite")
    assert cache.stats().n_vectors == cache.clear() == 0
    assert not list(tmp_path.glob("sub"))


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_only_its_user_may_read_it(tmp_path):
    cache = SqliteCache(tmp_path / "sub" / "v.sqlite")
    cache.put_many([item("one")])
    modes = {
        one.name: oct(one.stat().st_mode & 0o777) for one in (tmp_path / "sub").iterdir() if "lock" not in one.name
    }
    assert set(modes.values()) == {"0o600"}, modes
    assert oct((tmp_path / "sub").stat().st_mode & 0o777) == "0o700"
    cache.close()


# Which cache a setting means.


@pytest.mark.parametrize("setting", [None, False, "off", "OFF", "no", "false", "0", " 'off' "])
def test_settings_that_mean_none(setting):
    assert open_cache(setting) is None


@pytest.mark.parametrize("setting", [True, "on", "On", "yes", "true", "1"])
def test_settings_that_mean_the_usual_file(setting):
    cache = open_cache(setting, {})
    assert isinstance(cache, SqliteCache)
    assert (cache.path, cache.size_bytes) == (cache_folder() / "vectors.sqlite", GIB)
    assert not cache_folder().exists()


def test_settings_that_mean_a_place_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_cache("~/x.sqlite", {}).where == str(Path.home() / "x.sqlite")
    assert open_cache(Path("sub/x"), {}).where == str(tmp_path / "sub" / "x")
    assert open_cache("./on", {}).where == str(tmp_path / "on")
    assert open_cache("redis://user:secret@example.com/2", {}).where == "redis://example.com:6379/2"
    assert open_cache("rediss://[::1]:7000", {}).where == "rediss://[::1]:7000"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("", "cache must be on, off, a path or redis://host:port/db, got an empty text"),
        ("disabled", "cache must be on, off, a path or redis://host:port/db, got disabled; as a file: ./disabled"),
        ("http://user:secret@here:1", "a cache's address begins with redis:// or rediss://, got http://"),
        ("redis://here:port/0", "the cache's address must be redis://host:port/db"),
        ("redis://here:1/x?db=secret", "the cache's address must be redis://host:port/db"),
        ("redis://here/0?socket_timeout=x", "the cache's address must be redis://host:port/db"),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting, sentence):
    with pytest.raises(OptionError) as caught:
        open_cache(setting, {})
    assert str(caught.value).startswith(sentence)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "variable", "expected"),
    [
        (None, None, "on"), (None, "", "on"), (None, "off", "off"), (None, "redis://x", "redis://x"),
        (True, None, "on"), (True, "off", "on"), (True, "/a/path", "/a/path"),
        (False, None, "off"), (False, "/a/path", "off"),
    ],
)  # fmt: skip
def test_the_flag_comes_before_the_variable_and_the_variable_says_where(flag, variable, expected):
    assert chosen(flag, {} if variable is None else {"Q3E_CACHE": variable}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", GIB), ("500MB", 500_000_000), ("2GB", 2_000_000_000), ("2 gb", 2_000_000_000), ("1GiB", GIB),
        ("1.5G", 1_500_000_000), ("2000000", 2_000_000), ("'2M'", 2_000_000), ("1000KB", 1_000_000),
        ("1T", 10**12), ("1000000b", 1_000_000),
    ],
)  # fmt: skip
def test_sizes(text, expected):
    assert size_bytes({"Q3E_CACHE_SIZE": text}) == expected
    assert open_cache("x.sqlite", {"Q3E_CACHE_SIZE": text}).size_bytes == expected


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "GB", "12 cows", "999999", "1025TiB", "1MBB", "１GB"])
def test_sizes_that_are_none(text):
    with pytest.raises(OptionError, match="Q3E_CACHE_SIZE must be"):
        size_bytes({"Q3E_CACHE_SIZE": text})


def test_without_the_extra_the_answer_is_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "q3e_local.cache.redis")
    with pytest.raises(OptionError, match=r"pip install 'q3e-local\[redis\]'"):
        open_cache("redis://localhost")


def test_a_python_without_sqlite_goes_on_without_the_cache(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "q3e_local.cache.sqlite", None)
    assert open_cache(True) is None
    assert "going on without the cache" in caplog.text
