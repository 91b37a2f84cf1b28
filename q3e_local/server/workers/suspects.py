"""Texts whose model's process died under them: each is tried once more by itself, so that the culprit alone fails.

Knows texts and deaths; nothing of engines or of whose turn it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from q3e_local.server.workers.texts import Text

# Deaths in a row, with nothing computed between them, after which nothing is tried again: it is not one text's fault.
_MAX_DEATHS = 4


class Suspects:
    """The texts to be tried again. A text is among them once in its life at most."""

    def __init__(self) -> None:
        self._left: list[Text] = []
        self._n_deaths = 0

    def __bool__(self) -> bool:
        return bool(self._left)

    def died(self, texts: Sequence[Text], *, in_company: bool) -> list[Text]:
        """The process died under these texts. Answers which of them fail: a text by itself, or all after many deaths.

        `in_company`: there were several texts, or others were computed beside them.
        """
        self._n_deaths += 1
        if self._n_deaths >= _MAX_DEATHS:
            failed, self._left = [*texts, *self._left], []
            return failed
        again = [text for text in texts if in_company and not text.retried]
        for text in again:
            text.retried = True
        self._left += again
        return [text for text in texts if text not in again]

    def lived(self) -> None:
        """Something was computed."""
        self._n_deaths = 0

    def take(self, n_max: int, *, or_longer: bool) -> Text | None:
        """The next text to try, of at most `n_max` tokens; with `or_longer` a longer text where there is none."""
        for place, text in enumerate(self._left):
            if len(text.ids) <= n_max:
                return self._left.pop(place)
        return self._left.pop(0) if self._left and or_longer else None
