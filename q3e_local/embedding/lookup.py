"""Ready texts of one request, each with its result where a cache has it: `Lookup`.

Knows which entry of a cache is right for which limit. Knows no ids and no engine, nor where a cache keeps things.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from q3e_local.cache import Entry, Key, VectorCache
from q3e_local.embedding.preparing import Fitted, Preparation
from q3e_local.embedding.request import Embedded
from q3e_local.errors import BadVectorError, TextError
from q3e_local.vectors import Vectors

# Characters looked up at once: few at first, so that a slow input is not held up; twice as many each time, up to the
# most, while the cache has every text.
_CHARACTERS_FIRST = 1_024
_CHARACTERS_MAX = 65_536
_WINDOW_TEXTS = 1024


@dataclass(frozen=True, slots=True)
class ReadyText:
    """A text of a request, prompted and normalized. A text with a `known` result is not computed."""

    place: int
    text: str
    digest: bytes  # SHA-256 of `text`
    known: Embedded | TextError | None = None


def ready_texts(preparation: Preparation, texts: Iterable[tuple[int, str]]) -> Iterator[ReadyText]:
    """Texts with their places, prompted and normalized; an InvalidTextError is the result of what is no text."""
    for place, text in texts:
        try:
            ready = preparation.ready(text, place)
        except TextError as error:
            yield ReadyText(place, "", b"", error)
        else:
            yield ReadyText(place, ready, hashlib.sha256(ready.encode("utf-8")).digest())


class Lookup:
    """A cache as one request sees it. Without a cache nothing is known and nothing is kept."""

    def __init__(self, preparation: Preparation, cache: VectorCache | None) -> None:
        self._preparation, self._resolved, self._cache = preparation, preparation.resolved, cache

    def all(self, texts: Iterator[ReadyText]) -> list[ReadyText]:
        """All texts, with their results where the cache has them. For texts that are all there already."""
        return list(self.as_they_come(texts, _CHARACTERS_MAX))

    def as_they_come(
        self, texts: Iterator[ReadyText], n_characters_first: int = _CHARACTERS_FIRST
    ) -> Iterator[ReadyText]:
        """All texts in order, with their results where the cache has them. Reads ahead of a slow input a little."""
        if self._cache is None:
            yield from texts
            return
        n_characters = n_characters_first
        while window := _next_window(texts, n_characters):
            window = self._with_results(self._cache, window)
            yield from window
            all_known = all(text.known is not None for text in window)
            n_characters = min(2 * n_characters, _CHARACTERS_MAX) if all_known else n_characters_first

    def keep(self, pooled: Vectors, texts: Sequence[tuple[bytes, Fitted]], n_keepable: int) -> None:
        """Put the pooled vectors of the texts with these digests into the cache, of `n_keepable` tokens at most."""
        if self._cache is None:
            return
        items = []
        for row, (digest, fitted) in zip(pooled, texts, strict=True):
            if len(fitted.ids) > n_keepable:
                continue
            cut_at = self._resolved.limit if fitted.truncated else None
            key = Key(self._preparation.full_space, digest, cut_at)
            items.append((key, Entry(row, len(fitted.ids), fitted.truncated)))
        if items:
            self._cache.put_many(items)

    def _with_results(self, cache: VectorCache, window: list[ReadyText]) -> list[ReadyText]:
        """The texts of a window, with the results of those that the cache has."""
        unknown = [row for row, text in enumerate(window) if text.known is None]
        entries = self._entries(cache, [window[row] for row in unknown])
        hits = [(row, entry) for row, entry in zip(unknown, entries, strict=True) if entry is not None]
        if hits:
            vectors, bad = self._preparation.finished(np.stack([entry.pooled for _, entry in hits]))
            for number, (row, entry) in enumerate(hits):
                known: Embedded | BadVectorError
                if number in bad:
                    known = BadVectorError(bad[number].message, window[row].place)
                else:
                    known = Embedded(vectors[number], entry.prompt_tokens, entry.truncated, cached=True)
                window[row] = replace(window[row], known=known)
        return window

    def _entries(self, cache: VectorCache, texts: list[ReadyText]) -> list[Entry | None]:
        """The entry of each text: of the whole text, or of the text cut to this request's limit."""
        limit = self._resolved.limit
        keys = [Key(self._preparation.full_space, text.digest) for text in texts]
        # A token is a byte or more, a character four bytes at most: a shorter text is not cut, unless a prompt counts
        # that is no part of it. Such a text is computed anew.
        may_be_cut = [
            row for row, text in enumerate(texts) if self._resolved.truncate and 4 * len(text.text) >= limit
        ]
        keys += [Key(self._preparation.full_space, texts[row].digest, limit) for row in may_be_cut]
        entries = cache.get_many(keys)
        chosen = [entry if entry and entry.prompt_tokens <= limit else None for entry in entries[: len(texts)]]
        for row, entry in zip(may_be_cut, entries[len(texts) :], strict=True):
            chosen[row] = chosen[row] or entry
        return chosen


def _next_window(texts: Iterator[ReadyText], n_characters: int) -> list[ReadyText]:
    """The next texts, until they have this many characters; none after the last."""
    window: list[ReadyText] = []
    for text in islice(texts, _WINDOW_TEXTS):
        window.append(text)
        n_characters -= len(text.text)
        if n_characters <= 0:
            break
    return window
