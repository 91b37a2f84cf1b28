"""How many tokens texts have, with as few requests to a distant tokenizer as possible: `TokenCounts`.

Splits texts into words and remembers their counts. Knows nothing of servers: a function counts for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from q3e_local.embedding.cutting import Cutter
from q3e_local.remote.window_size import size_of

# Characters of all remembered words: about 20 MB of memory.
_KNOWN_CHARACTERS = 2_000_000
_REQUEST_BYTES = 256 << 10
# A longer part is no word, and is not worth asking for ahead: only stretches of it are counted, which differ.
_WORD_CHARACTERS = 256


class TokenCounts:
    """Counts tokens as the model's own tokenizer does.

    `ask` counts the tokens of `items_max` texts at most, without end tokens. Texts are cut where every token ends, so
    that a text has as many tokens as its parts together, and most parts are words that were counted before.
    """

    def __init__(self, ask: Callable[[list[str]], list[int]], added_tokens: Iterable[str], items_max: int) -> None:
        self._ask, self._items_max = ask, items_max
        self._parts = Cutter(added_tokens).parts
        self._known: dict[str, int] = {}
        self._n_characters = 0

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, its end token included."""
        parts = [self._parts(text) for text in texts]
        known = self._learn(part for of_text in parts for part in of_text)
        return [sum(map(known.__getitem__, of_text)) + 1 for of_text in parts]

    def expect(self, texts: Iterable[str]) -> None:
        """Learn the words of texts that will be counted, whole or in part."""
        self._learn(part for text in texts for part in self._parts(text) if len(part) <= _WORD_CHARACTERS)

    def _learn(self, words: Iterable[str]) -> dict[str, int]:
        """The counts of known words, these among them; all others are forgotten where they have become too many.

        Callers keep the dictionary: another thread may replace it meanwhile.
        """
        if self._n_characters > _KNOWN_CHARACTERS:
            self._known, self._n_characters = {}, 0
        known = self._known
        unknown = dict.fromkeys(word for word in words if word not in known)
        for window in windows(unknown, self._items_max, lambda: _REQUEST_BYTES):
            known.update(zip(window, self._ask(window), strict=True))
            self._n_characters += sum(map(len, window))
        return known


def windows(texts: Iterable[str], items_max: int, enough_bytes: Callable[[], int]) -> Iterator[list[str]]:
    """The texts in runs of one request each: `items_max` at most, and none more once they have `enough_bytes()`."""
    window: list[str] = []
    n_bytes = 0
    for text in texts:
        window.append(text)
        n_bytes += size_of(text)
        if n_bytes >= enough_bytes() or len(window) >= items_max:
            yield window
            window, n_bytes = [], 0
    if window:
        yield window
