"""OpenDocument texts (.odt): headings, paragraphs, lists and tables in order, and footnotes at the end.

Knows elements of a text's body; nothing of layout. Deletions under review and comments are left out. The only module
that imports odfdo.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import odfdo

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Outline, Piece, assemble, table_row
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.zipped import open_checked

_TEXTS = {"application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text-template"}
_HOLD_BLOCKS = {"text:section", "text:index-body", "text:numbered-paragraph"}
_NOT_TEXT = ("office:annotation", "office:annotation-end", "text:ruby-text")
_TITLES = {"Title", "标题", "標題"}


def read(data: bytes, limits: Limits) -> Document:
    with open_checked(data, limits) as archive:
        names = set(archive.namelist())
        if "META-INF/manifest.xml" in names and b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise InputError("is encrypted; save a copy without its password")
        if "mimetype" in names:
            kind = archive.read("mimetype").decode("ascii", "replace").strip()
            if kind not in _TEXTS:
                raise InputError(f"is no text document but {kind}")
    return assemble(_Body(odfdo.Document(io.BytesIO(data))).pieces(), limits)


class _Body:
    """A document's body being read; gathers the notes, which come last."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._outline = Outline()
        self._notes: list[str] = []

    def pieces(self) -> Iterator[Piece]:
        yield from self._blocks(self._document.body)
        yield from map(Piece, self._notes)

    def _blocks(self, parent: Any) -> Iterator[Piece]:
        for child in parent.children:
            if child.tag == "text:h":
                text = self._text(child)
                level = child.get_attribute_integer("text:outline-level") or 1
                yield Piece(text, self._outline.enter(level, text), is_heading=bool(text.strip()))
            elif child.tag == "text:p":
                yield self._paragraph(child)
            elif child.tag == "text:list":
                yield from self._list(child)
            elif child.tag == "table:table":
                yield from self._table(child)
            elif child.tag in _HOLD_BLOCKS:
                yield from self._blocks(child)

    def _paragraph(self, paragraph: Any) -> Piece:
        text = self._text(paragraph)
        if text.strip() and self._is_title(paragraph):
            return Piece(text, self._outline.enter(0, text), is_heading=True)
        return Piece(text, self._outline.path)

    def _is_title(self, paragraph: Any) -> bool:
        """Whether its style is that of a title, or was made of it by a change to this paragraph alone."""
        name = paragraph.get_attribute_string("text:style-name") or ""
        if name in _TITLES:
            return True
        style = self._document.get_style("paragraph", name) if name else None
        return style is not None and style.get_attribute_string("style:parent-style-name") in _TITLES

    def _list(self, items: Any) -> Iterator[Piece]:
        """A line for each item, those of lists inside it too."""
        paragraphs = items.get_elements("descendant::text:p | descendant::text:h")
        for number, paragraph in enumerate(paragraphs):
            yield Piece(f"- {self._text(paragraph)}", self._outline.path, joins=number > 0)

    def _table(self, table: Any) -> Iterator[Piece]:
        """A row a line, its cells between bars."""
        for number, row in enumerate(table.get_elements("descendant::table:table-row")):
            cells = (
                " ".join(map(self._text, cell.get_elements("descendant::text:p")))
                for cell in row.get_elements("table:table-cell")
            )
            yield Piece(table_row(cells), self._outline.path, joins=number > 0)

    def _text(self, paragraph: Any) -> str:
        """All that a paragraph says, in links, spans and text boxes too; its notes are kept for the end."""
        for note in paragraph.get_elements("descendant::text:note"):
            body = note.get_elements("text:note-body//text:p")
            self._notes.append("\n".join(paragraph.inner_text for paragraph in body))
            note.delete(keep_tail=True)
        for tag in _NOT_TEXT:
            for element in paragraph.get_elements(f"descendant::{tag}"):
                element.delete(keep_tail=True)
        text: str = paragraph.inner_text
        return text
