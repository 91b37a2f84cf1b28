"""Redis as a store, which needs the module search: a small server that knows its commands stands in for one."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_contract
from made_indexes import space
from resp import FakeRedis, encoded, fake_redis, real_redis

from q3e_local.errors import OptionError, OutputError
from q3e_local.search.database import Database

REFUSED = r"the server at redis://127.0.0.1:\d+(/0)? does not search vectors: it has no module search"


class WithSearch(FakeRedis):
    """Keeps hashes too, and knows the commands of the module search that make an index and list them."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self.indexes: dict[bytes, list[bytes]] = {}
        self.queue: list[tuple[bytes, list[bytes]]] | None = None  # of a transaction

    def answer(self, name: bytes, given: list[bytes]) -> bytes:
        if self.queue is not None and name != b"EXEC":
            self.queue.append((name, given))
            return b"+QUEUED\r\n"
        match name:
            case b"MULTI":
                self.queue = []
                return b"+OK\r\n"
            case b"EXEC":
                waiting, self.queue = self.queue or [], None
                return b"*%d\r\n" % len(waiting) + b"".join(self.answer(*each) for each in waiting)
            case b"FT._LIST":
                return encoded(list(self.indexes))
            case b"FT.CREATE":
                self.indexes[given[0]] = given[1:]
                return b"+OK\r\n"
            case b"SET":
                self.data[given[0]] = given[1]
                return b"+OK\r\n"
            case b"GET":
                return encoded(self.data.get(given[0]))
            case b"HSET":
                self.hashes.setdefault(given[0], {}).update(zip(given[1::2], given[2::2], strict=True))
                return b":1\r\n"
            case b"HMGET":
                found = self.hashes.get(given[0], {})
                return encoded([found.get(field) for field in given[1:]])
            case b"HGET":
                return encoded(self.hashes.get(given[0], {}).get(given[1]))
            case b"EXISTS":
                return b":%d\r\n" % sum(key in self.hashes for key in given)
            case b"DEL":
                return b":%d\r\n" % sum(self.hashes.pop(key, None) is not None for key in given)
            case b"SCAN":
                pattern = given[given.index(b"MATCH") + 1].decode()
                return encoded([b"0", [key for key in self.hashes if fnmatch.fnmatchcase(key.decode(), pattern)]])
        return super().answer(name, given)


class RedisCase:
    def __init__(self, server: WithSearch) -> None:
        self.server, self.address = server, f"{server.url}#notes"

    def nearest(self, vector: np.ndarray, k: int) -> list[str]:
        """By the index's own terms: the hashes under its prefix, its field of vectors, its metric."""
        definition = self.server.indexes[b"notes"]
        prefix = definition[definition.index(b"PREFIX") + 2]
        place = definition.index(b"VECTOR")
        facts = dict(zip(definition[place + 3 :: 2], definition[place + 4 :: 2], strict=False))
        assert (facts[b"TYPE"], facts[b"DISTANCE_METRIC"]) == (b"FLOAT32", b"COSINE")
        assert int(facts[b"DIM"]) == len(vector)
        scores = {
            fields[b"id"].decode(): float(np.frombuffer(fields[definition[place - 1]], np.float32) @ vector)
            for key, fields in self.server.hashes.items()
            if key.startswith(prefix)
        }
        return sorted(scores, key=lambda name: -scores[name])[:k]

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        found = {}
        for fields in self.server.hashes.values():
            row: dict[str, Any] = {name.decode(): value for name, value in fields.items()}
            texts = {name: value.decode() for name, value in row.items() if name != "embedding"}
            numbers = {name: int(texts[name]) for name in ("start", "end", "line", "page") if name in texts}
            found[texts["id"]] = texts | numbers
        return found

    def put_own(self, name: str, vector: np.ndarray) -> None:
        self.server.hashes[b"notes:" + name.encode()] = {b"id": name.encode(), b"embedding": vector.tobytes()}


@pytest.fixture
def case() -> Iterator[RedisCase]:
    server = WithSearch()
    server.start()
    yield RedisCase(server)
    server.stop()


CHECKS = [
    store_contract.check_the_same_is_found,
    store_contract.check_again_sends_what_changed_and_deletes_what_is_gone,
    store_contract.check_an_interrupted_export_goes_on,
    store_contract.check_rows_of_others_are_left_alone,
    store_contract.check_vectors_of_another_space_are_refused,
]


@pytest.mark.parametrize("check", CHECKS)
def test_a_server_that_has_the_module_is_a_store(check, case, tmp_path):
    check(case, tmp_path / "notes.q3e")


def empty_index(folder: Path) -> Path:
    path = folder / "empty.q3e"
    with Database.create(path, space(32)):
        pass
    return path


def test_a_hash_of_another_program_is_left_alone_whatever_its_fields_are(case, tmp_path):
    case.server.hashes[b"notes:it's"] = {b"title": b"An order", b"body": b"of somebody else"}
    path = tmp_path / "notes.q3e"
    store_contract.make_index(path)
    with pytest.raises(OutputError, match=r"has rows with the ids \"it's\" that this export did not put there"):
        store_contract.export(path, case.address)
    assert case.server.hashes[b"notes:it's"] == {b"title": b"An order", b"body": b"of somebody else"}


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ("no_such=1", OutputError, r"cannot use redis://.*#notes: .*unexpected keyword argument 'no_such'"),
        ("decode_responses=true", OptionError, "the address of Redis must not say decode_responses"),
        ("protocol=3", OptionError, "the address of Redis must not say protocol"),
    ],
)
def test_parameters_of_the_address_that_cannot_be_are_told(case, tmp_path, parameters, error, message):
    path = tmp_path / "notes.q3e"
    store_contract.make_index(path)
    with pytest.raises(error, match=message):
        store_contract.export(path, case.address.replace("#", f"?{parameters}#"))
    assert store_contract.export(path, case.address.replace("#", "?health_check_interval=0#")).n_sent == 79


def test_a_server_without_the_module_says_so(tmp_path):
    with fake_redis() as server, pytest.raises(OutputError, match=REFUSED):
        store_contract.export(empty_index(tmp_path), server.url)
    assert not server.data


def test_a_real_server_without_the_module_says_so(tmp_path):
    with real_redis() as (port, _), pytest.raises(OutputError, match=REFUSED):
        store_contract.export(empty_index(tmp_path), f"redis://127.0.0.1:{port}")


def test_a_wrong_password_is_not_shown(tmp_path):
    with fake_redis() as server:
        server.fault = "password"
        with pytest.raises(OutputError, match="Authentication required") as caught:
            store_contract.export(empty_index(tmp_path), f"redis://:hunter2@127.0.0.1:{server.port}")
    assert "hunter2" not in str(caught.value)
