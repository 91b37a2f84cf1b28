"""Sections of a text whose lines are those of its file, out of the lines where its blocks begin and end.

Knows lines and white space; what a block is, the readers know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from q3e_local.reading.assembling import SECTION_MAX
from q3e_local.reading.document import Document, Section

# A line that ends so ends a paragraph, where a text has no blank lines between them.
_ENDS = re.compile(r"[.!?。！？…：:；;][\"'”’」』）)\]]*\s*$")  # noqa: RUF001
_BLANK = re.compile(r"\n(?:[^\S\n]*\n)+")


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together, counted from 0; `end` is the line behind the last."""

    first: int
    end: int
    headings: tuple[str, ...] = ()
    is_heading: bool = False


def document_of(text: str, blocks: Iterable[Block]) -> Document:
    """The document of a text and its blocks. Lines in no block are paragraphs under the heading above them."""
    return Document(text, tuple(sections_of(text, blocks)), has_lines=True)


def sections_of(text: str, blocks: Iterable[Block]) -> Iterator[Section]:
    """The blocks as sections, whatever they leave out or claim twice."""
    starts = line_starts(text)
    done, headings = 0, tuple[str, ...]()
    for block in blocks:
        first, end = max(block.first, done), min(block.end, len(starts) - 1)
        if first >= end:
            continue
        yield from _paragraph_sections(text, starts, Block(done, first, headings))
        yield from _section(text, starts[first], starts[end], first, block)
        done, headings = end, block.headings
    yield from _paragraph_sections(text, starts, Block(done, len(starts) - 1, headings))


def line_starts(text: str) -> list[int]:
    """Where each line begins, and the end of the text."""
    starts = [0]
    starts += (found.end() for found in re.finditer("\n", text))
    if starts[-1] != len(text):
        starts.append(len(text))
    return starts


def paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each paragraph: what blank lines set apart; a long one also ends where a line ends it."""
    start = 0
    for found in [*_BLANK.finditer(text), None]:
        end = len(text) if found is None else found.start()
        yield from _shorter(text, start, end)
        start = len(text) if found is None else found.end()


def _shorter(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    if end - start > SECTION_MAX:
        at = start
        for line in text[start:end].splitlines(keepends=True):
            at += len(line)
            if _ENDS.search(line):
                yield start, at
                start = at
    if start < end:
        yield start, end


def _paragraph_sections(text: str, starts: list[int], block: Block) -> Iterator[Section]:
    offset, line, counted = starts[block.first], block.first, starts[block.first]
    for start, end in paragraphs(text[offset : starts[max(block.first, block.end)]]):
        line, counted = line + text.count("\n", counted, offset + start), offset + start
        yield from _section(text, offset + start, offset + end, line, block)


def _section(text: str, start: int, end: int, line: int, block: Block) -> Iterator[Section]:
    """What stands between two places, if anything does; `line` is that of the first, counted from 0."""
    words = text[start:end]
    stripped = words.strip()
    if stripped:
        begin = start + len(words) - len(words.lstrip())
        line += 1 + text.count("\n", start, begin)
        yield Section(begin, begin + len(stripped), block.headings, None, line, block.is_heading)
