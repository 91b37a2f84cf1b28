"""What is put into a store: `Row`, and `Shape`, which says what all rows of a collection have in common.

The shape is kept with the collection as a line of JSON, the mark, by which a later run knows what the vectors are.
Knows no store.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from q3e_local.errors import OutputError, SpaceMismatchError

FieldType = Literal["text", "integer"]
Value = str | int | None

VECTOR, SOURCE, DIGEST = "embedding", "q3e_source", "q3e_digest"
# Names of what every row has; a field of a shape has another name.
OWN_NAMES = frozenset({"id", "uuid", "row", "text", VECTOR, SOURCE, DIGEST, "_id", "model", "space"})

_VERSION = 1
_IDS = uuid.UUID("8b2f3c1e-6d0a-5f43-9a57-2c9c1e5b7d10")  # the namespace of ours: another one would make other ids


@dataclass(frozen=True)
class Row:
    """A text with its id and the values of its fields, all that the shape names; its vector goes beside it.

    `digest` says in a few characters what the row is of: while a store has the same digest under the id, nothing is
    sent.
    """

    id: str
    text: str
    fields: Mapping[str, Value]
    digest: str


@dataclass(frozen=True)
class Shape:
    """What made the vectors of a collection, how long they are, and which fields its rows have.

    `space` is empty for vectors of the caller, which no known model made.
    """

    model: str
    space: str
    dim: int
    fields: Mapping[str, FieldType] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The shape as a line of JSON, to be kept with the collection."""
        facts = {
            "q3e_local": _VERSION, "model": self.model, "space": self.space, "dim": self.dim,
            "fields": dict(self.fields),
        }  # fmt: skip
        return orjson.dumps(facts).decode("utf-8")

    def __str__(self) -> str:
        return f"{self.dim}-dim vectors of {self.model if self.space else 'your own'}"

    def beside(self, other: Shape) -> str:
        """As `str`, with the space where model and dim do not tell the two apart."""
        return f"{self} (space {self.space})" if str(self) == str(other) else str(self)


def check(mark: str, shape: Shape, name: str) -> None:
    """Raise unless a collection with this mark may have rows of this shape; `name` is the collection in messages.

    Raises SpaceMismatchError for vectors of another space, OutputError for other fields and for a collection that is
    not ours.
    """
    there = _read(mark)
    if there is None:
        raise OutputError(
            f"{name} was not made by q3e-local, and does not say what its vectors are; name another collection with "
            "#NAME at the end of the address"
        )
    if (there.space, there.dim) != (shape.space, shape.dim):
        raise SpaceMismatchError(
            f"{name} holds {there.beside(shape)}, not {shape.beside(there)}; name another collection with #NAME at "
            "the end of the address"
        )
    if dict(there.fields) != dict(shape.fields):
        raise OutputError(
            f"{name} has the fields {_listed(there.fields)}, these rows have {_listed(shape.fields)}; name another "
            "collection with #NAME at the end of the address"
        )


def digest_of(*parts: str | bytes) -> str:
    """16 hex digits of the SHA-256 of these parts, each of them with its length before it."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8") if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()[:16]


def uuid_of(name: str) -> str:
    """The same UUID for the same id, for stores whose ids are UUIDs: version 5 of RFC 9562."""
    return str(uuid.uuid5(_IDS, name))


def _read(mark: str) -> Shape | None:
    """The shape in a mark; None where it is no mark of ours."""
    try:
        facts: dict[str, Any] = orjson.loads(mark)
        if facts["q3e_local"] != _VERSION:
            return None
        return Shape(str(facts["model"]), str(facts["space"]), int(facts["dim"]), dict(facts["fields"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
