"""Keys and entries that a reader can predict, for all tests of caches."""

from __future__ import annotations

import hashlib

import numpy as np

from q3e_local.cache import Entry, Key
from q3e_local.space import Space

SPACE = Space("ab" * 32, 64)


def key(text: str, cut_at: int | None = None, space: Space = SPACE) -> Key:
    return Key(space, hashlib.sha256(text.encode()).digest(), cut_at)


def entry(text: str, cut_at: int | None = None, space: Space = SPACE) -> Entry:
    """Other numbers for each text, limit and space: what a test compares with."""
    seed = hashlib.sha256(f"{text} {cut_at} {space}".encode()).digest()
    pooled = np.random.default_rng(list(seed)).standard_normal(space.dim).astype(np.float32)
    n_tokens = len(text) + 1 if cut_at is None else cut_at
    return Entry(pooled, n_tokens, cut_at is not None)


def item(text: str, cut_at: int | None = None, space: Space = SPACE) -> tuple[Key, Entry]:
    return key(text, cut_at, space), entry(text, cut_at, space)


def is_same(got: Entry | None, wanted: Entry) -> bool:
    """To the last bit."""
    return (
        got is not None
        and got.pooled.dtype == np.float32
        and got.pooled.tobytes() == wanted.pooled.tobytes()
        and (got.prompt_tokens, got.truncated) == (wanted.prompt_tokens, wanted.truncated)
    )
