"""PDF: the text of each page, under the titles of the outline.

Knows pages and outlines; pictures of text it cannot read. The only module that imports pypdf.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pypdf

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Outline, Piece, assemble
from q3e_local.reading.document import Document
from q3e_local.reading.failures import parsing
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import paragraphs

# pypdf logs flaws that it then repairs. Without a handler Python would write them to stderr.
logging.getLogger("pypdf").addHandler(logging.NullHandler())

# Of a page's content, which is held as objects while it is read; and of pages, drawn in 10 microseconds or so each.
_UNPACKED, _PARSED = 20_000_000, 1_000_000  # bytes and tokens
_OPERATIONS_OF_PAGE, _OPERATIONS = 500_000, 10_000_000
_HYPHEN = re.compile(r"(?<=[a-zà-ÿ])[-\u00ad\u2010]\n(?=[a-zà-ÿ])")  # a word cut at the end of its line
_NO_CHARACTERS = re.compile("[\x01-\x08\x0e-\x1f\ufffd\ue000-\uf8ff]")
_NO_CHARACTERS_MAX = 0.3  # share of a text
_Entry = tuple[int, str]  # of the outline: level from 1, title


def read(data: bytes, limits: Limits) -> Document:
    with pypdf.apply_configuration(zlib_maximum_output_length=_UNPACKED, stream_parsing_work_maximum_count=_PARSED):
        reader = pypdf.PdfReader(io.BytesIO(data))
        # Many are encrypted with no password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("is encrypted; save a copy without its password")
        n_pages = len(reader.pages)
        if n_pages == 0:
            raise InputError("has no pages; it may be damaged, save it again")
        limits.check_pages(n_pages)
        unread = _Unread()
        document = assemble(_pieces(reader, unread), limits)
    if not document.sections:
        if unread.broken:
            raise unread.broken[0]
        pages = "its page" if n_pages == 1 else f"its {n_pages:,} pages"
        raise InputError(f"has no text in {pages}, as scans have none; run OCR over it first, as ocrmypdf")
    if len(_NO_CHARACTERS.findall(document.text)) > _NO_CHARACTERS_MAX * len(document.text):
        raise InputError(
            "has fonts that do not tell which characters they draw; run OCR over it first, as ocrmypdf --force-ocr"
        )
    return replace(document, problems=tuple(unread.problems(n_pages)))


@dataclass
class _Unread:
    """Pages that gave no text although they show something."""

    pictures: list[int] = field(default_factory=list)  # numbers of pages, from 1
    broken: list[InputError] = field(default_factory=list)

    def problems(self, n_pages: int) -> Iterator[str]:
        if self.pictures:
            yield (
                f"{len(self.pictures):,} of its {n_pages:,} pages are pictures without text, the first is page "
                f"{self.pictures[0]:,}; run OCR over it first, as ocrmypdf --skip-text"
            )
        if self.broken:
            yield f"{len(self.broken):,} of its {n_pages:,} pages left out: the first {self.broken[0]}"


class _Work:
    """Counts what pages draw, forms within forms too, and stops above what any real one does."""

    def __init__(self) -> None:
        self.page = self._n_on_page = self._n_in_all = 0
        self.has_picture = self.is_over = False

    def turn(self, page: int) -> None:
        self.page, self._n_on_page, self.has_picture = page, 0, False

    def count(self, operator: bytes, *_: Any) -> None:
        self._n_on_page += 1
        self.has_picture = self.has_picture or operator in (b"Do", b"INLINE IMAGE")
        self._n_in_all += 1
        if self._n_on_page > _OPERATIONS_OF_PAGE or self._n_in_all > _OPERATIONS:
            self.is_over = True
            limit = _OPERATIONS_OF_PAGE if self._n_on_page > _OPERATIONS_OF_PAGE else _OPERATIONS
            raise InputError(f"draws more than {limit:,} strokes and letters up to page {self.page}; split it")


def _pieces(reader: pypdf.PdfReader, unread: _Unread) -> Iterator[Piece]:
    work = _Work()
    entries = _entries(reader)
    outline = Outline()
    for number, page in enumerate(reader.pages):
        work.turn(number + 1)
        try:
            with parsing(f"PDF at page {number + 1}"):
                text = _HYPHEN.sub("", page.extract_text(visitor_operand_before=work.count))
        except InputError as error:
            if work.is_over:
                raise
            unread.broken.append(error)
            continue
        if not text.strip() and work.has_picture:
            unread.pictures.append(number + 1)
        for part, path in _parts(text, entries.get(number, []), outline):
            for start, end in paragraphs(part):
                yield Piece(part[start:end], path, number + 1)


def _parts(text: str, entries: list[_Entry], outline: Outline) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A page's text, cut where the titles that the outline has for this page stand in it."""
    start = 0
    for level, title in entries:
        found = re.compile(r"\s+".join(map(re.escape, title.split())), re.IGNORECASE).search(text, start)
        if found and found.start() > start:
            yield text[start : found.start()], outline.path
            start = found.start()
        outline.enter(level, title)
    yield text[start:], outline.path


def _entries(reader: pypdf.PdfReader) -> dict[int, list[_Entry]]:
    """The outline by pages, from 0. A broken one is taken as none: the text can do without titles."""
    entries: dict[int, list[_Entry]] = {}
    try:
        with parsing("PDF"):
            _gather(reader, reader.outline, 1, entries)
    except InputError:
        return {}
    return entries


def _gather(reader: pypdf.PdfReader, items: list[Any], level: int, entries: dict[int, list[_Entry]]) -> None:
    for item in items:
        if isinstance(item, list):
            _gather(reader, item, level + 1, entries)
        elif item.title and (page := reader.get_destination_page_number(item)) is not None:
            entries.setdefault(page, []).append((level, " ".join(str(item.title).split())[:200]))
