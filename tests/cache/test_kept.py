"""What a cache gives is what was put in, or nothing: the same for SQLite, a real Redis and a small one of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np
import pytest
from fake import FakeEngine
from resp import fake_redis, real_redis
from vectors_for_caches import SPACE, Filling, entry, is_same, item, key

from q3e_local.cache import Entry, VectorCache
from q3e_local.cache.redis import RedisCache
from q3e_local.cache.sqlite import SqliteCache
from q3e_local.embedding.lookup import Lookup, ReadyText
from q3e_local.embedding.preparing import Fitted, Preparation, ResolvedOptions
from q3e_local.embedding.request import Embedded
from q3e_local.space import Space
from q3e_local.vectors import finish


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with real_redis() as (port, _):
        yield f"redis://127.0.0.1:{port}/3"


@pytest.fixture(params=["SQLite", "redis-server", "our own Redis"])
def make(request, path) -> Iterator[Callable[[], VectorCache]]:
    """A function that opens the same place again."""
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


def test_what_was_put_comes_back_to_the_last_bit_also_later(make, caplog):
    texts, first = Filling(1200), make()  # more than one statement takes
    texts.put(first)
    for cache in (first, make()):
        assert texts.n_right(cache) == 1200
        nobodys, *twice = cache.get_many([key("nobody's"), key("text 7"), key("text 7")])
        assert nobodys is None
        assert all(is_same(got, entry("text 7")) for got in twice)
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
    small = Space("cd" * 32, 32)
    many, few, cache = Filling(300), Filling(7, (small,)), make()
    assert cache.stats().n_vectors == cache.clear() == 0
    many.put(cache)
    few.put(cache)
    stats = make().stats()
    counts = {each.space: (each.n_vectors, each.n_bytes) for each in stats.spaces}
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
    cache, texts = make(), Filling(40)

    def work(number: int) -> None:
        for _ in range(10):
            texts.put(cache)
            assert texts.n_right(cache) == 40

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert not caplog.records


# What a request with a limit makes of it, which may let its texts be cut.


def lookup(cache: VectorCache, limit: int, truncate: bool) -> Lookup:
    return Lookup(Preparation(FakeEngine(), ResolvedOptions("", 64, limit, truncate, "")), cache)


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
    digest, pooled = key(text).text_sha256, entry(text, kept_at).pooled.reshape(1, -1)
    fitted = Fitted([0] * (kept_at or 9), kept_at is not None)
    lookup(cache, kept_at or 1000, truncate=kept_at is not None).keep(pooled, [(digest, fitted)])
    (got,) = lookup(cache, limit, truncate).all(iter([ReadyText(0, text, digest)]))
    if not served:
        assert got.known is None
        return
    assert isinstance(got.known, Embedded)
    assert got.known.vector.tobytes() == finish(pooled).tobytes()
    assert (got.known.prompt_tokens, got.known.truncated) == (len(fitted.ids), fitted.truncated)
    assert got.known.cached
