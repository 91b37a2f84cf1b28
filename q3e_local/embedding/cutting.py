"""Where a text may be parted so that the ids of its pieces, one after another, are the ids of the whole.

Knows how the model's pre-tokenizer (llama.cpp's "qwen2") splits a text, and Unicode normalization; tokenizes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

PIECE = 50_000  # characters: about 15 ms
FAR = 8 * PIECE  # characters behind a piece among which a place to cut is looked for

# subtle: no rule of the pre-tokenizer goes on from a letter or digit to such a character, and no rule looks back. No
# such character joins the character before it when a text is normalized. Behind ASCII: Chinese and Japanese marks.
_PARTING = " \t\n!\"#$%&'()*+,-./:;=?@[\\]^`{|}~" + "\u3002\uff0c\u3001\uff1b\uff1a\uff01\uff1f"


class Cutter:
    """Finds where texts may be parted, for a model whose added tokens must stay whole."""

    def __init__(self, added_tokens: Iterable[str]) -> None:
        parting = "".join(sorted(set(_PARTING) - set("".join(added_tokens))))
        self._place = re.compile(rf"(?<=[^\W_])[{re.escape(parting)}]")
        # subtle: a run of white space is a single token up to its last line feed, and so are the line feeds behind
        # marks: the next character begins a token, if it is no white space.
        marks = re.escape("".join(sorted(set(parting) - set(" \t\n"))))
        self._any_place = re.compile(
            rf"(?P<behind_word>(?<=[^\W_])[{re.escape(parting)}])|(?P<line>(?<=\n)[^\W_])|(?<=\n)[{marks}]"
        )

    def end(self, text: str, start: int) -> int | None:
        """Where a piece of about PIECE characters from `start` ends; None if the text cannot be parted near there."""
        earliest = start + PIECE
        if earliest >= len(text):
            return len(text)
        for match in self._place.finditer(text, earliest, earliest + FAR):
            if _is_plain(text[match.start() - 1]):
                return match.start()
        return len(text) if earliest + FAR >= len(text) else None

    def parts(self, text: str) -> list[str]:
        """The text in the smallest pieces that it can be parted into: most are a word or two, which texts share."""
        places = [0]
        for match in self._any_place.finditer(text):
            place, kind = match.start(), match.lastgroup
            if kind is None or _is_plain(text[place - 1 if kind == "behind_word" else place]):
                places.append(place)
        places.append(len(text))
        return [text[start:end] for start, end in pairwise(places) if start < end]


def _is_plain(character: str) -> bool:
    """Whether it is a letter or digit in every version of Unicode, and stays the same when it is normalized."""
    if character < "\x80":
        return character.isalnum()
    kind = unicodedata.ucd_3_2_0.category(character)[0]
    return kind in "LN" and unicodedata.is_normalized("NFC", character)
