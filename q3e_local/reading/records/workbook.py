"""Texts in a column of a sheet of an Excel workbook, whose first row with values has the names of the columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO

from q3e_local.reading import workbooks
from q3e_local.reading.records.item import Item, Wanted, failed, item_of, missing_column


def read(
    name: str,
    file: BinaryIO,
    wanted: Wanted,
    n_bytes: int,
    sheet: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Item]:
    """Each row below the header that has values; `name:2` is row 2 of the sheet, as Excel counts.

    Texts and ids are what Excel shows of a cell. `n_bytes` is the file's size, which its rows share, about.
    `tell` is called with a line that says which of several sheets is read. Raises InputError for what is no
    workbook or has no such sheet.
    """
    with workbooks.open_workbook(file) as workbook:
        names = workbooks.sheet_names(workbook)
        if sheet is None and len(names) > 1:
            tell(f"the sheet {names[0]!r} is read, the first of {len(names)}")
        share = n_bytes // max(1, workbooks.n_rows(workbook, sheet) or 1)
        rows = workbooks.rows(workbook, sheet)
        header = [workbooks.shown(value) for value in next(rows, (0, []))[1]]
        problem = missing_column(header, wanted.names())
        if problem is not None:
            yield failed(name, problem, "file")
            return
        for number, values in rows:
            share = min(share, n_bytes)
            record = dict(zip(header, values, strict=False))
            text = record.get(wanted.text)
            if wanted.id is not None:
                record[wanted.id] = workbooks.shown(record.get(wanted.id)) or None
            is_error = isinstance(text, workbooks.CellError)
            record[wanted.text] = "" if is_error else workbooks.shown(text)
            item = item_of(name, number, record, wanted, share)
            if is_error and item.is_blank:
                item = replace(item, problem=f"has Excel's error {text} in the column {wanted.text!r}")
            yield item
            n_bytes -= share
