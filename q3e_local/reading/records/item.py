"""`Item`: the text of one record, or the reason why it has none.

Knows fields by name, and what is a text; nothing of the formats that records come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from q3e_local.reading.encodings import is_utf8

_NAMED_AT_MOST = 30

Cause = Literal["blank", "absent", "encoding", "record", "file"]
"""Why an item has no text: it is blank, the record lacks the field, its bytes are in another encoding, the record is
wrong, or the whole file."""


@dataclass(frozen=True)
class Item:
    """One text, or with `problem` and `cause` the reason why there is none. `n_bytes` were read to get it.

    `source` is the file it is of, `line` the line or row it begins in; None where a file is one text. `kept` are
    the record's values of `Wanted.keep`; a field that the record lacks is not in it.
    """

    id: str
    text: str
    n_bytes: int
    problem: str | None = None
    line: int | None = None
    source: str = ""
    cause: Cause | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is wrong but that there is no text."""
        return self.cause in ("blank", "absent")


@dataclass(frozen=True)
class Wanted:
    """The fields of a record that hold its text, its id, and what is kept beside them."""

    text: str
    id: str | None = None
    keep: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """All of them."""
        ids = [] if self.id is None else [self.id]
        return [self.text, *ids, *self.keep]


def failed(source: str, problem: str, cause: Cause, n_bytes: int = 0, line: int | None = None) -> Item:
    """An item without a text: of a line of the file `source`, or of all of it."""
    return Item(_place(source, line), "", n_bytes, problem, line, source, cause)


def item_of(
    source: str, line: int, record: Mapping[str, Any], wanted: Wanted, n_bytes: int, encoding: str = "UTF-8"
) -> Item:
    """The item of a record. Its place, `source:line`, is its id unless a field has one."""
    name = place = _place(source, line)
    kept = {field_name: record[field_name] for field_name in wanted.keep if field_name in record}
    if wanted.id is not None and isinstance(record.get(wanted.id), str | int):
        name = str(record[wanted.id])
    text: Any = record.get(wanted.text)
    wrong = _wrong(record, wanted, text, kept, name, encoding)
    if wrong is None:
        return Item(name, text, n_bytes, None, line, source, None, kept)
    problem, cause = wrong
    if not is_utf8(name):
        name = place
    shown = problem if name == place else f"{problem} ({place})"
    return Item(name, "", n_bytes, shown, line, source, cause, kept)


def _wrong(
    record: Mapping[str, Any], wanted: Wanted, text: Any, kept: Mapping[str, Any], name: str, encoding: str
) -> tuple[str, Cause] | None:
    """Why a record has no text, and the cause; None where it has."""
    if wanted.id is not None:
        if not isinstance(record.get(wanted.id), str | int):
            return f"has no {wanted.id!r} to take as its id", "record"
        if not is_utf8(name):
            return f"field {wanted.id!r} is not {encoding}", "encoding"
    if wanted.text not in record:
        return missing_field(list(record), wanted.text, "field"), "absent"
    if text is None:
        return f"field {wanted.text!r} is null", "blank"
    if not isinstance(text, str):
        return f"field {wanted.text!r} is no text but {type(text).__name__}", "record"
    if not is_utf8(text):
        return f"field {wanted.text!r} is not {encoding}", "encoding"
    for field_name, value in kept.items():
        if isinstance(value, str) and not is_utf8(value):
            return f"field {field_name!r} is not {encoding}", "encoding"
    return None if text.strip() else ("has no text in it", "blank")


def _place(source: str, line: int | None) -> str:
    return source if line is None else f"{source}:{line}"


def missing_column(header: Sequence[str], names: Sequence[str]) -> str | None:
    """Why these are not the names of columns, each of one, if they are not."""
    for name in names:
        if name not in header:
            return missing_field(header, name, "column")
        if header.count(name) > 1:
            return f"has {header.count(name)} columns named {name!r}; give all but one another name"
    return None


def missing_field(names: Sequence[str], name: str, what: str) -> str:
    """The problem of a table without a column, or a record without a field, of this name: `what` says which."""
    known = list(filter(None, names))
    listed = ", ".join(known[:_NAMED_AT_MOST])
    more = f" and {len(known) - _NAMED_AT_MOST:,} more" if len(known) > _NAMED_AT_MOST else ""
    near = get_close_matches(name, known, 1)
    nearest = f"; the nearest is {near[0]!r}" if near and len(known) > 1 else ""
    return f"has no {what} {name!r}; its {what}s are {listed or 'none'}{more}{nearest}"
