"""Find out which character stands between the values of a table, and whether quotes enclose values.

Knows the beginning of a table as text, and the names of columns that must be there; nothing of files.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Literal

DELIMITERS = ",;\t|"  # of those that fit alike the first is taken
_N_RECORDS = 100  # that show which delimiter it is
_ALIKE_MIN = 0.5  # share of records with as many values as the header, for several values to be meant
_OPENS = re.compile(r'(?:^|\t)"', re.MULTILINE)
# Excel writes and understands such a first line, where a comma is not the delimiter of the country.
_SEP_LINE = re.compile(r'\ufeff?"?sep=([^\r\n])"?\r?(?:\n|\Z)', re.IGNORECASE)


def sep_line(head: str) -> str | None:
    """The delimiter that a first line such as `sep=;` names."""
    found = _SEP_LINE.match(head)
    return None if found is None else found[1]


def choose(head: str, is_whole: bool, columns: Sequence[str]) -> str:
    """The delimiter under which the header has these columns, and most records as many values as the header.

    Of a `head` that is not the whole table the last record may be cut, and is not looked at. Where no delimiter
    gives the columns, the one that cuts most records evenly into several values: its columns are to be named.
    """

    def fit(delimiter: str) -> tuple[bool, bool, float, int]:
        rows = _rows(head, delimiter, is_whole)
        header, others = (rows[0], rows[1:]) if rows else ([], [])
        alike = sum(len(row) == len(header) for row in others) / len(others) if others else 1.0
        has_columns = all(column in header for column in columns)
        return has_columns, len(header) > 1 and alike >= _ALIKE_MIN, alike, len(header)

    return max(DELIMITERS, key=fit)


def quoting(delimiter: str, text: str, is_whole: bool = True) -> Literal[0, 3]:
    """What csv has to make of quotes in a table, or in the beginning of one that is not whole."""
    return csv.QUOTE_MINIMAL if delimiter != "\t" or _is_quoted(text, is_whole) else csv.QUOTE_NONE


def _is_quoted(text: str, is_whole: bool) -> bool:
    """Whether quotes enclose values between tabs; in many such files they are characters like all others.

    Then none is closed inside a value or left open, and no value goes over tabs and lines both.
    """
    if _OPENS.search(text) is None:
        return True
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter="\t", strict=True)
    try:
        return not any("\t" in value and "\n" in value for row in rows for value in row)
    except csv.Error:
        # A quote that is open where a part of a file ends may be closed behind it.
        return not is_whole and lines.tell() == len(text)


def _rows(head: str, delimiter: str, is_whole: bool) -> list[list[str]]:
    """The first records that are not blank, as far as they can be read, without one that may be cut."""
    rows: list[list[str]] = []
    try:
        for row in filter(None, csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, strict=True)):
            if len(rows) == _N_RECORDS:
                return rows
            rows.append(row)
    except csv.Error:
        return rows
    return rows if is_whole else rows[:-1]
