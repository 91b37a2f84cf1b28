"""Sheets of an Excel workbook (.xlsx, .xlsm), row by row; the only module that imports openpyxl.

Knows cells and what Excel shows of them; nothing of headers or of what the rows are for. openpyxl is imported when a
workbook is opened: `embed` loads this module for every input, and openpyxl is in an extra.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from difflib import get_close_matches
from itertools import islice
from typing import Any, BinaryIO

from q3e_local.errors import InputError
from q3e_local.reading import extras
from q3e_local.reading.failures import parsing
from q3e_local.reading.zipped import COMPOUND_FILE

WHAT = "an Excel workbook"
_BLOCK = 256  # rows read at a time


class CellError(str):
    """What Excel puts where a formula fails, such as #N/A."""

    __slots__ = ()


@contextmanager
def open_workbook(file: BinaryIO) -> Iterator[Any]:
    """The workbook in an open file, to be read from front to back. Raises InputError, MissingPackageError."""
    extras.need("xlsx")
    import openpyxl

    is_compound = file.read(len(COMPOUND_FILE)) == COMPOUND_FILE
    file.seek(0)
    if is_compound:
        raise InputError("is encrypted, or from Excel 2003 or before; save it as .xlsx without a password")
    with parsing(WHAT):
        # Values and not formulas: what Excel computed when it saved the file.
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
    try:
        yield workbook
    finally:
        workbook.close()


def sheet_names(workbook: Any) -> list[str]:
    """The names of the sheets that have cells, in order."""
    return [sheet.title for sheet in workbook.worksheets]


def rows(workbook: Any, sheet: str | None = None) -> Iterator[tuple[int, list[Any]]]:
    """Number and values of each row that has any, of the first sheet or the one named. Raises InputError.

    Values are text, numbers, true and false, times, `CellError`, or None.
    """
    found = _sheet(workbook, sheet)
    # What a file says of its own size is wrong in files of many programs, and cells beyond it would be left out.
    found.reset_dimensions()
    cells = found.iter_rows()
    first = 1
    while True:
        with parsing(WHAT):
            block = list(islice(cells, _BLOCK))
        if not block:
            return
        for number, row in enumerate(block, first):
            values = [CellError(cell.value) if cell.data_type == "e" else cell.value for cell in row]
            if any(value is not None and value != "" for value in values):
                yield number, values
        first += len(block)


def n_rows(workbook: Any, sheet: str | None = None) -> int | None:
    """How many rows the file says that the sheet has, before any are read; it may be wrong. Raises as `rows`."""
    with parsing(WHAT):
        found: int | None = _sheet(workbook, sheet).max_row
    return found


def _sheet(workbook: Any, sheet: str | None) -> Any:
    names = sheet_names(workbook)
    if not names:
        raise InputError("has no sheet with cells")
    if sheet is not None and sheet not in names:
        near = get_close_matches(sheet, names, 1)
        nearest = f"; the nearest is {near[0]!r}" if near and len(names) > 1 else ""
        raise InputError(f"has no sheet {sheet!r}; its sheets are {', '.join(names)}{nearest}")
    return workbook[sheet or names[0]]


def shown(value: Any) -> str:
    """A value as text, much as Excel shows it: whole numbers without a point, dates and times in ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)
