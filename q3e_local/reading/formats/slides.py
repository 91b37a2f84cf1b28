"""PowerPoint presentations (.pptx): each slide under its title, with its tables and the speaker's notes.

Knows shapes and their text; nothing of pictures and charts. The only module that imports pptx.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pptx

from q3e_local.reading.assembling import Piece, assemble, table_row
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.zipped import open_checked


def read(data: bytes, limits: Limits) -> Document:
    open_checked(data, limits).close()
    presentation = pptx.Presentation(io.BytesIO(data))
    limits.check_pages(len(presentation.slides))
    return assemble(_pieces(presentation), limits)


def _pieces(presentation: Any) -> Iterator[Piece]:
    for number, slide in enumerate(presentation.slides, 1):
        title = slide.shapes.title
        words = "" if title is None else " ".join(title.text_frame.text.split())
        path = (words,) if words else ()
        if words:
            yield Piece(words, path, number, is_heading=True)
        shapes = (shape for shape in slide.shapes if title is None or shape.element is not title.element)
        for at, text in enumerate(_texts(shapes)):
            yield Piece(text, path, number, joins=at > 0)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            yield Piece(_lines(slide.notes_slide.notes_text_frame.text), path, number)


def _texts(shapes: Iterable[Any]) -> Iterator[str]:
    """What stands in the shapes of a slide, those of groups too."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _texts(shape.shapes)
        elif shape.has_text_frame:
            yield _lines(shape.text_frame.text)
        elif getattr(shape, "has_table", False) and shape.has_table:
            for row in shape.table.rows:
                yield table_row(cell.text for cell in row.cells)


def _lines(text: str) -> str:
    """A line break inside a paragraph is \\v to PowerPoint."""
    return text.replace("\v", "\n").strip()
