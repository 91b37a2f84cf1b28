"""The cache in a Redis server, for several machines: `RedisCache`, the only place that imports redis.

What leaves first when the server is full is the server's setting. Knows records as bytes; nothing of texts or models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from q3e_local.cache import CacheStats, Entry, Key, SpaceStats
from q3e_local.cache.outage import Outage, Work, logger
from q3e_local.cache.record import from_record, name_of, to_record
from q3e_local.errors import OptionError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:
    raise OptionError("a cache in Redis needs its client; install it with: pip install 'q3e-local[redis]'") from None

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
            self._address = f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"
            # One more try where a connection that rested was closed by the server; none where it is slow.
            retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
            self._client = redis.Redis.from_url(
                url, socket_connect_timeout=_CONNECT_S, socket_timeout=_ANSWER_S, retry=retry, protocol=2
            )
        except (ValueError, TypeError) as error:
            raise OptionError(f"the cache's address must be redis://host:port/db: {error}") from None
        self._outage = Outage(_REST_S, monotonic)
        self._warned_of_a_record = self._closed = False

    @property
    def where(self) -> str:
        return self._address

    def get_many(self, keys: Sequence[Key]) -> list[Entry | None]:
        """One for each key, None where it has none."""
        names = [name_of(key) for key in keys]
        found: list[Entry | None] = [None] * len(keys)
        places = _places(keys, names)
        records = self._attempt("read", lambda: self._read(places)) or []
        for index, record in enumerate(records):
            if record is None:
                continue
            found[index] = from_record(keys[index], names[index], record)
            if found[index] is None and not self._warned_of_a_record:
                self._warned_of_a_record = True
                logger.warning("%s has a damaged vector, which is computed anew", self._address)
        return found

    def put_many(self, items: Sequence[tuple[Key, Entry]]) -> None:
        """Remember these. What is not finite, all zeros or not of its space's dim is left out."""
        keys = [key for key, _ in items]
        names = [name_of(key) for key in keys]
        records = [to_record(key, name, entry) for (key, entry), name in zip(items, names, strict=True)]
        pairs = zip(_places(keys, names), records, strict=True)
        sound = [(place, record) for place, record in pairs if record is not None]
        if sound:
            self._attempt("write", lambda: self._write(sound))

    def stats(self) -> CacheStats | None:
        """What it has; None when it cannot be read, which was logged. Looks at every key of the server."""
        counts: dict[str, list[int]] = {}

        def count() -> CacheStats:
            for places in self._all():
                pipeline = self._client.pipeline(transaction=False)
                for place in places:
                    pipeline.strlen(place)
                for place, n_bytes in zip(places, pipeline.execute(), strict=True):
                    one = counts.setdefault(_space_of(place), [0, 0])
                    one[0] += n_bytes > 0
                    one[1] += n_bytes
            spaces = tuple(SpaceStats(space, *one) for space, one in sorted(counts.items()))
            return CacheStats(self._address, spaces, sum(one.n_bytes for one in spaces), None)

        return self._attempt("read", count)

    def clear(self, chosen: Callable[[str], bool] | None = None) -> int | None:
        """Forget all, or the vectors of the chosen spaces: how many; None if it cannot be done, which was logged."""

        def forget() -> int:
            n_vectors = 0
            for places in self._all():
                picked = [place for place in places if chosen is None or chosen(_space_of(place))]
                if picked:
                    n_vectors += int(self._client.unlink(*picked))
            return n_vectors

        return self._attempt("write", forget)

    def close(self) -> None:
        """A closed cache has nothing and takes nothing."""
        self._closed = True
        with suppress(redis.RedisError, OSError):
            self._client.close()

    def _attempt(self, work: Work, do: Callable[[], T]) -> T | None:
        """What `do` gives, or None after telling why not."""
        if self._closed or self._outage.rests(work):
            return None
        try:
            result = do()
        except redis.ResponseError as error:  # it answers: no memory left, a replica, no permission
            self._outage.begin(f"{self._address} refuses: {error}", work)
        except (redis.RedisError, OSError, ValueError) as error:  # ValueError: what answers speaks no Redis
            self._outage.begin(f"cannot use the cache at {self._address}: {error}", "read", "write")
        else:
            self._outage.end(work)
            return result
        return None

    def _read(self, places: list[str]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for first in range(0, len(places), _KEYS_AT_ONCE):
            pipeline.mget(places[first : first + _KEYS_AT_ONCE])
        answers = pipeline.execute()
        records = [record for answer in answers for record in _listed(answer)]
        if len(records) != len(places):
            raise ValueError(f"it answered {len(records)} values for {len(places)} keys")
        return records

    def _write(self, pairs: list[tuple[str, bytes]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for first in range(0, len(pairs), _KEYS_AT_ONCE):
            pipeline.mset(dict(pairs[first : first + _KEYS_AT_ONCE]))
        pipeline.execute()

    def _all(self) -> Iterator[list[bytes]]:
        """The keys of this program, some at a time; those that come twice are dropped."""
        seen: set[bytes] = set()
        some: list[bytes] = []
        for place in self._client.scan_iter(match=f"{_PREFIX}*", count=1000):
            if place not in seen:
                seen.add(place)
                some.append(place)
            if len(some) == _KEYS_AT_ONCE:
                yield some
                some = []
        if some:
            yield some


def _places(keys: Sequence[Key], names: list[bytes]) -> list[str]:
    spaces = {space: str(space) for space in {key.space for key in keys}}
    return [f"{_PREFIX}{spaces[key.space]}:{name.hex()}" for key, name in zip(keys, names, strict=True)]


def _space_of(place: bytes) -> str:
    return place.decode("utf-8", "replace").removeprefix(_PREFIX).rpartition(":")[0]


def _listed(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise ValueError(f"it answered {type(answer).__name__} where values were asked for")  # noqa: TRY004
    return answer
