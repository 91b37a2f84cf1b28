"""`Record`: one embedded text as it goes out, and `About`: what holds for all records of an output.

Knows the fields that every format writes, and the values kept beside them; nothing of bytes or files.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from q3e_local.errors import OptionError
from q3e_local.vectors import Dtype, Vectors, to_dtype
from q3e_local.wording.spelling import either

# The fields of all formats: a kept field of such a name would be two fields in one.
FIELDS = frozenset(
    "index id tokens truncated space text_sha256 dtype embedding row blank object".split()  # noqa: SIM905
)
_NUMBER = re.compile(r"e\d+")  # the columns of numbers in CSV
_KEEPERS = ("jsonl", "json", "csv", "npy", "parquet")
_ZEROS = ("jsonl", "csv", "npy", "parquet")


@dataclass(frozen=True)
class Record:
    """One embedded text as it goes out. `vector` float32 (dim,); the format turns it into the dtype of --dtype.

    `blank`: there was no text, and the vector is zeros. `kept` are values of the fields that go out with it.
    """

    index: int
    id: str
    text: str
    tokens: int
    truncated: bool
    vector: Vectors
    kept: Mapping[str, Any] = field(default_factory=dict)
    blank: bool = False


@dataclass(frozen=True)
class About:
    """What holds for every record of an output.

    `keep` are the fields that go out with each, and the type each has in Parquet where it is not text. With
    `has_zeros` blank texts have rows of zeros.
    """

    model: str
    space: str
    dim: int
    dtype: Dtype
    keep: Mapping[str, Any] = field(default_factory=dict)
    has_zeros: bool = False

    def encoded(self, record: Record) -> NDArray[Any]:
        row: NDArray[Any] = to_dtype(record.vector[np.newaxis], self.dtype)[0]
        return row

    def empty(self) -> NDArray[Any]:
        """No rows, of the dtype and width that `encoded` gives."""
        return to_dtype(np.zeros((1, self.dim), np.float32), self.dtype)[:0]

    def kept(self, record: Record) -> dict[str, Any]:
        """The kept fields as JSON has them; null where a record lacks one."""
        return {name: as_json(record.kept.get(name)) for name in self.keep}


def row_fields(record: Record, about: About) -> dict[str, Any]:
    """What JSON Lines says of a record beside the numbers."""
    fields: dict[str, Any] = {
        "index": record.index,
        "id": record.id,
        "tokens": record.tokens,
        "truncated": record.truncated,
        "space": about.space,
        "text_sha256": text_digest(record.text),
    }
    if about.dtype != "float32":
        fields["dtype"] = about.dtype
    if record.blank:
        fields["blank"] = True
    return fields | about.kept(record)


def text_digest(text: str) -> str:
    """16 digits of a text's SHA-256, by which a run that continues sees that a text was changed."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def cell(value: Any) -> str:
    """A kept value as a cell of CSV: text as it is, everything else as JSON writes it, nothing for null."""
    found = as_json(value)
    if found is None:
        return ""
    return found if isinstance(found, str) else orjson.dumps(found).decode("utf-8")


def kept_names(options: Sequence[str], fields: Container[str] = FIELDS) -> tuple[str, ...]:
    """The names in --keep: parted by commas, in double quotes where a name has a comma.

    Raises OptionError, also for a name that is one of the output's own `fields`.

    A full-width comma parts names too, because it is what a Chinese keyboard gives, unless double quotes are used.
    """
    plain = [each if '"' in each else each.replace("\uff0c", ",") for each in options]
    names = [name for each in plain for row in csv.reader([each]) for name in row]
    for place, name in enumerate(names):
        if not name:
            raise OptionError(f"--keep has an empty name in {', '.join(options)!r}")
        if name in names[:place]:
            raise OptionError(f"--keep names {name!r} twice")
        if name in fields or _NUMBER.fullmatch(name):
            way = "; --id id takes the ids from it" if name == "id" else "; give the column another name"
            raise OptionError(f"--keep {name}: the output has a field {name!r} already{way}")
    return tuple(names)


def check_form(form: str, keep: Sequence[str], has_zeros: bool, dtype: Dtype) -> None:
    """Raise OptionError for what a format has no place for."""
    if keep and form not in _KEEPERS:
        raise OptionError(f"{form} has no place for --keep; give --format {either(_KEEPERS)}")
    if has_zeros and form not in _ZEROS:
        raise OptionError(f"{form} cannot say that a row is blank; for --blank zeros give --format {either(_ZEROS)}")
    if form == "table" and dtype != "float32":
        raise OptionError(f"a table shows float32 numbers; give another --format for --dtype {dtype}")


def as_json(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601, bytes in base64, numbers that JSON lacks as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.tzinfo is None and value.time() == time() else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {str(name): as_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return str(value)
