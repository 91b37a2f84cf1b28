"""Paths as people name them with `*`, `?`, `[a-z]` and `**`: a regular expression for each glob.

Knows text alone: paths have forward slashes, and nothing is looked up on a disk.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PIECE = re.compile(r"\*\*/|/\*\*$|\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", re.DOTALL)
_PATTERNS = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=64)
def pattern(glob: str) -> re.Pattern[str]:
    """What `fullmatch` finds a glob's paths with, by the rules of .gitignore.

    It may begin at any folder (`*.md`, `notes/**`), but for one that begins with a slash or a drive. `*` stays within
    a folder, `**` does not; what names a folder takes in all that is below it.
    """
    glob = glob.replace("\\", "/")
    is_anchored = glob.startswith("/") or re.match("[A-Za-z]:/", glob) is not None
    body = "".join(_translated(piece) for piece in _PIECE.findall(glob.removeprefix("./").rstrip("/")))
    return re.compile(f"{'' if is_anchored else '(?:.*/)?'}{body}(?:/.*)?", re.DOTALL)


def _translated(piece: str) -> str:
    if piece in _PATTERNS:
        return _PATTERNS[piece]
    if len(piece) > 2 and piece.startswith("["):
        inside = piece[1:-1].replace("\\", "\\\\")
        inside = f"^{inside[1:]}" if inside[0] in "!^" else inside
        return f"[{inside.replace('[', chr(92) + '[')}]"
    return re.escape(piece)
