"""Excel workbooks (.xlsx, .xlsm): each sheet under its name, each row a section, `column: value; column: value`.

Knows sheets, header rows and the values that formulas had when the workbook was saved; cells are read by workbooks.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

from q3e_local.reading import workbooks
from q3e_local.reading.assembling import Piece, assemble
from q3e_local.reading.document import Document
from q3e_local.reading.formats.csv import is_header, sentence
from q3e_local.reading.limits import Limits
from q3e_local.reading.zipped import open_checked

_N_SNIFFED = 20  # rows among which the header row is looked for: titles and notes often stand above it


def read(data: bytes, limits: Limits) -> Document:
    open_checked(data, limits).close()
    with workbooks.open_workbook(io.BytesIO(data)) as workbook:
        limits.check_pages(len(workbook.worksheets))
        return assemble(_pieces(workbook), limits)


def _pieces(workbook: Any) -> Iterator[Piece]:
    for name in workbooks.sheet_names(workbook):
        rows = _rows(workbook, name)
        first = list(islice(rows, _N_SNIFFED))
        if not first:
            continue
        path = (name,)
        yield Piece(name, path, is_heading=True)
        header = _header_row(first)
        names = None if header is None else first[header]
        for at, row in enumerate(chain(first, rows)):
            is_below = header is not None and at > header
            yield Piece(sentence(names if is_below else None, row), path)


def _rows(workbook: Any, name: str) -> Iterator[list[str]]:
    """The values of each row that has any, in one line each, without the empty cells behind the last one."""
    for _, cells in workbooks.rows(workbook, name):
        values = [" ".join(workbooks.shown(value).split()) for value in cells]
        while values and not values[-1]:
            values.pop()
        if values:
            yield values


def _header_row(rows: Sequence[Sequence[str]]) -> int | None:
    """The first row that names columns and is as wide as the widest of the rows; None where there is none."""
    width = max(map(len, rows))
    return next((at for at, row in enumerate(rows) if width > 1 and len(row) == width and is_header(row)), None)
