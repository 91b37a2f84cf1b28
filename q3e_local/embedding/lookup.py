"""Texts on their way to the engine, with what is known of them already: `Lookup`.

Readies texts, a window at a time where a cache is asked, and puts aside what needs no computing. Knows no ids and
no engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from q3e_local.cache import Entry
from q3e_local.cache.shelf import Shelf
from q3e_local.embedding.request import Embedded, Fitted
from q3e_local.errors import BadVectorError, TextError
from q3e_local.vectors import Vectors, finish

# Characters looked up at once: what is read ahead of a slow input is no more than a batch or two would take, and no
# more than was given out already while everything is found.
_AHEAD = (1_024, 65_536)
_WINDOW_TEXTS = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A text of the call. What has a `known` result is not computed."""

    place: int
    text: str  # as it is tokenized
    digest: bytes  # of that text
    known: Embedded | TextError | None


def finished(pooled: Vectors, dim: int) -> tuple[Vectors, dict[int, BadVectorError]]:
    """Cut and scaled rows, and an error with its row for each that is cut to zeros: those have no direction."""
    vectors = finish(pooled, dim)
    what = f"the first {dim} numbers of its vector are all 0; raise dim"
    return vectors, {int(row): BadVectorError(what, int(row)) for row in np.flatnonzero(~vectors.any(axis=1))}


class Lookup:
    """Readies the texts of one call with `ready`, which may raise a TextError. Without a shelf nothing is known."""

    def __init__(self, ready: Callable[[str, int], str], dim: int, shelf: Shelf | None = None) -> None:
        self._ready, self._dim, self._shelf = ready, dim, shelf

    def all(self, texts: Iterable[str]) -> list[Asked]:
        """All of them, which are here already, in few questions."""
        return [one for window in self.windows(texts, (_AHEAD[1], _AHEAD[1])) for one in window]

    def windows(self, texts: Iterable[str], ahead: tuple[int, int] = _AHEAD) -> Iterator[list[Asked]]:
        """All texts in order, as they come; one by one where there is no cache to ask."""
        numbered = enumerate(texts)
        n_characters = ahead[0]
        while window := list(self._window(numbered, n_characters)):
            window = self._looked_up(window)
            yield window
            all_known = all(one.known is not None for one in window)
            n_characters = min(2 * n_characters, ahead[1]) if all_known else ahead[0]

    def keep(self, pooled: Vectors, texts: Iterable[tuple[bytes, Fitted]]) -> None:
        """Tell the cache what the model answered to the texts of these digests."""
        if self._shelf is not None:
            rows = zip(pooled, texts, strict=True)
            self._shelf.keep((digest, Entry(row, len(one.ids), one.truncated)) for row, (digest, one) in rows)

    def vectors(self, pooled: Vectors) -> list[Vectors | BadVectorError]:
        """Cut and scaled rows; one of zeros is an error that has no place yet."""
        vectors, bad = finished(pooled, self._dim)
        return [bad.get(row, vector) for row, vector in enumerate(vectors)]

    def _window(self, numbered: Iterator[tuple[int, str]], n_characters: int) -> Iterator[Asked]:
        n_left = n_characters
        for place, text in islice(numbered, 1 if self._shelf is None else _WINDOW_TEXTS):
            try:
                ready = self._ready(text, place)
            except TextError as error:
                yield Asked(place, "", b"", error)
                continue
            yield Asked(place, ready, hashlib.sha256(ready.encode("utf-8")).digest(), None)
            n_left -= len(ready)
            if n_left <= 0:
                return

    def _looked_up(self, window: list[Asked]) -> list[Asked]:
        if self._shelf is None:
            return window
        asked = [row for row, one in enumerate(window) if one.known is None]
        entries = self._shelf.find([(window[row].digest, window[row].text) for row in asked])
        hits = [(row, entry) for row, entry in zip(asked, entries, strict=True) if entry is not None]
        if hits:
            vectors = self.vectors(np.stack([entry.pooled for _, entry in hits]))
            for (row, entry), vector in zip(hits, vectors, strict=True):
                one = window[row]
                if isinstance(vector, BadVectorError):
                    known: Embedded | TextError = BadVectorError(vector.message, one.place)
                else:
                    known = Embedded(vector, entry.prompt_tokens, entry.truncated, cached=True)
                window[row] = Asked(one.place, one.text, one.digest, known)
        return window
