"""Read a request's JSON: the body whatever its Content-Type, and its fields, each held to its type.

Knows JSON and HTTP bodies, nothing of any dialect: what is wrong is raised, the dialect words the answer.
"""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import orjson
from starlette.requests import Request

from q3e_local.errors import Q3EError
from q3e_local.server.dialects.counting import Counts, count

Inputs = list[str | tuple[int, ...]]

_KINDS = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "an object"}
_MAX_INT = 2**31
# A body of so many bytes is parsed on the event loop, in some 10 ms. A larger one is counted and parsed on a thread.
LARGE = 1 << 18
# orjson holds the interpreter's lock until it is done, which takes some 60 ms for so many values.
VALUES_MAX = 1 << 20
# A name, a choice, an instruction. What is longer was meant to be the content.
_CHARACTERS_MAX = 20_000
# One thread: several large bodies at once would need the memory of all, and be parsed one by one all the same.
_PARSER = ThreadPoolExecutor(1, thread_name_prefix="q3e-body")
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

    def unknown(self, known: Container[str]) -> Iterator[str]:
        """Names of the fields that are none of these. They are the client's: log them through `field_name`."""
        return (key for key in self._data if key not in known)

    def text(self, key: str, max_characters: int = _CHARACTERS_MAX) -> str | None:
        """A text such as a name, a choice or an instruction, or None."""
        value = self.content(key)
        if value is not None and len(value) > max_characters:
            raise BadRequestError(
                f"{self.name(key)} has {len(value)} characters, the limit is {max_characters}", self.name(key)
            )
        return value

    def content(self, key: str) -> str | None:
        """A text to embed or to tokenize, of any length, or None."""
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


async def read_fields(
    request: Request, only_first: bool = False, max_items: Mapping[str, int] | None = None
) -> Fields:
    """The body's object. The Content-Type is not looked at: `curl -d` calls everything a form.

    With `only_first`, what follows the first value is not looked at either, as in Ollama. `max_items` says how many
    items the lists of some fields may have, so that a large body with more is refused before it is parsed; those of a
    small one are left to `hold_to_limit`. Numbers are the token ids of one text, and no items.
    """
    body = await request.body()
    if not body or body.isspace():
        raise MissingBodyError("missing request body")
    if len(body) <= LARGE:
        data = _parsed(body, only_first)
    else:
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(_PARSER, _large, body, only_first, max_items or {})
    if not isinstance(data, dict):
        raise BadRequestError(f"the body must be a JSON object, got {shown(data)}")
    return Fields(data)


def _parsed(body: bytes, only_first: bool = False) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        end = count(body).end if only_first else None
        if end is None or end == len(body):
            raise BadRequestError(f"the body is not JSON: {error}") from None
    return _parsed(body[:end])


def _large(body: bytes, only_first: bool, max_items: Mapping[str, int]) -> Any:
    """The value of a large body, if it is not too much. Runs on the parser's thread."""
    counts = count(body, VALUES_MAX)
    _hold_to_limits(counts, max_items)
    with _without_collections():
        return _parsed(body[: counts.end] if only_first else body)


def _hold_to_limits(counts: Counts, max_items: Mapping[str, int]) -> None:
    """Refuse what is too much to parse, naming the field that has most of it."""
    longest, is_too_much = counts.longest, counts.n_values > VALUES_MAX
    at_least = "at least " if is_too_much else ""  # counting stopped there
    if longest is not None and not longest.are_numbers and longest.n > max_items.get(longest.field, longest.n):
        raise _too_many(longest.field, f"{at_least}{longest.n}", max_items[longest.field])
    if is_too_much and longest is not None and longest.n > VALUES_MAX // 2:
        what = "token ids" if longest.are_numbers else "items"
        raise BadRequestError(
            f"{longest.field} has {at_least}{longest.n} {what}; a request may have {VALUES_MAX} values in all",
            longest.field,
        )
    if is_too_much:
        raise BadRequestError(
            f"the body has {at_least}{counts.n_values} values (texts, token ids, lists, names of fields), the limit "
            f"is {VALUES_MAX}; send them in several requests"
        )


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the garbage collector from walking again and again over what a parser builds, which is no garbage.

    Only the parser's one thread does this, so no two of them cross.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def token_ids(value: list[Any], field: str) -> tuple[int, ...]:
    """A list of ids as one input."""
    # A million ids are checked in 15 ms at once, and in 80 ms one by one, which finds the wrong one.
    if set(map(type, value)) == {int} and min(value) >= 0 and max(value) < _MAX_INT:
        return tuple(value)
    for token_id in value:
        if type(token_id) is not int:
            raise BadRequestError(
                f"{field} must have whole numbers as token ids, got {shown(token_id)} among them", field
            )
        if not 0 <= token_id < _MAX_INT:
            raise BadRequestError(f"{field} has token id {token_id}, which no vocabulary has", field)
    return tuple(value)


def read_inputs(value: Any, field: str, max_items: int) -> Inputs:
    """One text, one list of ids, or a list of either kind: OpenAI's `input` and TEI's `inputs`. Never empty."""
    if isinstance(value, str):
        inputs: Inputs = [value]
    elif not isinstance(value, list):
        raise BadRequestError(f"{field} must be a text, a list of texts or token ids, got {shown(value)}", field)
    elif value and type(value[0]) is int:
        inputs = [token_ids(value, field)]
    else:
        hold_to_limit(len(value), max_items, field)
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
        raise _too_many(field, str(n_items), limit)


def field_name(name: str) -> str:
    """A client's name for a field as a log may have it: what looks like none may be a text, and is only counted."""
    return name if _FIELD_NAME.fullmatch(name) else f"one of {len(name)} characters"


def shown(value: Any) -> str:
    """A value as an error shows it: its kind where it would be long."""
    if isinstance(value, (list, dict)):
        return f"{_KINDS[type(value)]} of {len(value)}"
    text = repr(value[:60]) if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _too_many(field: str, n_items: str, limit: int) -> BadRequestError:
    return BadRequestError(f"{field} has {n_items} items, the limit of this server is {limit} (--max-items)", field)


def _one_input(value: Any, where: str, field: str) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return token_ids(value, field)
    raise BadRequestError(f"{where} must be a text or a list of token ids, got {shown(value)}", field)
