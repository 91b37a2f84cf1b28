"""CSV and TSV: each row a section, `column: value; column: value`, on the line where it begins.

Knows delimiters and header rows; types and dialects beyond double quotes it does not.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Piece, assemble
from q3e_local.reading.delimiters import quoting, sep_line
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits

_DELIMITERS = ",\t;|"
_NONE = "\x1f"  # for a file of one column, whose sentences may have commas in them
_N_SNIFFED = 50  # rows that show which delimiter it is
_PARSED_MAX = 2**31 - 1  # characters that csv takes for a value: its limit is the whole process's, so ours is below
_VALUE_MAX = 100_000  # characters; beyond, a quote was left open more likely than that somebody wrote it


def read(text: str, limits: Limits) -> Document:
    named = sep_line(text)
    if named is not None:
        # The line `sep=;` is no row. An empty line stands in its place, so that lines count as in the file.
        text = "\n" + text.partition("\n")[2]
    return assemble(_pieces(text, named or _delimiter(text)), limits)


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line and values of each row that has any."""
    csv.field_size_limit(_PARSED_MAX)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting(delimiter, text))
    line = 1
    try:
        for row in rows:
            if any(value.strip() for value in row):
                yield line, [value.strip() for value in row]
            line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"cannot be read as CSV from line {line} on ({error}); a quote may be left open") from None


def _delimiter(text: str) -> str:
    """The one that cuts most rows into the same number of values, more than one, if that is most rows."""

    def agreement(delimiter: str) -> tuple[int, int]:
        widths = Counter[int]()
        with suppress(InputError):  # the rows before the error count, and reading raises it again
            for _, row in islice(_rows(text, delimiter), _N_SNIFFED):
                widths[len(row)] += 1
        alike = [(n_rows, width) for width, n_rows in widths.items() if width > 1 and 2 * n_rows >= widths.total()]
        return max(alike, default=(0, 0))

    best = max(_DELIMITERS, key=agreement)
    return best if agreement(best) > (0, 0) else _NONE


def _pieces(text: str, delimiter: str) -> Iterator[Piece]:
    names: Sequence[str] | None = None
    for number, (line, values) in enumerate(_rows(text, delimiter)):
        too_long = next((value for value in values if len(value) > _VALUE_MAX), None)
        if too_long is not None:
            raise InputError(
                f"has a value of {len(too_long):,} characters in the row at line {line}, the limit is "
                f"{_VALUE_MAX:,}; a quote may be left open"
            )
        if number == 0 and is_header(values):
            names = values
            yield Piece("; ".join(value for value in values if value), line=line)
            continue
        yield Piece(sentence(names, values), line=line)


def is_header(values: Sequence[str]) -> bool:
    """Names of columns differ, none is empty or a number."""
    if len(set(values)) != len(values) or not all(values):
        return False
    for value in values:
        with suppress(ValueError):
            float(value.replace(",", ""))
            return False
    return True


def sentence(names: Sequence[str] | None, values: Sequence[str]) -> str:
    """A row's values, each behind the name of its column where there are names of several columns."""
    if names is None or len(names) == 1:
        return "; ".join(value for value in values if value)
    extra = len(values) - len(names)
    named = zip([*names, *[""] * max(0, extra)], values, strict=False)
    return "; ".join(f"{name}: {value}" if name else value for name, value in named if value)
