"""The cache as one request sees it: texts in, vectors out.

Knows which entry is right for which limit; nothing of models or of where a cache keeps things.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from q3e_local.cache import Entry, Key, VectorCache
from q3e_local.space import Space


@dataclass(frozen=True)
class Shelf:
    """What a cache has for texts of one space that are limited, and cut or refused, in one way."""

    cache: VectorCache
    space: Space  # at the model's own dim
    limit: int  # tokens of a text, end token included
    truncate: bool

    def find(self, texts: Sequence[str]) -> list[Entry | None]:
        """What is known of each text, which is prompted and normalized: the whole, or what is cut to this limit."""
        digests = [(len(raw), hashlib.sha256(raw).digest()) for raw in (text.encode() for text in texts)]
        keys = [Key(self.space, digest) for _, digest in digests]
        # A token is a byte or more: a text of fewer bytes than the limit is never cut.
        may_be_cut = [row for row, (n_bytes, _) in enumerate(digests) if self.truncate and n_bytes >= self.limit]
        keys += [Key(self.space, digests[row][1], self.limit) for row in may_be_cut]
        entries = self.cache.get_many(keys)
        found = [entry if entry and entry.prompt_tokens <= self.limit else None for entry in entries[: len(texts)]]
        for row, entry in zip(may_be_cut, entries[len(texts) :], strict=True):
            found[row] = found[row] or entry
        return found

    def keep(self, items: Iterable[tuple[str, Entry]]) -> None:
        """Remember what these texts have come to."""
        self.cache.put_many([(self._key(text, entry.truncated), entry) for text, entry in items])

    def _key(self, text: str, truncated: bool) -> Key:
        return Key(self.space, hashlib.sha256(text.encode()).digest(), self.limit if truncated else None)
