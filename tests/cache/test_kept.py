"""A cache gives what was put in, or nothing: in SQLite, in a real Redis, and in the small Redis of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np
import pytest
from resp import fake_redis, real_redis
from vectors_for_caches import SPACE, Filling, entry, is_same, item, key

from q3e_local.cache import Entry, VectorCache
from q3e_local.cache.redis import RedisCache
from q3e_local.cache.sqlite import SqliteCache
from q3e_local.space import Space


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with real_redis() as (port, _):
        yield f"redis://127.0.0.1:{port}/3"


@pytest.fixture(params=["SQLite", "redis-server", "our own Redis"])
def make(request, path) -> Iterator[Callable[[], VectorCache]]:
    """A function that opens the same cache again."""
    with ExitStack() as stack:
        if request.param == "SQLite":
            new = lambda: SqliteCache(path)  # noqa: E731
        elif request.param == "redis-server":
            url = request.getfixturevalue("redis_server")
            new = lambda: RedisCache(url)  # noqa: E731
            new().clear()
        else:
            server = stack.enter_context(fake_redis())
            new = lambda: RedisCache(server.url)  # noqa: E731
        yield lambda: stack.enter_context(closing(new()))


@pytest.fixture
def cache(make) -> VectorCache:
    """An open, empty cache."""
    return make()


def test_what_was_put_comes_back_to_the_last_bit_also_later(make, cache, caplog):
    texts = Filling(1200)  # more texts than a statement or a command takes
    texts.put(cache)
    for opened in (cache, make()):
        assert texts.n_right(opened) == 1200
        absent, *twice = opened.get_many([key("absent"), key("text 7"), key("text 7")])
        assert absent is None
        assert all(is_same(got, entry("text 7")) for got in twice)
    assert cache.get_many([]) == []
    cache.put_many([])
    assert not caplog.records


def test_the_last_put_counts(cache):
    cache.put_many([item("one"), (key("one"), entry("another"))])
    assert is_same(cache.get_many([key("one")])[0], entry("another"))
    cache.put_many([item("one")])
    assert is_same(cache.get_many([key("one")])[0], entry("one"))


def test_entries_of_every_space_and_limit_live_side_by_side(cache):
    spaces = [
        SPACE, replace(SPACE, dim=128), replace(SPACE, prefix="Instruct: x\nQuery:"),
        # The written form of a space has only the beginning of the digest, which these two share.
        replace(SPACE, model_digest="ab" * 31 + "cd"),
    ]  # fmt: skip
    items = [item("text", cut_at, space) for space in spaces for cut_at in (None, 8, 9, 81)]
    cache.put_many(items)
    found = cache.get_many([key for key, _ in items])
    assert all(is_same(got, wanted) for got, (_, wanted) in zip(found, items, strict=True))
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
def test_what_is_no_vector_of_the_space_is_not_kept_and_its_neighbours_are(cache, change):
    cache.put_many([item("before"), (key("text"), replace(entry("text"), **change)), item("after")])
    before, wrong, after = cache.get_many([key("before"), key("text"), key("after")])
    assert is_same(before, entry("before"))
    assert wrong is None
    assert is_same(after, entry("after"))


def test_a_row_of_a_matrix_is_kept_as_that_row(cache):
    matrix = np.asfortranarray(np.stack([entry("a").pooled, entry("b").pooled]))
    cache.put_many([(key("b"), Entry(matrix[1], 2))])
    assert is_same(cache.get_many([key("b")])[0], entry("b"))


def test_stats_and_clear_by_space(make, cache):
    small = Space("cd" * 32, 32)
    many, few = Filling(300), Filling(7, (small,))
    assert cache.stats().n_vectors == cache.clear() == 0
    many.put(cache)
    few.put(cache)
    stats = make().stats()
    counts = {of_space.space: (of_space.n_vectors, of_space.n_bytes) for of_space in stats.spaces}
    assert counts == {str(SPACE): (300, 300 * (256 + 20)), str(small): (7, 7 * (128 + 20))}
    assert stats.n_vectors == 307
    assert stats.n_bytes >= 300 * 256
    assert cache.clear(lambda space: space == str(small)) == 7
    assert (few.n_right(cache), many.n_right(cache)) == (0, 300)
    assert cache.clear(lambda space: False) == 0
    assert cache.clear() == 300
    assert cache.stats().n_vectors == 0
    few.put(cache)
    assert few.n_right(cache) == 7


def test_a_closed_cache_has_nothing_and_takes_nothing(make, cache, caplog):
    cache.put_many([item("one")])
    cache.close()
    cache.close()
    cache.put_many([item("two")])
    assert cache.get_many([key("one"), key("two")]) == [None, None]
    assert make().get_many([key("two")]) == [None]
    assert not caplog.records


def test_threads_share_a_cache(cache, caplog):
    texts = Filling(40)

    def work(number: int) -> None:
        for _ in range(10):
            texts.put(cache)
            assert texts.n_right(cache) == 40

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert not caplog.records
