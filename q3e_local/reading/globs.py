"""Paths as people name them with `*`, `?`, `[a-z]` and `**`: a regular expression for each glob.

Knows text alone: paths have forward slashes, and nothing is looked up on a disk. A glob may come from a stranger, so
none takes long: what a `*` took is never taken back to try another way, since the nearest place will always do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import groupby

from q3e_local.errors import OptionError

_ANY_FOLDERS = "**"
_PIECE = re.compile(r"\*+|\?|\[[!^]?\]?[^\]]*\]|.", re.DOTALL)
_END = "(?![^/])"  # of a name


@lru_cache(maxsize=64)
def pattern(glob: str, *, any_case: bool = False) -> re.Pattern[str]:
    """What `fullmatch` finds a glob's paths with, by the rules of .gitignore. Raises OptionError.

    It may begin at any folder (`*.md`, `notes/**`), but for one that begins with a slash or a drive. `*` stays within
    a folder, `**` between slashes does not; what names a folder takes in all that is below it.
    """
    names = glob.replace("\\", "/").removeprefix("./").rstrip("/").split("/")
    if names == [""]:
        raise OptionError(f"the path {glob!r} names nothing; give a pattern such as '*.md' or 'notes/**'")
    is_anchored = not names[0] or re.fullmatch("[A-Za-z]:", names[0])
    below = "/.*" if names[-1] == _ANY_FOLDERS else "(?:/.*)?"
    found = []
    for is_gap, run in groupby(names if is_anchored else [_ANY_FOLDERS, *names], lambda name: name == _ANY_FOLDERS):
        if not is_gap:
            found.append("/".join(map(_name, run)))
    flags = re.DOTALL | re.IGNORECASE if any_case else re.DOTALL
    if not found:
        return re.compile(".*", flags)
    gaps = [not is_anchored, *[True] * (len(found) - 1)]
    body = "/".join(f"(?>(?:[^/]*/)*?{part})" if gap else part for gap, part in zip(gaps, found, strict=True))
    try:
        return re.compile(body + below, flags)
    except re.error:
        raise OptionError(f"the path {glob!r} has a range that ends before it begins") from None


def _name(glob: str) -> str:
    """One name between slashes."""
    parts = [""]  # around the stars
    for piece in _PIECE.findall(glob):
        if piece.startswith("*"):
            parts.append("")
        else:
            parts[-1] += _character(piece)
    first, *others = parts
    if not others:
        return first + _END
    inner = "".join(f"(?>[^/]*?{part})" for part in others[:-1])
    return f"(?>{first}{inner}[^/]*{others[-1]}{_END})"


def _character(piece: str) -> str:
    if piece == "?":
        return "[^/]"
    if len(piece) < 3 or not piece.startswith("["):
        return re.escape(piece)
    # Ranges stay ranges; nothing else in brackets means anything.
    is_not = piece[1] in "!^" and len(piece) > 3
    inside = "-".join(map(re.escape, re.split("-+", piece[2:-1] if is_not else piece[1:-1])))
    return f"(?!/)[{'^' if is_not else ''}{inside}]"
