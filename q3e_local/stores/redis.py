"""Redis with its query engine (Redis 8, Redis Stack, the module search), as a store of vectors.

Rows are hashes under NAME:ID, over which an index NAME is made. Knows nothing of the cache in Redis, which needs no
module. Commands: https://redis.io/docs/latest/commands/ft.create/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import parse_qs

from q3e_local.errors import MissingPackageError, OptionError, OutputError
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import DIGEST, SOURCE, VECTOR, Row, Shape
from q3e_local.stores.store import in_a_sentence
from q3e_local.vectors import Vectors

try:
    import redis
except ImportError:
    raise MissingPackageError("Redis", "redis", "redis") from None

_CONNECT_S, _ANSWER_S = 5.0, 60.0
_AT_ONCE = 1000
_OWN_PARAMETERS = {"decode_responses", "encoding", "protocol"}
_TYPES = {"text": "TAG", "integer": "NUMERIC"}


class RedisStore:
    """Hashes of a server, and an index over them."""

    n_batch = 256
    keeps_parts = True

    def __init__(self, address: StoreAddress) -> None:
        self._address, self._name = address, address.collection
        for name in _OWN_PARAMETERS & parse_qs(address.parts.query).keys():
            raise OptionError(f"the address of Redis must not say {name}: how answers are read is fixed here")
        # redis-py raises TypeError for a parameter of the address that it does not know.
        with self._asking(), in_a_sentence(address, TypeError):
            client: Any = redis.Redis.from_url(
                address.url or "", socket_connect_timeout=_CONNECT_S, socket_timeout=_ANSWER_S, protocol=2
            )
            self._client = client
            try:
                self._client.execute_command("FT._LIST")
            except redis.ResponseError as error:
                # Servers have no code for it, but have said it in these words since the first.
                if not str(error).startswith("unknown command"):
                    raise
                has_search = False
            else:
                has_search = True
        if not has_search:
            raise OutputError(
                f"the server at {address.place} does not search vectors: it has no module search (Redis 8 and Redis "
                "Stack have it). A cache of vectors (--cache) needs none"
            )

    def mark(self) -> str | None:
        with self._asking():
            is_there = self._name.encode() in self._client.execute_command("FT._LIST")
            mark = self._client.get(self._mark_key)
        return (mark or b"").decode("utf-8") if is_there else None

    def create(self, shape: Shape) -> None:
        fields: list[str | int] = ["text", "TEXT", SOURCE, "TAG"]
        for name, kind in shape.fields.items():
            fields += [name, _TYPES[kind]]
        vector = [VECTOR, "VECTOR", "HNSW", 6, "TYPE", "FLOAT32", "DIM", shape.dim, "DISTANCE_METRIC", "COSINE"]
        with self._asking():
            # The mark first: an index without one would be taken for that of another program.
            self._client.set(self._mark_key, shape.mark)
            self._client.execute_command(
                "FT.CREATE", self._name, "ON", "HASH", "PREFIX", 1, f"{self._name}:", "SCHEMA", *fields, *vector
            )

    def digests(self, source: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for keys in self._pages():
            for key, (of, digest) in zip(keys, self._values(keys, SOURCE, DIGEST), strict=True):
                if of == source and digest is not None:
                    found[key.decode("utf-8").removeprefix(f"{self._name}:")] = digest
        return found

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        with self._asking():
            pipeline = self._client.pipeline(transaction=False)
            for name in ids:  # hashes of other programs may have any fields
                pipeline.exists(self._key(name))
                pipeline.hget(self._key(name), SOURCE)
            answers = iter(pipeline.execute())
        found = zip(ids, answers, answers, strict=True)
        return {name: None if of is None else of.decode("utf-8") for name, is_there, of in found if is_there}

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        with self._asking():
            pipeline = self._client.pipeline()
            for row, vector in zip(rows, vectors, strict=True):
                fields = {name: value for name, value in row.fields.items() if value is not None}
                fields |= {"id": row.id, "text": row.text, SOURCE: source, DIGEST: row.digest}
                pipeline.delete(self._key(row.id))  # or fields that the row no longer has would stay
                pipeline.hset(self._key(row.id), mapping={**fields, VECTOR: vector.tobytes()})
            pipeline.execute()

    def delete(self, ids: Sequence[str]) -> None:
        with self._asking():
            self._client.delete(*map(self._key, ids))

    def finish(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        self._client.close()

    @property
    def _mark_key(self) -> str:
        return f"q3e-store:{self._name}"

    def _key(self, name: str) -> str:
        return f"{self._name}:{name}"

    def _pages(self) -> Iterator[list[bytes]]:
        """The keys below the collection's name, a part at a time."""
        place = 0
        while True:
            with self._asking():
                place, keys = self._client.scan(place, match=f"{self._name}:*", count=_AT_ONCE, _type="HASH")
            if keys:
                yield keys
            if not place:
                return

    def _values(self, keys: Sequence[str | bytes], *names: str) -> list[tuple[str | None, ...]]:
        with self._asking():
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.hmget(key, *names)
            answers = pipeline.execute()
        return [tuple(None if value is None else value.decode("utf-8") for value in answer) for answer in answers]

    def _asking(self) -> AbstractContextManager[None]:
        return in_a_sentence(self._address, redis.RedisError, OSError, ValueError)
