"""Entries as bytes, and back: what SQLite and Redis both keep.

A record is a checksum, the token count and the float32 numbers. The checksum is keyed with the entry's name, so bytes
that were damaged, or that belong to another text, model or limit, are no entry at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from q3e_local.cache import Entry, Key
from q3e_local.space import Space

_CHECK = 16
_HEAD = _CHECK + 4
_LAYOUT = b"q3e vectors 1"  # another layout gets another number here, and the old records are none
_TOKENS_MAX = 2**32 - 1


def name_of(key: Key) -> bytes:
    """32 bytes that stand for the key."""
    cut_at = b"" if key.cut_at is None else b"%d" % key.cut_at
    return hashlib.sha256(_space_name(key.space) + key.text_sha256 + cut_at).digest()


def to_records(items: Sequence[tuple[Key, Entry]]) -> Iterator[tuple[Key, bytes, bytes]]:
    """Key, name and record of each entry that may be kept."""
    for key, entry in items:
        if _may_be_kept(key, entry):
            name = name_of(key)
            body = entry.prompt_tokens.to_bytes(4, "little") + entry.pooled.astype("<f4", copy=False).tobytes()
            yield key, name, _checksum(name, body) + body


def to_entries(
    keys: Sequence[Key], names: Sequence[bytes], records: Sequence[object], on_damage: Callable[[], None]
) -> list[Entry | None]:
    """The entry of each record that is its key's, whole and unchanged. Calls `on_damage` for any other record."""
    entries = []
    for key, name, record in zip(keys, names, records, strict=True):
        entries.append(None if record is None else _entry(key, name, record))
        if record is not None and entries[-1] is None:
            on_damage()
    return entries


def _may_be_kept(key: Key, entry: Entry) -> bool:
    pooled = entry.pooled
    return (
        pooled.dtype == np.float32
        and pooled.shape == (key.space.dim,)
        and bool(np.isfinite(pooled).all() and pooled.any())
        and 0 < entry.prompt_tokens <= _TOKENS_MAX
        and entry.truncated == (key.cut_at is not None)
    )


def _entry(key: Key, name: bytes, record: object) -> Entry | None:
    if not isinstance(record, bytes) or len(record) != _HEAD + 4 * key.space.dim:
        return None
    if record[:_CHECK] != _checksum(name, memoryview(record)[_CHECK:]):
        return None
    pooled = np.frombuffer(record, "<f4", offset=_HEAD).astype(np.float32, copy=False)
    return Entry(pooled, int.from_bytes(record[_CHECK:_HEAD], "little"), key.cut_at is not None)


def _checksum(name: bytes, body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK, key=name, person=_LAYOUT).digest()


@lru_cache(maxsize=256)
def _space_name(space: Space) -> bytes:
    # All of the model's digest: the space's written form has only its beginning.
    return hashlib.sha256(f"{space.model_digest}\n{space}".encode()).digest()
