"""A piece of a text, as it is embedded and found again: `Chunk`.

Knows places in a document; nothing of how a document is cut, nor of where chunks are kept.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: `document.text[start:end] == text`."""

    text: str
    start: int = 0  # characters of the document's text
    end: int = 0
    headings: tuple[str, ...] = ()  # the path above it, outermost first
    page: int | None = None  # of a PDF, slide of a PPTX, cell of a notebook; from 1
    line: int | None = None  # first and last line in the file, from 1; None where a file has no lines
    last_line: int | None = None

    @property
    def embedded(self) -> str:
        """What the model sees: the headings ("A > B") on a line of their own, then the text."""
        return f"{' > '.join(self.headings)}\n{self.text}" if self.headings else self.text
