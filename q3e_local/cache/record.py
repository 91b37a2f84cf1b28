"""One entry as bytes, and back: what SQLite and Redis both keep.

A record is a checksum, the token count and the float32 numbers. The checksum is keyed with the entry's name, so bytes
that were damaged, or that belong to another text, model or limit, are no entry at all.
"""

from __future__ import annotations

import hashlib
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


def to_record(key: Key, name: bytes, entry: Entry) -> bytes | None:
    """The entry's bytes; None for one that must not be kept."""
    pooled = entry.pooled
    if pooled.dtype != np.float32 or pooled.shape != (key.space.dim,):
        return None
    if not (np.isfinite(pooled).all() and pooled.any()):
        return None
    if not 0 < entry.prompt_tokens <= _TOKENS_MAX or entry.truncated != (key.cut_at is not None):
        return None
    body = entry.prompt_tokens.to_bytes(4, "little") + pooled.astype("<f4", copy=False).tobytes()
    return _checksum(name, body) + body


def from_record(key: Key, name: bytes, record: object) -> Entry | None:
    """The entry of these bytes; None if they are not this key's, whole and unchanged."""
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
