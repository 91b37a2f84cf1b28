"""A Redis that is away, slow, full, wrong or no Redis costs one warning; later the cache tries it again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from resp import FakeRedis, fake_redis, real_redis
from vectors_for_caches import SPACE, Filling, entry, is_same, item, key, warnings

from q3e_local.cache import redis as cache_redis
from q3e_local.cache.redis import RedisCache

TEXTS = Filling(600)  # more than one MGET takes


@pytest.fixture
def server() -> Iterator[FakeRedis]:
    with fake_redis() as server:
        yield server


@pytest.fixture
def opened(clock, server, monkeypatch) -> Iterator[Callable[..., RedisCache]]:
    monkeypatch.setattr(cache_redis, "_ANSWER_S", 0.5)
    with ExitStack() as stack:

        def make(url: str = server.url) -> RedisCache:
            return stack.enter_context(closing(RedisCache(url, monotonic=lambda: clock[0])))

        yield make


@pytest.fixture
def cache(opened) -> RedisCache:
    """An open cache that has TEXTS."""
    cache = opened()
    TEXTS.put(cache)
    return cache


FAULTS = ["silent", "half", "hangs up", "http", "few", "wrong type", "password"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_once_and_costs_vectors_only_until_it_is_over(fault, cache, server, clock, caplog):
    assert TEXTS.n_right(cache) == len(TEXTS)
    server.fault = fault
    for _ in range(4):
        assert TEXTS.n_right(cache) == 0
        TEXTS.put(cache)
        clock[0] += 11  # the rest of 10 s is over, and the next try is in vain too
    (line,) = warnings(caplog)
    assert line.startswith(("cannot use the cache at redis://127.0.0.1:", "redis://127.0.0.1:"))
    assert line.endswith("; going on without the cache")
    server.fault = None
    assert TEXTS.n_right(cache) == len(TEXTS)
    TEXTS.put(cache)
    assert len(warnings(caplog)) == 1


def test_while_it_rests_nothing_is_sent(cache, server, clock):
    server.fault = "hangs up"
    TEXTS.n_right(cache)
    n_sent = len(server.commands)
    for _ in range(10):
        TEXTS.n_right(cache)
        TEXTS.put(cache)
    assert len(server.commands) == n_sent
    clock[0] += 11
    TEXTS.n_right(cache)
    assert len(server.commands) > n_sent


def test_a_window_of_texts_is_few_commands(cache, server):
    assert server.commands.count("MSET") == 3
    del server.commands[:]
    assert TEXTS.n_right(cache) == len(TEXTS)
    assert server.commands == ["MGET"] * 3


def test_a_value_of_another_text_is_damage(cache, server, caplog):
    server.fault = "swapped"
    assert TEXTS.n_right(cache) == 0
    (line,) = warnings(caplog)
    assert line == f"redis://127.0.0.1:{server.port}/0 has a damaged vector, which is computed anew"


def test_damaged_values_are_none_and_their_neighbours_are_right(cache, server):
    for number, place in list(enumerate(server.data))[1::2]:
        value = bytearray(server.data[place])
        value[(number * 37) % len(value)] ^= 1 << (number % 8)
        server.data[place] = bytes(value[: len(value) - (number % 3 == 0)])
    assert TEXTS.n_right(cache) == len(TEXTS) // 2
    TEXTS.put(cache)
    assert TEXTS.n_right(cache) == len(TEXTS)


def test_a_full_server_is_told_once_and_is_still_read(cache, server, clock, caplog):
    server.fault = "full"
    for _ in range(3):
        cache.put_many([item("new")])
        assert TEXTS.n_right(cache) == len(TEXTS)
        clock[0] += 11
    (line,) = warnings(caplog)
    assert "maxmemory" in line
    server.fault = None
    cache.put_many([item("new")])
    assert is_same(cache.get_many([key("new")])[0], entry("new"))


def test_nobody_listens_and_later_somebody_does(opened, server, clock, caplog):
    TEXTS.put(opened())
    server.stop()
    cache = opened()
    for _ in range(3):
        assert TEXTS.n_right(cache) == 0
        TEXTS.put(cache)
        assert cache.stats() is cache.clear() is None
    assert len(warnings(caplog)) == 1
    server.start()
    assert TEXTS.n_right(cache) == 0
    clock[0] += 11
    assert TEXTS.n_right(cache) == len(TEXTS)


def test_a_connection_that_rested_too_long_is_made_anew_without_a_word(cache, server, caplog):
    server.stop()
    for connection in cache._client.connection_pool._available_connections:
        connection._sock.shutdown(socket.SHUT_RDWR)  # as a server does after its timeout, which takes minutes
    server.start()
    assert TEXTS.n_right(cache) == len(TEXTS)
    assert not warnings(caplog)


def test_a_host_that_does_not_exist(opened, caplog):
    cache = opened("redis://user:secret@nowhere.invalid/0")
    assert TEXTS.n_right(cache) == 0
    (line,) = warnings(caplog)
    assert "redis://nowhere.invalid:6379/0" in line
    assert "secret" not in line


def test_other_keys_of_the_server_are_left_alone(cache, server):
    others = {b"mine": b"1", b"q3e-vectors:2:future": b"2"}
    server.data |= others
    assert [(stats.space, stats.n_vectors) for stats in cache.stats().spaces] == [(str(SPACE), len(TEXTS))]
    assert cache.clear() == len(TEXTS)
    assert server.data == others


def test_a_real_server_that_is_killed_and_comes_again(opened, clock, caplog):
    with real_redis() as (port, process):
        cache = opened(f"redis://127.0.0.1:{port}/0")
        TEXTS.put(cache)
        assert TEXTS.n_right(cache) == len(TEXTS)
        process.kill()
        process.wait()
        for _ in range(3):
            assert TEXTS.n_right(cache) == 0
            TEXTS.put(cache)
    (line,) = warnings(caplog)
    assert line.startswith(f"cannot use the cache at redis://127.0.0.1:{port}/0: ")
    clock[0] += 11
    with real_redis(port=port):
        assert TEXTS.n_right(cache) == 0
        TEXTS.put(cache)
        assert TEXTS.n_right(cache) == len(TEXTS)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
def test_a_real_server_with_little_memory(opened, clock, caplog, policy):
    with real_redis("--maxmemory", "3mb", "--maxmemory-policy", policy) as (port, _):
        cache = opened(f"redis://127.0.0.1:{port}/0")
        for turn in range(15):
            cache.put_many([item(f"{turn} {number}") for number in range(600)])
            clock[0] += 11
        TEXTS.put(cache)
        found = TEXTS.n_right(cache)
        assert cache.stats().n_vectors > 0
    if policy == "allkeys-lru":
        assert found > 0
        assert not warnings(caplog)
    else:
        (line,) = warnings(caplog)
        assert "refuses: " in line


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own(cache, server):
    n_before = server.n_connections
    child = os.fork()
    if child == 0:
        os._exit(0 if TEXTS.n_right(cache) == len(TEXTS) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert server.n_connections == n_before + 1
    assert TEXTS.n_right(cache) == len(TEXTS)
