"""How many tokens texts have, with as few requests to a distant tokenizer as possible: `TokenCounts`.

Parts texts into words, whose counts are remembered. Knows nothing of servers: a function counts for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from q3e_local.embedding.cutting import Cutter

# Characters of all words that are remembered: about 20 MB of memory.
_KNOWN_CHARACTERS = 2_000_000
_REQUEST_BYTES = 256 << 10
# A part that is longer is no word: only a stretch of it is ever counted, and that is another text.
_WORD_CHARACTERS = 256


class TokenCounts:
    """Counts tokens as the model's own tokenizer does.

    `ask` gives the tokens of each text, without end tokens, for `items_max` texts at most. A text has as many as its
    parts together, cut at places where every token ends, and most parts are words of texts before.
    """

    def __init__(self, ask: Callable[[list[str]], list[int]], added_tokens: Iterable[str], items_max: int) -> None:
        self._ask, self._items_max = ask, items_max
        self._parts = Cutter(added_tokens).parts
        self._known: dict[str, int] = {}
        self._n_characters = 0

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, its end token included."""
        parts = [self._parts(text) for text in texts]
        known = self._remembered()
        self._learn(known, dict.fromkeys(part for of_text in parts for part in of_text if part not in known))
        return [sum(map(known.__getitem__, of_text)) + 1 for of_text in parts]

    def expect(self, texts: Iterable[str]) -> None:
        """Learn the words of texts that are to be counted, or parts of which are."""
        known = self._remembered()
        parts = (part for text in texts for part in self._parts(text) if len(part) <= _WORD_CHARACTERS)
        self._learn(known, dict.fromkeys(part for part in parts if part not in known))

    def _learn(self, known: dict[str, int], words: Iterable[str]) -> None:
        for window in _windows(words, self._items_max):
            known.update(zip(window, self._ask(window), strict=True))
            self._n_characters += sum(map(len, window))

    def _remembered(self) -> dict[str, int]:
        """The words known so far; none again where they have become too many.

        Who counts keeps the answer: another thread may begin again meanwhile.
        """
        if self._n_characters > _KNOWN_CHARACTERS:
            self._known, self._n_characters = {}, 0
        return self._known


def _windows(words: Iterable[str], items_max: int) -> Iterator[list[str]]:
    """The words in runs that one request takes."""
    window: list[str] = []
    n_bytes = 0
    for word in words:
        window.append(word)
        n_bytes += len(word.encode("utf-8", "surrogatepass"))
        if n_bytes >= _REQUEST_BYTES or len(window) >= items_max:
            yield window
            window, n_bytes = [], 0
    if window:
        yield window
