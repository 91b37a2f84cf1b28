"""A CSV row by row, each with the very characters it is written in, so that it can be written again as it was.

Knows files and encodings, nothing of texts or scores. Reads as it goes.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from q3e_local.cli.texts import STDIN
from q3e_local.cli.texts.source import implied_delimiter, not_text, table_of
from q3e_local.errors import InputError
from q3e_local.reading.encodings import is_utf8
from q3e_local.reading.records.delimited import BrokenRowError, Row, Table
from q3e_local.reading.records.transcoding import OpenText

_ADVICE = "; name its encoding with --encoding, such as gb18030 or cp1252"


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
    """An open CSV of `size_bytes`, where that is known. `opened` has the encoding it is in, `first` is its header.

    Without a `delimiter` or an `encoding` its beginning shows them.
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
        self.name, self.size_bytes = name, size_bytes
        self.opened = OpenText(stream, encoding)
        problem = not_text(self.opened.head)
        if problem is not None:
            raise InputError(f"{name} {problem}")
        with self._naming():
            self._table = Table(self.opened, columns, delimiter)
        if self._table.problem is not None:
            problem, cause = self._table.problem
            raise InputError(f"{name} {problem}{_ADVICE if cause == 'encoding' else ''}")
        self.first = self._table.first
        self._places = [self.first.cells.index(column) for column in columns]

    def rows(self) -> Iterator[Row]:
        """All rows below the header, without blank lines. Raises InputError for what is no CSV."""
        with self._naming():
            yield from self._table.rows()

    def texts(self, row: Row) -> list[str]:
        """The cells of the columns; empty where a row is too short to have them. Raises InputError."""
        texts = [row.cells[place] if place < len(row.cells) else "" for place in self._places]
        for place, text in zip(self._places, texts, strict=True):
            if not is_utf8(text):
                column = self.first.cells[place]
                raise InputError(f"{self.name}:{row.line} column {column!r} is not {self.opened.shown}{_ADVICE}")
        return texts

    def written(self, row: Row, added: str | None = None) -> bytes:
        """The row as the file has it, with a cell more where one is `added`. Raises InputError."""
        raw, n_columns, encoding = row.raw, len(self.first.cells), self.opened.encoding
        if added is not None:
            if len(row.cells) > n_columns:
                raise InputError(
                    f"{self.name}:{row.line} has {len(row.cells)} cells, the header has {n_columns}; "
                    "a score behind them would be in no column: mend the row, or leave out --score"
                )
            line, behind = raw.rstrip("\r\n"), io.StringIO()
            # From the last cell of the row on, with the cells that a short row lacks.
            cells = ["", *[""] * (n_columns - len(row.cells)), added]
            csv.writer(behind, delimiter=self._table.delimiter, lineterminator="").writerow(cells)
            raw = f"{line}{behind.getvalue()}{raw[len(line) :]}"
        try:
            return raw.encode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
        except UnicodeEncodeError:
            raise InputError(f"{self.name}:{row.line} is not {self.opened.shown}") from None

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Errors of reading as InputErrors that name the file."""
        try:
            yield
        except BrokenRowError as error:
            raise InputError(f"{self.name}:{error.line} {error}") from None
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error.strerror or error}") from None
