"""Source code of any language, by its indentation: functions, classes by their methods.

Knows no grammar: a unit begins where a line stands at the margin again, with the comments and decorators above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from q3e_local.reading.assembling import SECTION_MAX
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import Block, document_of

_TAB = 4
_TITLE_MAX = 120
_DEPTH_MAX = 8  # levels of indentation that are told apart
# A line at the margin that goes on with what stands above it.
_GOES_ON = re.compile(
    r"\s*(?:[)}\]{]|end\b|else\b|elif\b|elsif\b|except\b|finally\b|catch\b|rescue\b|fi\b|done\b|esac\b)"
)
_CLOSES = re.compile(r"[}\])]?[;,)]*")
_ABOVE = re.compile(r"\s*(?:#|//|/\*|\*|--|@|;|%|\"\"\"|'''|<!--|\[\[?\w.*\]\s*$|template\s*<)")
# What holds units of its own.
_HOLDS = re.compile(
    r"\b(?:class|struct|interface|trait|impl|enum|namespace|module|mod|object|protocol|extension|union|record|package)\b"
)


def read(text: str, limits: Limits) -> Document:
    return document_of(text, blocks(text))


def blocks(text: str) -> Iterator[Block]:
    """The units of a file, the methods of its classes, and the parts of what is longer than a section."""
    lines = text.split("\n")
    return _units(lines, 0, len(lines), ())


def _units(lines: Sequence[str], first: int, end: int, headings: tuple[str, ...]) -> Iterator[Block]:
    for start, stop in _cut(lines, first, end):
        head = next((at for at in range(start, stop) if lines[at].strip() and not _ABOVE.match(lines[at])), start)
        body = _body(lines, head, stop)
        is_long = sum(len(line) + 1 for line in lines[start:stop]) > SECTION_MAX
        if body is None or len(headings) >= _DEPTH_MAX or not (is_long or _holds_units(lines, head, body, stop)):
            yield Block(start, stop, headings)
            continue
        inner = (*headings, _title(lines[head]))
        yield Block(start, body, headings)
        yield from _units(lines, body, stop, inner)


def _cut(lines: Sequence[str], first: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the units at the outermost indentation of these lines begin and end; blank lines end the unit above."""
    # A closing brace stands further out than what it closes.
    inside = (line for line in lines[first:end] if line.strip() and not _GOES_ON.match(line))
    margin = min(map(_indent, inside), default=0)
    start, before = first, ""
    for at in range(first, end):
        line = lines[at]
        if line.strip() and _indent(line) <= margin and not _GOES_ON.match(line):
            is_apart = not before.strip() or _indent(before) > margin or bool(_GOES_ON.match(before))
            if at > start and is_apart:
                yield start, at
                start = at
        before = line
    if start < end:
        yield start, end


def _body(lines: Sequence[str], head: int, stop: int) -> int | None:
    """The first line of what is indented below a head; lines at the margin, as `) -> None:`, are of the head."""
    margin = _indent(lines[head])
    body = None
    for at in range(head + 1, stop):
        if lines[at].strip() and _indent(lines[at]) > margin:
            body = at if body is None else body
        elif lines[at].strip() and not _CLOSES.fullmatch(lines[at].strip()):
            body = None
    return body


def _holds_units(lines: Sequence[str], head: int, body: int, stop: int) -> bool:
    """Whether it is a class or the like, with more than one thing in it."""
    return bool(_HOLDS.search(lines[head])) and len(list(_cut(lines, body, stop))) > 1


def _title(line: str) -> str:
    title = line.strip().rstrip("{([:, ")
    return title if len(title) <= _TITLE_MAX else f"{title[: _TITLE_MAX - 1]}…"


def _indent(line: str) -> int:
    expanded = line.expandtabs(_TAB)
    return len(expanded) - len(expanded.lstrip())
