"""A CSV row by row, each with the very characters it is written in, so that it can be written again as it was.

Knows delimited tables and encodings, nothing of texts or scores. Reads as it goes.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from q3e_local.cli.texts import STDIN
from q3e_local.cli.texts.source import implied_delimiter, no_table_of_text, table_of
from q3e_local.errors import InputError
from q3e_local.reading.records.delimited import FIELD_LIMIT, dialect
from q3e_local.reading.records.item import is_utf8, missing_column
from q3e_local.reading.records.transcoding import OpenText

_MARK = "\ufeff"


@dataclass(frozen=True)
class Row:
    """A record: the line it begins in, its cells, and itself, line end and all."""

    line: int
    cells: list[str]
    raw: str

    @property
    def n_bytes(self) -> int:
        """Of the record in the file."""
        return len(self.raw.encode("utf-8", "surrogateescape"))


@contextmanager
def open_csv(
    name: str, columns: Sequence[str], delimiter: str | None = None, encoding: str | None = None
) -> Iterator[RawCsv]:
    """A file, or stdin, whose texts are in these columns. A .tsv is separated by tabs. Raises InputError."""
    if name == STDIN:
        if sys.stdin is None:
            raise InputError("stdin is closed")
        yield RawCsv("stdin", sys.stdin.buffer, columns, delimiter, None, encoding)
        return
    path = Path(name)
    if table_of(path) != "text":
        raise InputError(f"{name} has no rows of text to give back as they are; save it as CSV")
    try:
        size_bytes = path.stat().st_size
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from None
    with stream:
        yield RawCsv(name, stream, columns, delimiter or implied_delimiter(path), size_bytes, encoding)


class RawCsv:
    """An open CSV of `size_bytes`, where that is known.

    Without a `delimiter` or an `encoding` its beginning shows them; `opened` has the encoding it is in.
    """

    def __init__(
        self,
        name: str,
        stream: BinaryIO,
        columns: Sequence[str],
        delimiter: str | None = None,
        size_bytes: int | None = None,
        encoding: str | None = None,
    ) -> None:
        csv.field_size_limit(FIELD_LIMIT)
        self.name, self.size_bytes = name, size_bytes
        text = OpenText(stream, encoding)
        problem = no_table_of_text(text.head)
        if problem is not None:
            raise InputError(f"{name} {problem}")
        self.opened = text
        form = dialect(text, list(columns), delimiter)
        self._delimiter, self._has_sep_line = form.delimiter, form.has_sep_line
        # Bytes that are no UTF-8 pass as surrogates, and come out as they were.
        self._text = io.TextIOWrapper(text.stream, encoding="utf-8", errors="surrogateescape", newline="")
        self._taken: list[str] = []
        self._reader = csv.reader(self._lines(), delimiter=form.delimiter, quoting=form.quoting, strict=True)
        self._first = next(self._records(), Row(1, [], ""))
        self.header = self._first.cells
        self._places = [self._place(column) for column in columns]

    def rows(self) -> Iterator[Row]:
        """All rows below the header, without blank lines. Raises InputError for what is no CSV."""
        return self._records()

    def texts(self, row: Row) -> list[str]:
        """The cells of the columns; empty where a row is too short to have them. Raises InputError."""
        texts = [row.cells[place] if place < len(row.cells) else "" for place in self._places]
        for place, text in zip(self._places, texts, strict=True):
            if not is_utf8(text):
                raise InputError(
                    f"{self.name}:{row.line} column {self.header[place]!r} is not {self.opened.shown}; "
                    "name its encoding with --encoding, such as gb18030 or cp1252"
                )
        return texts

    def first(self, added: str | None = None) -> bytes:
        """The header as it is, with a column more where one is `added`."""
        return self._with(self._first, added)

    def written(self, row: Row, score: float | None = None, has_score: bool = False) -> bytes:
        """The row as it is, with its score as the last column where there is such a column."""
        if not has_score:
            return self._with(row, None)
        return self._with(row, "" if score is None else str(np.float32(score)))

    def _with(self, row: Row, cell: str | None) -> bytes:
        raw = row.raw
        if cell is not None:
            if len(row.cells) > len(self.header):
                raise InputError(
                    f"{self.name}:{row.line} has {len(row.cells)} cells, the header has {len(self.header)}; "
                    "a score behind them would be in no column: mend the row, or leave out --score"
                )
            line = raw.rstrip("\r\n")
            short = self._delimiter * max(0, len(self.header) - len(row.cells))
            raw = f"{line}{short}{self._delimiter}{self._quoted(cell)}{raw[len(line) :]}"
        return self._encoded(raw, row.line)

    def _encoded(self, raw: str, line: int) -> bytes:
        """The bytes of the file that these characters were. Raises InputError for what cannot come out as it was."""
        if self.opened.encoding == "utf-8":
            return raw.encode("utf-8", "surrogateescape")
        try:
            return raw.encode(self.opened.encoding)
        except UnicodeEncodeError:
            raise InputError(f"{self.name}:{line} is not {self.opened.shown}") from None

    def _quoted(self, cell: str) -> str:
        line = io.StringIO()
        csv.writer(line, delimiter=self._delimiter, lineterminator="").writerow([cell, ""])
        return line.getvalue()[: -len(self._delimiter)]

    def _records(self) -> Iterator[Row]:
        while True:
            line = self._reader.line_num + 1 + self._has_sep_line
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                raise InputError(f"{self.name}:{line} is not CSV: {error}") from None
            except OSError as error:
                raise InputError(f"{self.name} cannot be read: {error.strerror or error}") from None
            if cells is None:
                return
            raw = "".join(self._taken)
            self._taken.clear()
            if cells:
                yield Row(line, cells, raw)

    def _lines(self) -> Iterator[str]:
        for number, line in enumerate(self._text):
            self._taken.append(line)
            if number == 0 and self._has_sep_line:
                continue  # it is written as it is, and no row
            yield line.removeprefix(_MARK) if number == 0 else line

    def _place(self, column: str) -> int:
        if not is_utf8("".join(self.header)):
            raise InputError(
                f"{self.name} is not {self.opened.shown} in its first line; "
                "name its encoding with --encoding, such as gb18030 or cp1252"
            )
        problem = missing_column(self.header, [column])
        if problem is not None:
            raise InputError(f"{self.name} {problem}")
        return self.header.index(column)
