"""Names that are like a mistyped name: `Did you mean ...?`.

Arithmetic on spellings; knows nothing of what the names stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

_SHOWN_AT_MOST = 3
_COMPARED_AT_MOST = 100  # characters, as strangers may type more
# Between 0 and 2. "qwen3:4b" has 1.6 for "qwen3-embedding:4b", "4b" has 1.2, "nomic-embed-text" has 0.5.
_LIKE_ENOUGH = 0.75
_WORD = re.compile(r"[a-z]+[0-9.]*|[0-9.]+[a-z]*|[^\W\d_]+")


def nearest(typed: str, names: Iterable[str] | Mapping[str, Iterable[str]]) -> list[str]:
    """The names most like `typed`, best first, at most three.

    A mapping has the further spellings of each name: the best of a name's spellings counts.
    """
    typed = typed[:_COMPARED_AT_MOST].lower()
    spellings = names if isinstance(names, Mapping) else dict.fromkeys(names, ())
    scores = {
        name: max(_likeness(typed, spelling.lower()) for spelling in (name, *further))
        for name, further in spellings.items()
    }
    like = [name for name, score in scores.items() if score >= _LIKE_ENOUGH]
    # Rounded, so that of names with about the same score the plain name comes before its variants.
    return sorted(like, key=lambda name: (-round(scores[name], 1), len(name)))[:_SHOWN_AT_MOST]


def either(names: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _likeness(typed: str, name: str) -> float:
    """How alike the letters are, plus the share of the typed words that begin a word of the name: 0 to 2."""
    words, of_name = _WORD.findall(typed), _WORD.findall(name)
    letters = SequenceMatcher(None, "".join(words), "".join(of_name), autojunk=False).ratio()
    beginnings = [word for word in words if len(word) > 1 and any(each.startswith(word) for each in of_name)]
    return letters + len(beginnings) / max(1, len(words))
