"""Paths as people name them with `*`, `?`, `[a-z]` and `**`: a regular expression for each glob.

Knows text alone: paths have forward slashes, and nothing is looked up on a disk.
"""

from __future__ import annotations

import re
from functools import lru_cache

from q3e_local.errors import OptionError

_PIECE = re.compile(r"\*\*/|/\*\*$|\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", re.DOTALL)
_PATTERNS = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=64)
def pattern(glob: str) -> re.Pattern[str]:
    """What `fullmatch` finds a glob's paths with, by the rules of .gitignore. Raises OptionError.

    It may begin at any folder (`*.md`, `notes/**`), but for one that begins with a slash or a drive. `*` stays within
    a folder, `**` does not; what names a folder takes in all that is below it.
    """
    slashed = glob.replace("\\", "/")
    is_anchored = slashed.startswith("/") or re.match("[A-Za-z]:/", slashed) is not None
    body = "".join(_translated(piece) for piece in _PIECE.findall(slashed.removeprefix("./").rstrip("/")))
    if not body:
        raise OptionError(f"the path {glob!r} names nothing; give a pattern such as '*.md' or 'notes/**'")
    try:
        return re.compile(f"{'' if is_anchored else '(?:.*/)?'}{body}(?:/.*)?", re.DOTALL)
    except re.error:
        raise OptionError(f"the path {glob!r} has a range that ends before it begins") from None


def _translated(piece: str) -> str:
    if piece in _PATTERNS:
        return _PATTERNS[piece]
    if len(piece) > 2 and piece.startswith("["):
        inside = piece[1:-1]
        negated = "^" if inside[0] in "!^" and len(inside) > 1 else ""
        # Ranges stay ranges; nothing else in brackets means anything.
        ranges = "-".join(map(re.escape, re.split("-+", inside.removeprefix(inside[0]) if negated else inside)))
        return f"[{negated}{ranges}]"
    return re.escape(piece)
