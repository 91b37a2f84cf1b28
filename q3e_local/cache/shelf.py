"""The cache as one request sees it: the digests of texts in, vectors out.

Knows which entry is right for which limit; nothing of models or of where a cache keeps things.
"""

from __future__ import annotations

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

    def find(self, texts: Sequence[tuple[bytes, str]]) -> list[Entry | None]:
        """What is known of each text: the whole, or what is cut to this limit. Texts come with their SHA-256."""
        keys = [Key(self.space, digest) for digest, _ in texts]
        # A token is a byte or more, a character four bytes at most: shorter texts are never cut.
        may_be_cut = [row for row, (_, text) in enumerate(texts) if self.truncate and 4 * len(text) >= self.limit]
        keys += [Key(self.space, texts[row][0], self.limit) for row in may_be_cut]
        entries = self.cache.get_many(keys)
        found = [entry if entry and entry.prompt_tokens <= self.limit else None for entry in entries[: len(texts)]]
        for row, entry in zip(may_be_cut, entries[len(texts) :], strict=True):
            found[row] = found[row] or entry
        return found

    def keep(self, items: Iterable[tuple[bytes, Entry]]) -> None:
        """Remember what the texts of these digests have come to."""
        self.cache.put_many(
            [(Key(self.space, digest, self.limit if entry.truncated else None), entry) for digest, entry in items]
        )
