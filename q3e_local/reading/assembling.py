"""Join what a reader found, piece by piece, into a document; for formats whose own text has no lines.

Knows headings, lists and pages, not where they came from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from q3e_local.reading.document import Document, Section
from q3e_local.reading.limits import Limits
from q3e_local.wording.html_table import shortened

SECTION_MAX = 2000  # characters; a list or table above it is given in several sections
_TITLE_MAX = 200  # characters; a paragraph that was styled as a heading is not repeated over each chunk


@dataclass(frozen=True, slots=True)
class Piece:
    """One paragraph, list item, table row or heading, in reading order."""

    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None
    line: int | None = None
    is_heading: bool = False
    joins: bool = False  # it goes on with the list or table of the piece before it


class Outline:
    """The headings above the place that reading has come to."""

    def __init__(self) -> None:
        self._above: list[tuple[int, str]] = []

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._above)

    def enter(self, level: int, title: str) -> tuple[str, ...]:
        """The path at a heading, itself last. A heading without words changes nothing."""
        title = shortened(clean(title).strip(), _TITLE_MAX)
        if title:
            self._above = [each for each in self._above if each[0] < level]
            self._above.append((level, title))
        return self.path


def assemble(pieces: Iterable[Piece], limits: Limits) -> Document:
    """One text of all pieces, with a blank line between them. Raises InputError above the limit of characters."""
    parts: list[str] = []
    sections: list[Section] = []
    n_characters = 0
    for piece in pieces:
        text = clean(piece.text).strip()
        if not text:
            continue
        last = sections[-1] if sections else None
        goes_on = piece.joins and last is not None and (last.headings, last.page) == (piece.headings, piece.page)
        between = "" if last is None else "\n" if goes_on else "\n\n"
        start = n_characters + len(between)
        n_characters = start + len(text)
        limits.check_characters(n_characters)
        parts += (between, text)
        if goes_on and last is not None and n_characters - last.start <= SECTION_MAX:
            sections[-1] = replace(last, end=n_characters)
        else:
            sections.append(Section(start, n_characters, piece.headings, piece.page, piece.line, piece.is_heading))
    return Document("".join(parts), tuple(sections))


def table_row(cells: Iterable[str]) -> str:
    """A row of a table in one line: the cells that have words, with bars between them."""
    lines = (" ".join(cell.split()) for cell in cells)
    return " | ".join(line for line in lines if line)


def clean(text: str) -> str:
    """The text without what no text holds: NUL and lone surrogates; those of a pair become their character."""
    text = text.replace("\0", " ")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
