"""Texts in a column of a table whose values are parted by commas, semicolons, tabs or other characters."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from q3e_local.reading.delimiters import choose, is_quoted, sep_line
from q3e_local.reading.records.item import Item, Wanted, failed, is_utf8, item_of, missing_column
from q3e_local.reading.records.transcoding import OpenText

FIELD_LIMIT = 2**31 - 1  # csv's own limit of 128 KiB is less than a long document


@dataclass(frozen=True)
class Dialect:
    """How a table is written. `has_sep_line`: the first line is Excel's `sep=;`, and not of the table."""

    delimiter: str
    quoting: Literal[0, 3]
    has_sep_line: bool


def dialect(text: OpenText, columns: list[str], delimiter: str | None = None) -> Dialect:
    """How the table is written that has these columns; by its beginning where no `delimiter` is given."""
    head = text.head.decode("utf-8-sig", "surrogateescape")
    named = sep_line(head)
    if named is not None:
        head = head.partition("\n")[2]
    chosen = delimiter or named or choose(head, text.is_whole, columns)
    has_quotes = chosen != "\t" or is_quoted(head, text.is_whole)
    return Dialect(chosen, csv.QUOTE_MINIMAL if has_quotes else csv.QUOTE_NONE, named is not None)


def read(name: str, text: OpenText, wanted: Wanted, delimiter: str | None = None) -> Iterator[Item]:
    """Each record below the header. Blank lines are no records."""
    csv.field_size_limit(FIELD_LIMIT)
    columns = list(wanted.names())
    form = dialect(text, columns, delimiter)
    # Bytes that are not of the encoding pass as surrogates, so that they spoil their own record alone.
    lines = io.TextIOWrapper(text.stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        n_before = 0
        if form.has_sep_line:
            lines.readline()
            n_before = 1
        rows = csv.reader(lines, delimiter=form.delimiter, quoting=form.quoting, strict=True)
        line = n_before + 1
        try:
            header = next(filter(None, rows), [])
            if not is_utf8("".join(header)):
                yield failed(name, f"is not {text.shown} in its first line", "encoding")
                return
            problem = missing_column(header, columns)
            if problem is not None:
                yield failed(name, problem, "file")
                return
            while True:
                line = n_before + rows.line_num + 1
                row = next(rows, None)
                if row is None:
                    return
                if row:
                    n_bytes = sum(len(cell.encode("utf-8", "replace")) + 1 for cell in row)
                    # A short row lacks its last columns; cells beyond the header belong to none.
                    record = dict(zip(header, row, strict=False))
                    yield item_of(name, line, record, wanted, n_bytes, text.shown)
        except csv.Error as error:
            # Where the next record begins is anyone's guess.
            yield failed(name, f"is not CSV: {error}", "record", line=line)
    finally:
        lines.detach()
