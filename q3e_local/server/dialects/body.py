"""Read a request's JSON: the body whatever its Content-Type, and its fields, each held to its type.

Knows JSON and HTTP bodies, nothing of any dialect: what is wrong is raised, the dialect words the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Any

import orjson
from starlette.requests import Request

from q3e_local.errors import Q3EError

Inputs = list[str | tuple[int, ...]]

_KINDS = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "an object"}
_MAX_INT = 2**31
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")


class BadRequestError(Q3EError):
    """The request is not one this route can answer; `field` names the part, where there is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class MissingBodyError(BadRequestError):
    """A body was needed and none came."""


class EmptyInputError(BadRequestError):
    """There is nothing to embed."""


class Fields:
    """A JSON object's fields. One that is null counts as left out."""

    def __init__(self, data: dict[str, Any], path: str = "") -> None:
        self._data = data
        self._path = path

    def name(self, key: str) -> str:
        """How an error names the field: with the objects it stands in."""
        return f"{self._path}{key}"

    def raw(self, key: str) -> Any:
        """The value as it came."""
        return self._data.get(key)

    def has(self, key: str) -> bool:
        """Whether there is a value."""
        return self._data.get(key) is not None

    def unknown(self, known: Container[str]) -> list[str]:
        """Names of the fields that are none of these. They are the client's: log them through `field_name`."""
        return [key for key in self._data if key not in known]

    def text(self, key: str) -> str | None:
        """A text, or None."""
        value: str | None = self._typed(key, str)
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A yes or no."""
        value: bool | None = self._typed(key, bool)
        return default if value is None else value

    def integer(self, key: str) -> int | None:
        """A whole number, or None. `8.0` is not one, nor is anything 32 bits do not hold."""
        value: int | None = self._typed(key, int)
        if value is not None and not -_MAX_INT <= value < _MAX_INT:
            raise BadRequestError(f"{self.name(key)} is {value}, which is out of range", self.name(key))
        return value

    def items(self, key: str) -> list[Any] | None:
        """A list, or None."""
        value: list[Any] | None = self._typed(key, list)
        return value

    def object(self, key: str) -> Fields:
        """The fields of an object; none where it is left out."""
        value: dict[str, Any] | None = self._typed(key, dict)
        return Fields(value or {}, f"{self.name(key)}.")

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        """One of these texts, in any case."""
        value = (self.text(key) or default).lower()
        if value not in choices:
            known = ", ".join(f"'{one}'" for one in choices)
            raise BadRequestError(
                f"Invalid value for '{self.name(key)}' = {shown(value)}. Supported values: [{known}].", self.name(key)
            )
        return value

    def _typed(self, key: str, kind: type) -> Any:
        value = self._data.get(key)
        if value is None or type(value) is kind:
            return value
        raise BadRequestError(f"{self.name(key)} must be {_KINDS[kind]}, got {shown(value)}", self.name(key))


async def read_fields(request: Request, only_first: bool = False) -> Fields:
    """The body's object. The Content-Type is not looked at: `curl -d` calls everything a form.

    With `only_first`, what follows the first value is not looked at either, as in Ollama.
    """
    body = await request.body()
    if not body.strip():
        raise MissingBodyError("missing request body")
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        first = _first_value(body) if only_first else None
        if first is None:
            raise BadRequestError(f"the body is not JSON: {error}") from None
        data = first
    if not isinstance(data, dict):
        raise BadRequestError(f"the body must be a JSON object, got {shown(data)}")
    return Fields(data)


def _first_value(body: bytes) -> Any:
    """The JSON value that a body begins with, or None."""
    try:
        text = body.decode("utf-8").lstrip()
        _, end = json.JSONDecoder().raw_decode(text)
        return orjson.loads(text[:end])  # which is stricter
    except (ValueError, RecursionError):
        return None


def token_ids(value: list[Any], field: str) -> tuple[int, ...]:
    """A list of ids as one input."""
    for token_id in value:
        if type(token_id) is not int:
            raise BadRequestError(
                f"{field} must have whole numbers as token ids, got {shown(token_id)} among them", field
            )
        if not 0 <= token_id < _MAX_INT:
            raise BadRequestError(f"{field} has token id {token_id}, which no vocabulary has", field)
    return tuple(value)


def read_inputs(value: Any, field: str) -> Inputs:
    """One text, one list of ids, or a list of either kind: OpenAI's `input` and TEI's `inputs`. Never empty."""
    if isinstance(value, str):
        inputs: Inputs = [value]
    elif not isinstance(value, list):
        raise BadRequestError(f"{field} must be a text, a list of texts or token ids, got {shown(value)}", field)
    elif value and type(value[0]) is int:
        inputs = [token_ids(value, field)]
    else:
        inputs = [_one_input(one, f"{field}[{i}]", field) for i, one in enumerate(value)]
    if not inputs:
        raise EmptyInputError(f"`{field}` cannot be empty", field)
    for i, one in enumerate(inputs):
        if not one:
            where = f"`{field}`" if len(inputs) == 1 else f"`{field}[{i}]`"
            raise EmptyInputError(f"{where} cannot be empty", field)
    return inputs


def hold_to_limit(n_items: int, limit: int, field: str) -> None:
    """Refuse more items than one request may have."""
    if n_items > limit:
        raise BadRequestError(f"{field} has {n_items} items, the limit of this server is {limit}", field)


def field_name(name: str) -> str:
    """A client's name for a field as a log may have it: what looks like none may be a text, and is only counted."""
    return name if _FIELD_NAME.fullmatch(name) else f"one of {len(name)} characters"


def shown(value: Any) -> str:
    """A value as an error shows it: its kind where it would be long."""
    if isinstance(value, (list, dict)):
        return f"{_KINDS[type(value)]} of {len(value)}"
    text = repr(value) if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_input(value: Any, where: str, field: str) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return token_ids(value, field)
    raise BadRequestError(f"{where} must be a text or a list of token ids, got {shown(value)}", field)
