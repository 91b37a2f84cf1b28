"""PDF: the text of each page, under the titles of the outline.

Knows pages and outlines; pictures of text it cannot read. The only module that imports pypdf.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import pypdf

from q3e_local.errors import InputError
from q3e_local.reading.document import Document
from q3e_local.reading.failures import parsing
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import paragraphs
from q3e_local.reading.pieces import Outline, Piece, assemble

# It complains of flaws that it then repairs. Who asks for logs gets that, stderr does not.
logging.getLogger("pypdf").addHandler(logging.NullHandler())

_DEPTH_MAX = 10
_ENTRIES_MAX = 10_000
_HYPHEN = re.compile(r"(?<=[a-zà-ÿ])[-\u00ad\u2010]\n(?=[a-zà-ÿ])")  # a word cut at the end of its line
_NO_CHARACTERS = re.compile("[\x01-\x08\x0e-\x1f\ufffd\ue000-\uf8ff]")
_NO_CHARACTERS_MAX = 0.3  # share of a text
_Entry = tuple[int, int, str]  # page from 0, level from 1, title


def read(data: bytes, limits: Limits) -> Document:
    with parsing("PDF"):
        reader = pypdf.PdfReader(io.BytesIO(data))
        # Many are encrypted with no password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("is encrypted; save a copy without its password")
        n_pages = len(reader.pages)
        if n_pages == 0:
            raise InputError("has no pages; it may be damaged, save it again")
        limits.check_pages(n_pages)
        document = assemble(_pieces(reader), "pdf", limits)
    if not document.sections:
        pages = "its page" if n_pages == 1 else f"its {n_pages:,} pages"
        raise InputError(f"has no text in {pages}, as scans have none; run OCR over it first, as ocrmypdf")
    if len(_NO_CHARACTERS.findall(document.text)) > _NO_CHARACTERS_MAX * len(document.text):
        raise InputError(
            "has fonts that do not tell which characters they draw; run OCR over it first, as ocrmypdf --force-ocr"
        )
    return document


def _pieces(reader: pypdf.PdfReader) -> Iterator[Piece]:
    entries = _entries(reader)
    outline = Outline()
    for number, page in enumerate(reader.pages):
        with parsing(f"PDF at page {number + 1}"):
            text = _HYPHEN.sub("", page.extract_text())
        here = [(level, title) for at, level, title in entries if at == number]
        for part, path in _parts(text, here, outline):
            for start, end in paragraphs(part):
                yield Piece(part[start:end], path, number + 1)


def _parts(text: str, entries: list[tuple[int, str]], outline: Outline) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A page's text, cut where the titles that the outline has for this page stand in it."""
    start = 0
    for level, title in entries:
        found = re.compile(r"\s+".join(map(re.escape, title.split())), re.IGNORECASE).search(text, start)
        if found and found.start() > start:
            yield text[start : found.start()], outline.path
            start = found.start()
        outline.enter(level, title)
    yield text[start:], outline.path


def _entries(reader: pypdf.PdfReader) -> list[_Entry]:
    """The outline. A broken one is as good as none: the text does not hang on it."""
    entries: list[_Entry] = []
    try:
        with parsing("PDF"):
            _gather(reader, reader.outline, 1, entries)
    except InputError:
        entries = []
    return entries


def _gather(reader: pypdf.PdfReader, items: list[Any], level: int, entries: list[_Entry]) -> None:
    for item in items[:_ENTRIES_MAX]:
        if isinstance(item, list):
            if level < _DEPTH_MAX:
                _gather(reader, item, level + 1, entries)
        elif item.title and (page := reader.get_destination_page_number(item)) is not None:
            entries.append((page, level, " ".join(str(item.title).split())[:200]))
