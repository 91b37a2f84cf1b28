"""The records of a file as dictionaries: JSON Lines, tables of text, or lines of which each is a question.

Knows formats; nothing of what the fields mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from q3e_local.errors import InputError
from q3e_local.reading.encodings import is_utf8
from q3e_local.reading.records.delimited import BrokenRowError, Table
from q3e_local.reading.records.transcoding import OpenText
from q3e_local.wording.html_table import shortened

_TABLES = {".csv": None, ".tsv": "\t", ".tab": "\t"}  # suffix: the delimiter, where the suffix says it
_NAMED_AT_MOST = 30
_SHOWN = 60  # characters of a value
_ASKED = "the file must be JSON Lines, an object on each line"


@dataclass(frozen=True)
class Record:
    """The fields of a record, and where it stands: `file:line`."""

    fields: dict[str, Any]
    place: str

    def text(self, *names: str) -> str:
        """The text in the first of these fields that there is. Raises InputError for none, or an empty one."""
        name, value = self._first(names)
        if not isinstance(value, str):
            raise InputError(f"{self.place}: {name!r} must be a text, got {shown(value)}")
        if not value.strip():
            raise InputError(f"{self.place}: {name!r} is empty; give it a text, or take the line out")
        return value

    def optional_text(self, name: str) -> str:
        """The text in this field; empty where there is none, or null. Raises InputError for anything else."""
        value = self.fields.get(name)
        if not isinstance(value, str | None):
            raise InputError(f"{self.place}: {name!r} must be a text, got {shown(value)}")
        return value or ""

    def name(self, *names: str) -> str:
        """The text or whole number in the first of these fields that there is, as a text. Raises InputError."""
        name, value = self._first(names)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise InputError(f"{self.place}: {name!r} must be a name or a number, got {shown(value)}")
        return str(value)

    def number(self, *names: str) -> float:
        """The finite number in the first of these fields that there is. Raises InputError."""
        name, value = self._first(names)
        number = math.nan
        with suppress(TypeError, ValueError):
            number = float(value)
        if not math.isfinite(number):
            raise InputError(f"{self.place}: {name!r} must be a number, got {shown(value)}")
        return number

    def _first(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for name in names:
            if name in self.fields:
                return name, self.fields[name]
        known = ", ".join(list(self.fields)[:_NAMED_AT_MOST])
        wanted = " or ".join(map(repr, names))
        raise InputError(f"{self.place} has no {wanted}; its fields are {known or 'none'}")


def shown(value: Any) -> str:
    """A value that a field has, for an error: as it is written, or as much of that as fits a line."""
    return "null" if value is None else shortened(repr(value), _SHOWN)


def read_records(path: Path) -> Iterator[Record]:
    """Each record of a file in order: rows of .csv and .tsv, lines of .txt as the field `query`, else JSON objects.

    Blank lines are no records. Raises InputError for a file that cannot be read, and for a record that is none.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            text = OpenText(file)
            if suffix in _TABLES:
                yield from _rows(path, text, _TABLES[suffix])
            elif suffix == ".txt":
                yield from _lines(path, text)
            else:
                yield from _objects(path, text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _rows(path: Path, text: OpenText, delimiter: str | None) -> Iterator[Record]:
    try:
        table = Table(text, (), delimiter)
        if table.problem is not None:
            raise InputError(f"{path} {table.problem[0]}")
        for row in table.rows():
            if not is_utf8(row.raw):
                raise InputError(f"{path}:{row.line} is not {text.shown}; save the file as UTF-8")
            yield Record(dict(zip(table.header, row.cells, strict=False)), f"{path}:{row.line}")
    except BrokenRowError as error:
        raise InputError(f"{path}:{error.line} {error}") from None


def _lines(path: Path, text: OpenText) -> Iterator[Record]:
    for number, line in _numbered(path, text):
        yield Record({"query": line.strip()}, f"{path}:{number}")


def _objects(path: Path, text: OpenText) -> Iterator[Record]:
    for number, line in _numbered(path, text):
        place = f"{path}:{number}"
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{place} is not JSON: {error}; {_ASKED}") from None
        if not isinstance(fields, dict):
            raise InputError(f"{place} is not a JSON object but {type(fields).__name__}; {_ASKED}")
        yield Record(fields, place)


def _numbered(path: Path, text: OpenText) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    for number, raw in enumerate(text.stream, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}:{number} is not {text.shown}; save the file as UTF-8") from None
        if line.strip():
            yield number, line
