"""Word documents (.docx): headings, paragraphs, lists and tables in order, and footnotes at the end.

Knows styles and outline levels; nothing of layout. Insertions under review count as text, deletions do not.
The only module that imports docx.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import docx
from docx.document import Document as WordDocument
from docx.oxml.ns import qn
from docx.oxml.parser import parse_xml

from q3e_local.reading.assembling import Outline, Piece, assemble, table_row
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.zipped import open_checked

_HEADING = re.compile(r"(?:heading|标题|標題|überschrift|titre|見出し|제목)\s*(\d)", re.IGNORECASE)
_HOLD_BLOCKS = {qn("w:sdt"), qn("w:sdtContent"), qn("w:ins"), qn("w:customXml")}
_TEXTS = {qn("w:t"), "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"}
_BREAKS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
# Text boxes stand twice in a file, for old and for new readers.
_LEFT_OUT = {qn(name) for name in ("w:del", "w:moveFrom", "w:pPr", "w:rt")}
_LEFT_OUT |= {"{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"}


def read(data: bytes, limits: Limits) -> Document:
    open_checked(data, limits).close()
    return assemble(_pieces(docx.Document(io.BytesIO(data))), limits)


def _pieces(document: WordDocument) -> Iterator[Piece]:
    yield from _Body(document).blocks(document.element.body)
    for part in document.part.package.iter_parts():
        if str(part.partname) in ("/word/footnotes.xml", "/word/endnotes.xml"):
            for note in parse_xml(part.blob):
                if note.get(qn("w:type")) is None:  # the others are separators
                    yield Piece(_text(note))


class _Body:
    """A document's body being read; remembers what the styles mean."""

    def __init__(self, document: WordDocument) -> None:
        self._outline = Outline()
        self._levels: dict[str | None, int | None] = {None: None}
        self._lists: set[str | None] = set()
        self._in_list = False
        for style in document.styles.element.iter(qn("w:style")):
            key, name = style.get(qn("w:styleId")), _value(style.find(qn("w:name"))) or ""
            heading = _HEADING.match(name)
            level = style.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}")
            is_title = name.lower() in ("title", "标题", "標題")
            self._levels[key] = 0 if is_title else int(heading[1]) if heading else _level(level)
            if name.lower().startswith("list"):
                self._lists.add(key)

    def blocks(self, parent: Any) -> Iterator[Piece]:
        for child in parent:
            if child.tag == qn("w:p"):
                yield self._paragraph(child)
            elif child.tag == qn("w:tbl"):
                yield from self._table(child)
            elif child.tag in _HOLD_BLOCKS:
                yield from self.blocks(child)

    def _paragraph(self, paragraph: Any) -> Piece:
        text = _text(paragraph).strip()
        style = _value(paragraph.find(f"{qn('w:pPr')}/{qn('w:pStyle')}"))
        level = _level(paragraph.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}"))
        level = self._levels.get(style) if level is None else level
        if level is not None and text:
            self._in_list = False
            return Piece(text, self._outline.enter(level, text), is_heading=True)
        is_item = style in self._lists or paragraph.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None
        goes_on, self._in_list = is_item and self._in_list, is_item
        return Piece(f"- {text}" if is_item and text else text, self._outline.path, joins=goes_on)

    def _table(self, table: Any) -> Iterator[Piece]:
        """A row a line, its cells between bars; a table in a cell is part of that."""
        self._in_list = False
        for number, row in enumerate(_inside(table, qn("w:tr"))):
            cells = map(_text, _inside(row, qn("w:tc")))
            yield Piece(table_row(cells), self._outline.path, joins=number > 0)


def _inside(element: Any, tag: str) -> Iterator[Any]:
    """The rows of a table or the cells of a row, in content controls too; not those of a table in it."""
    return (each for each in element.iter(tag) if next(each.iterancestors(element.tag)) is element)


def _text(element: Any) -> str:
    """All that a paragraph says, in links, content controls and insertions too."""
    words: list[str] = []
    for child in element:
        if child.tag in _TEXTS:
            words.append(child.text or "")
        elif child.tag in _BREAKS:
            words.append(_BREAKS[child.tag])
        elif child.tag == qn("w:p"):  # of a cell, a note or a text box
            words.append(f"\n{_text(child)}\n")
        elif child.tag not in _LEFT_OUT:
            words.append(_text(child))
    return "".join(words)


def _value(element: Any) -> str | None:
    return None if element is None else element.get(qn("w:val"))


def _level(element: Any) -> int | None:
    """Outline levels count from 0; 9 is body text."""
    value = _value(element)
    return int(value) + 1 if value is not None and value.isdigit() and int(value) < 9 else None
