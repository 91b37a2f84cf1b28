"""Where sentences end, in Chinese and in languages with spaces.

Knows marks and a few abbreviations; nothing of tokens, chunks or models.
"""

from __future__ import annotations

import re

# The end of a sentence is, in this order: a stop of a script without spaces, with the quotes, brackets and stars of
# Markdown that close there; another stop before white space; an empty line; a line before an item of a list.
_END = re.compile(
    r"(?P<wide>[。！？；｡…।؟۔]+[”’」』）】〉》\"')\]*_]*\s*)"  # noqa: RUF001
    r"|(?P<stop>[.!?]+[\"'”’»)\]*_]*)\s+"  # noqa: RUF001
    r"|\n[ \t]*\n\s*"
    r"|\n(?=[ \t]*(?:[-*+•·]|\d{1,3}[.)、]|[一二三四五六七八九十]{1,3}、)[ \t]*\S)"
)
# Abbreviations, whose full stop seldom ends a sentence; the second list counts before numbers alone.
_WORDS = (
    "mr mrs ms dr prof st sr jr vs etc cf al ed eds est dept inc ltd co corp approx e.g i.e a.m p.m u.s u.k u.n "
    "jan feb mar apr jun jul aug sep sept oct nov dec "
    "bzw ca usw z.b d.h u.a evtl ggf abb str inkl exkl vgl mme mlle sra dra"
)
_WORDS_BEFORE_NUMBERS = "no nos nr fig figs eq eqs p pp vol ch sec art tab núm pág"
_ABBREVIATIONS, _BEFORE_NUMBERS = frozenset(_WORDS.split()), frozenset(_WORDS_BEFORE_NUMBERS.split())
_LAST_WORD = re.compile(r"[^\W_]+(?:\.[^\W_]+)*$")
_LONGEST_WORD = 24


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence, with the white space behind it; together they are the whole text."""
    found = []
    start = 0
    for end in _END.finditer(text):
        if end["stop"] is not None and not _ends(text, start, end):
            continue
        if text[start : end.end()].strip():
            found.append((start, end.end()))
            start = end.end()
    if start < len(text):
        found.append((start, len(text)))
    return found


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether a Latin stop with white space behind it ends the sentence that began at `start`."""
    follows = text[end.end() : end.end() + 1]
    if follows.islower():
        return False
    if end["stop"][0] != "." or end["stop"].startswith(".."):
        return True
    # A slice, so that a long text is not searched from its beginning at every stop.
    before = text[max(start, end.start() - _LONGEST_WORD) : end.start()]
    last = _LAST_WORD.search(before)
    if last is None:
        return True
    word = last[0].lower()
    if word in _BEFORE_NUMBERS:
        return not follows.isdigit()
    is_initial = len(word) == 1 and last[0].isupper() and word.isascii()
    is_list_number = word.isdigit() and not text[start : end.start() - len(word)].strip()
    return not (is_initial or is_list_number or word in _ABBREVIATIONS)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Start and end of the stretch without white space at its ends."""
    stretch = text[start:end]
    return start + len(stretch) - len(stretch.lstrip()), start + len(stretch.rstrip())
