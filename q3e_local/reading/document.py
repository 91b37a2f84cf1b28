"""What reading a file gives: its text, and the stretches of it that belong together.

Knows nothing of formats or files.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document's text that belongs together: a paragraph, a list, a function, a slide, a row.

    A heading is a section too; its path ends in itself, so that it goes with what stands below it.
    """

    start: int  # characters of Document.text
    end: int
    headings: tuple[str, ...] = ()  # the path above it, outermost first
    page: int | None = None  # of a PDF, slide of a PPTX, cell of a notebook; from 1
    # Of the file where it begins, from 1; of HTML that of its element. None where a file has no lines, or not known.
    line: int | None = None
    is_heading: bool = False  # nothing but a heading, which `headings` says already


@dataclass(frozen=True, slots=True)
class Document:
    """What was read of a file. Sections are in order, do not overlap, and leave out nothing but white space."""

    text: str
    sections: tuple[Section, ...]
    kind: str = ""  # "markdown", "pdf", ...
    has_lines: bool = False  # `text` has the lines of the file, so that lines inside a section may be counted
    encoding: str | None = None  # of the file's bytes, where it is text: "utf-8", "gb18030", ...
    # What of the file is not in `text`, or damaged in it: reasons, as those of Skipped.
    problems: tuple[str, ...] = ()
