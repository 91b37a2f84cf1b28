"""Excel workbooks (.xlsx, .xlsm): each sheet under its name, each row a section, `column: value; column: value`.

Knows sheets, rows and the values that formulas had when the workbook was saved; nothing of charts or comments. The
only module that imports openpyxl.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from itertools import chain, islice
from typing import Any

import openpyxl

from q3e_local.reading.document import Document
from q3e_local.reading.failures import parsing
from q3e_local.reading.limits import Limits
from q3e_local.reading.pieces import Piece, assemble
from q3e_local.reading.tables import is_header, sentence
from q3e_local.reading.zipped import open_checked

_N_SNIFFED = 20  # rows among which the header row is looked for: titles and notes often stand above it


def read(data: bytes, limits: Limits) -> Document:
    with parsing("Excel workbook"):
        open_checked(data, limits).close()
        workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        limits.check_pages(len(workbook.worksheets))
        return assemble(_pieces(workbook), "xlsx", limits)


def _pieces(workbook: Any) -> Iterator[Piece]:
    for number, sheet in enumerate(workbook.worksheets, 1):
        sheet.reset_dimensions()  # what programs write there is often wrong, and cuts rows off
        rows = _rows(sheet)
        first = list(islice(rows, _N_SNIFFED))
        if not first:
            continue
        path = (sheet.title,)
        yield Piece(sheet.title, path, number, is_heading=True)
        header = _header_row(first)
        names = None if header is None else first[header]
        for at, row in enumerate(chain(first, rows)):
            is_below = header is not None and at > header
            yield Piece(sentence(names if is_below else None, row), path, number)


def _rows(sheet: Any) -> Iterator[list[str]]:
    """The values of each row that has any, without the empty cells behind the last one."""
    for row in sheet.iter_rows(values_only=True):
        values = [_shown(value) for value in row]
        while values and not values[-1]:
            values.pop()
        if values:
            yield values


def _header_row(rows: Sequence[Sequence[str]]) -> int | None:
    """The first row that names columns and is as wide as the widest of the rows; None where there is none."""
    width = max(map(len, rows))
    return next((at for at, row in enumerate(rows) if width > 1 and len(row) == width and is_header(row)), None)


def _shown(value: object) -> str:
    """A cell's value as a person writes it: whole numbers and dates without .0 and 00:00:00."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, date | time):
        return value.isoformat(*([" "] if isinstance(value, datetime) else []))
    return " ".join(str(value).split())
