"""The fields of a route's body, declared once: /openapi.json shows a `Body`, and `Fields` reads by it.

Knows JSON values and JSON Schema, nothing of bytes, of HTTP or of any dialect: the dialect words the answer to an
error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import orjson

from q3e_local.server.dialects.notices import LINES_MAX, Notices
from q3e_local.server.errors import BadRequestError
from q3e_local.server.settings import duration_s

Schema = Mapping[str, Any]
Value = TypeVar("Value")

NEVER = -1.0  # as ServiceRequest.keep_alive_s has it: never unload
# A Go duration is 64 bits of nanoseconds, about 292 years. A longer time means for ever.
_KEEP_ALIVE_MAX_S = 2**63 / 1e9

_KINDS = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "an object"}
_MAX_INT = 2**31
# Of a name, a choice or an instruction. A longer value was meant to be the content.
_CHARACTERS_MAX = 20_000
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
KEEP_ALIVE: Schema = {
    "oneOf": [{"type": "string"}, {"type": "number"}],
    "description": "Seconds, or a duration such as `10m`; 0 unloads afterwards, below 0 never",
}


@dataclass(frozen=True)
class Body:
    """The fields of a route's JSON object. `unlisted` ones are read too, and /openapi.json does not show them."""

    fields: Mapping[str, Schema]
    required: tuple[str, ...] = ()
    example: Any = None
    unlisted: Mapping[str, Schema] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """The object as JSON Schema has it."""
        required = {"required": list(self.required)} if self.required else {}
        return {"type": "object", "properties": self.fields, **required}


class Fields:
    """A JSON object's fields, each held to its declaration. A field that is null counts as left out.

    Every method raises BadRequestError for a value of another type, and KeyError for a field without declaration: a
    mistake of the caller.
    """

    def __init__(self, data: Mapping[str, Any], body: Body, path: str = "") -> None:
        self._data, self._body, self._path = data, body, path

    def read_as(self, body: Body) -> Fields:
        """The same object under another declaration."""
        return Fields(self._data, body, self._path)

    def name(self, key: str) -> str:
        """The field's name in an error: with the names of the objects around it."""
        return f"{self._path}{key}"

    def raw(self, key: str) -> Any:
        """The value as it came."""
        self._schema(key)
        return self._data.get(key)

    def has(self, key: str) -> bool:
        return self.raw(key) is not None

    def text(self, key: str) -> str | None:
        """A text such as a name, a choice or an instruction, or None."""
        value, limit = self.content(key), self._schema(key).get("maxLength", _CHARACTERS_MAX)
        if value is not None and len(value) > limit:
            raise self._wrong(key, f"{self.name(key)} has {len(value)} characters, the limit is {limit}")
        return value

    def content(self, key: str) -> str | None:
        """A text to embed or to tokenize, of any length, or None."""
        return self._typed(key, str)

    def flag(self, key: str) -> bool:
        """Whether the field is true; where it is left out, the declaration's default, or False."""
        value = self._typed(key, bool)
        return bool(self._schema(key).get("default", False)) if value is None else value

    def integer(self, key: str, wrong: str | None = None) -> int | None:
        """A whole number of 32 bits within the declaration's limits, or None. `8.0` is no whole number.

        `wrong` takes the place of the usual sentence for a number outside the limits.
        """
        value = self._typed(key, int)
        if value is None:
            return None
        if not -_MAX_INT <= value < _MAX_INT:
            raise self._wrong(key, f"{self.name(key)} is {value}, which is out of range")
        low, high = self._schema(key).get("minimum", value), self._schema(key).get("maximum")
        if value < low or (high is not None and value > high):
            limits = f"{low} or more" if high is None else f"between {low} and {high}"
            raise self._wrong(key, wrong or f"{self.name(key)} must be {limits}, got {value}")
        return value

    def items(self, key: str) -> list[Any] | None:
        return self._typed(key, list)

    def object(self, key: str) -> Fields:
        """The fields of an object; none where it is left out."""
        return Fields(self._typed(key, dict) or {}, Body(self._schema(key)["properties"]), f"{self.name(key)}.")

    def choice(self, key: str, wrong: str | None = None) -> str | None:
        """One of the declaration's texts, in any case; its default, or None, where it is left out or empty.

        `wrong` takes the place of the usual sentence for a text that is not among them.
        """
        value, schema = self.text(key), self._schema(key)
        if not value:
            default: str | None = schema.get("default")
            return default
        for choice in schema["enum"]:
            if choice.lower() == value.lower():
                return str(choice)
        known = ", ".join(f"'{choice}'" for choice in schema["enum"])
        name = self.name(key)
        raise self._wrong(key, wrong or f"Invalid value for '{name}' = {shown(value)}. Supported values: [{known}].")

    def keep_alive_s(self, key: str = "keep_alive") -> float | None:
        """A number of seconds or a duration such as `1h30m`, in seconds, as Ollama's clients write it.

        None: keep what was asked for before; 0: unload afterwards; NEVER: do not unload.
        """
        value, seconds = self.raw(key), None
        if value is None:
            return None
        if isinstance(value, str):
            seconds = duration_s(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = float(value)
        if seconds is None:
            raise self._wrong(key, f"{self.name(key)} must be seconds or a duration such as 10m, 1h30m, 0 or -1s")
        return seconds if 0 <= seconds <= _KEEP_ALIVE_MAX_S else NEVER

    def log_unknown(self, path: str, notices: Notices) -> None:
        """Log once each field that the route at `path` does not have: a misspelt name is found in the log."""
        declared = self._body.fields.keys() | self._body.unlisted.keys()
        # A client may send a million unknown fields, and the log takes so many lines at most.
        unknown = islice((name for name in self._data if name not in declared), LINES_MAX)
        for name in map(field_name, unknown):
            has = ", ".join(self._body.fields)
            notices.once(f"{path} has no field {name}, and ignores it; it has {has}", logging.WARNING)

    def _schema(self, key: str) -> Schema:
        return self._body.fields[key] if key in self._body.fields else self._body.unlisted[key]

    def _typed(self, key: str, kind: type[Value]) -> Value | None:
        value = self.raw(key)
        if value is None or type(value) is kind:
            return value
        raise self._wrong(key, f"{self.name(key)} must be {_KINDS[kind]}, got {shown(value)}")

    def _wrong(self, key: str, message: str) -> BadRequestError:
        return BadRequestError(message, self.name(key))


def field_name(name: str) -> str:
    """A client's name for a field as the log may have it: a name that may be a text is only counted."""
    return name if _FIELD_NAME.fullmatch(name) else f"one of {len(name)} characters"


def shown(value: Any) -> str:
    """A value as an error shows it: only its kind and length where it is long."""
    if isinstance(value, (list, dict)):
        return f"{_KINDS[type(value)]} of {len(value)}"
    text = repr(value[:60]) if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
