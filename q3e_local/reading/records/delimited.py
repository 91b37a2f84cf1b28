"""Texts in a column of a table whose values are parted by commas, semicolons, tabs or other characters."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from q3e_local.errors import InputError
from q3e_local.reading.delimiters import choose, quoting, sep_line
from q3e_local.reading.encodings import is_utf8
from q3e_local.reading.records.item import Cause, Item, Wanted, failed, item_of, missing_column
from q3e_local.reading.records.transcoding import OpenText

_MARK = "\ufeff"
_FIELD_LIMIT = 2**31 - 1  # csv's own limit of 128 KiB is less than a long document


class BrokenRowError(InputError):
    """A row that is no CSV, so that nobody knows where the next row begins. `line` is where the row begins."""

    def __init__(self, error: csv.Error, line: int) -> None:
        super().__init__(f"is not CSV: {error}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Row:
    """A record of a table: the line it begins in, its cells, and its very characters, line end and all.

    Bytes that are not of the encoding are surrogates, so that they spoil their own row alone.
    """

    line: int
    cells: list[str]
    raw: str

    @property
    def n_bytes(self) -> int:
        """Of the row in UTF-8."""
        return len(self.raw.encode("utf-8", "surrogateescape"))


class Table:
    """A table as its text is read, from the `first` row, which is the header, on.

    Without a `delimiter` its beginning shows it. Raises BrokenRowError.
    """

    def __init__(self, text: OpenText, columns: Sequence[str], delimiter: str | None = None) -> None:
        csv.field_size_limit(_FIELD_LIMIT)
        head = text.head.decode("utf-8-sig", "surrogateescape")
        named = sep_line(head)
        self._has_sep_line = named is not None
        if self._has_sep_line:
            head = head.partition("\n")[2]
        self.delimiter = delimiter or named or choose(head, text.is_whole, columns)
        self._lines = io.TextIOWrapper(text.stream, encoding="utf-8", errors="surrogateescape", newline="")
        self._taken: list[str] = []  # lines of the row that is being read
        quotes = quoting(self.delimiter, head, text.is_whole)
        self._reader = csv.reader(self._row_lines(), delimiter=self.delimiter, quoting=quotes, strict=True)
        self.first = next(self.rows(), Row(1, [], ""))
        self.header = self.first.cells
        self.problem: tuple[str, Cause] | None = None  # why the columns are not in the header, each once
        if not is_utf8("".join(self.header)):
            self.problem = f"is not {text.shown} in its first line", "encoding"
        elif (missing := missing_column(self.header, columns)) is not None:
            self.problem = missing, "file"

    def rows(self) -> Iterator[Row]:
        """The next rows that are not blank. Raises BrokenRowError."""
        while True:
            line = self._reader.line_num + 1 + self._has_sep_line
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                raise BrokenRowError(error, line) from None
            if cells is None:
                return
            raw = "".join(self._taken)
            self._taken.clear()
            if cells:
                yield Row(line, cells, raw)

    def _row_lines(self) -> Iterator[str]:
        for number, line in enumerate(self._lines):
            self._taken.append(line)
            if number == 0 and self._has_sep_line:
                continue  # Excel's `sep=;` is no row, and stands before the first one as it is
            yield line.removeprefix(_MARK) if number == 0 else line


def read(name: str, text: OpenText, wanted: Wanted, delimiter: str | None = None) -> Iterator[Item]:
    """Each record below the header. Blank lines are no records."""
    try:
        table = Table(text, wanted.names(), delimiter)
        if table.problem is not None:
            yield failed(name, *table.problem)
            return
        for row in table.rows():
            # A short row lacks its last columns; cells beyond the header belong to none.
            record = dict(zip(table.header, row.cells, strict=False))
            yield item_of(name, row.line, record, wanted, row.n_bytes, text.shown)
    except BrokenRowError as error:
        yield failed(name, str(error), "record", line=error.line)
