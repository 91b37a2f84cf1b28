"""Jupyter notebooks: the sources of Markdown and code cells in order, each with the number of its cell.

Outputs are left out: they are what the code says again, often in pictures. Reads nbformat 4, and 3 as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Outline, Piece, assemble
from q3e_local.reading.document import Document
from q3e_local.reading.formats.markdown import blocks
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import sections_of


def read(text: str, limits: Limits) -> Document:
    notebook = json.loads(text)
    if not isinstance(notebook, dict) or not isinstance(_cells(notebook), list):
        raise InputError("is JSON, but no Jupyter notebook: it has no cells")
    return assemble(_pieces(_cells(notebook)), limits)


def _cells(notebook: dict[str, Any]) -> Any:
    """The cells; up to nbformat 3 they lay in worksheets."""
    if "worksheets" in notebook:
        return [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
    return notebook.get("cells")


def _pieces(cells: list[dict[str, Any]]) -> Iterator[Piece]:
    outline = Outline()
    for number, cell in enumerate(cells, 1):
        source = cell.get("source", cell.get("input", ""))
        text = source if isinstance(source, str) else "".join(source)
        if cell.get("cell_type") == "heading":  # nbformat 3
            yield Piece(text, outline.enter(int(cell.get("level", 1)), text), number, is_heading=True)
        elif cell.get("cell_type") == "markdown":
            text = text.replace("\r\n", "\n")
            for section in sections_of(text, blocks(text, outline)):
                yield Piece(
                    text[section.start : section.end], section.headings, number, is_heading=section.is_heading
                )
        else:
            yield Piece(text, outline.path, number)
