"""What the tests of caches share: a clock that a test moves, and a cache in a file that a test can open again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from vectors_for_caches import TEXTS

from q3e_local.cache import SIZE_BYTES
from q3e_local.cache.sqlite import SqliteCache


@pytest.fixture
def clock() -> list[float]:
    return [1_000_000.0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "v.sqlite"


@pytest.fixture
def opened(path: Path, clock: list[float]) -> Iterator[Callable[..., SqliteCache]]:
    """A function that opens the cache at `path`."""
    with ExitStack() as stack:

        def make(size_bytes: int = SIZE_BYTES) -> SqliteCache:
            cache = SqliteCache(path, size_bytes, now=lambda: clock[0], monotonic=lambda: clock[0])
            return stack.enter_context(closing(cache))

        yield make


@pytest.fixture
def filled(opened: Callable[..., SqliteCache]) -> SqliteCache:
    """An open cache that has TEXTS."""
    cache = opened()
    TEXTS.put(cache)
    return cache
