"""The cache in a Redis server, for several machines: `RedisCache`, the only place that imports redis.

What leaves first when the server is full is the server's setting. Knows records as bytes; nothing of texts or models.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from q3e_local.cache import CacheStats, Entry, Key, SpaceStats
from q3e_local.cache.outage import Outage, Work
from q3e_local.cache.record import name_of, to_entries, to_records
from q3e_local.errors import MissingPackageError, OptionError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:
    raise MissingPackageError("a cache in Redis", "redis", "redis") from None

_PREFIX = "q3e-vectors:1:"  # and the space, a colon, the entry's name; another layout gets another number
_KEYS_AT_ONCE = 256
_CONNECT_S, _ANSWER_S = 1.0, 3.0
_REST_S = 10.0

T = TypeVar("T")


class RedisCache:
    """Vectors in the server at `redis://[:password@]host:port/db`, or `rediss://` with TLS."""

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        try:
            parts = urlsplit(url)
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            self.where = f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"
            # One more try where a connection that rested was closed by the server; none where it is slow.
            retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
            self._client = redis.Redis.from_url(
                url, socket_connect_timeout=_CONNECT_S, socket_timeout=_ANSWER_S, retry=retry, protocol=2
            )
        except (ValueError, TypeError) as error:
            raise OptionError(f"the cache's address must be redis://host:port/db: {error}") from None
        self._outage = Outage(_REST_S, monotonic)
        self._closed = False

    def get_many(self, keys: Sequence[Key]) -> list[Entry | None]:
        names = [name_of(key) for key in keys]
        places = [_place(key, name) for key, name in zip(keys, names, strict=True)]
        records = self._attempt("read", lambda: self._read(places)) or [None] * len(keys)
        return to_entries(keys, names, records, lambda: self._outage.say_damaged(self.where))

    def put_many(self, items: Sequence[tuple[Key, Entry]]) -> None:
        records = [(_place(key, name), record) for key, name, record in to_records(items)]
        if records:
            self._attempt("write", lambda: self._write(records))

    def stats(self) -> CacheStats | None:
        """How much it has, by a look at every key of the server; None where it cannot be read, which was logged."""

        def count() -> CacheStats:
            n_vectors: Counter[str] = Counter()
            n_bytes: Counter[str] = Counter()
            for places in self._places():
                pipeline = self._client.pipeline(transaction=False)
                for place in places:
                    pipeline.strlen(place)
                for place, length in zip(places, pipeline.execute(), strict=True):
                    n_vectors[_space_of(place)] += length > 0
                    n_bytes[_space_of(place)] += length
            spaces = tuple(SpaceStats(space, n, n_bytes[space]) for space, n in sorted(n_vectors.items()))
            return CacheStats(self.where, spaces, n_bytes.total(), limit_bytes=None)

        return self._attempt("read", count)

    def clear(self, chosen: Callable[[str], bool] | None = None) -> int | None:
        def forget() -> int:
            n_vectors = 0
            for places in self._places():
                picked = [place for place in places if chosen is None or chosen(_space_of(place))]
                if picked:
                    n_vectors += int(self._client.unlink(*picked))
            return n_vectors

        return self._attempt("write", forget)

    def close(self) -> None:
        self._closed = True
        with suppress(redis.RedisError, OSError):
            self._client.close()

    def _attempt(self, work: Work, do: Callable[[], T]) -> T | None:
        """What `do` gives, or None after saying why not."""
        if self._closed or self._outage.rests(work):
            return None
        try:
            result = do()
        except redis.ResponseError as error:  # it answers: no memory left, a replica, no permission
            self._outage.begin(f"{self.where} refuses: {error}", work)
        except (redis.RedisError, OSError, ValueError) as error:  # ValueError: what answers speaks no Redis
            self._outage.begin(f"cannot use the cache at {self.where}: {error}", "read", "write")
        else:
            self._outage.end(work)
            return result
        return None

    def _read(self, places: list[str]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for first in range(0, len(places), _KEYS_AT_ONCE):
            pipeline.mget(places[first : first + _KEYS_AT_ONCE])
        records: list[Any] = []
        for answer in pipeline.execute():
            if not isinstance(answer, list):
                raise ValueError(f"it answered {type(answer).__name__} where values were asked for")  # noqa: TRY004
            records += answer
        if len(records) != len(places):
            raise ValueError(f"it answered {len(records)} values for {len(places)} keys")
        return records

    def _write(self, pairs: list[tuple[str, bytes]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for first in range(0, len(pairs), _KEYS_AT_ONCE):
            pipeline.mset(dict(pairs[first : first + _KEYS_AT_ONCE]))
        pipeline.execute()

    def _places(self) -> Iterator[list[bytes]]:
        """The keys of this program, a part at a time. A scan may give a key twice."""
        places = list(dict.fromkeys(self._client.scan_iter(match=f"{_PREFIX}*", count=1000)))
        for first in range(0, len(places), _KEYS_AT_ONCE):
            yield places[first : first + _KEYS_AT_ONCE]


def _place(key: Key, name: bytes) -> str:
    return f"{_PREFIX}{_written(key.space)}:{name.hex()}"


_written = lru_cache(maxsize=256)(str)  # of a space, which every key has


def _space_of(place: bytes) -> str:
    return place.decode("utf-8", "replace").removeprefix(_PREFIX).rpartition(":")[0]
