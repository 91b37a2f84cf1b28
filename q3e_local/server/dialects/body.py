"""Read a request's JSON object, whatever its Content-Type, and token ids in it.

A large body is counted before it is parsed, and parsed beside the event loop. Knows JSON and HTTP bodies, nothing of
any dialect: the dialect words the answer to an error.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import orjson
from starlette.requests import Request

from q3e_local.server.dialects.counting import Counts, count
from q3e_local.server.dialects.fields import Body, Fields, shown
from q3e_local.server.errors import BadRequestError, MissingBodyError

Inputs = list[str | tuple[int, ...]]

_MAX_INT = 2**31
# A body of so many bytes is parsed on the event loop, in about 10 ms. A larger body goes to the parser's thread.
LARGE = 1 << 18
# orjson holds the interpreter's lock until it is done, which takes about 60 ms for so many values.
VALUES_MAX = 1 << 20
# One thread: several large bodies at once would take the memory of all of them, and the interpreter's lock would let
# only one be parsed at a time.
_PARSER = ThreadPoolExecutor(1, thread_name_prefix="q3e-body")


async def read_fields(
    request: Request, body: Body, max_items: Mapping[str, int], *, only_first: bool = False
) -> Fields:
    """The fields of the request's object. The Content-Type is not looked at: `curl -d` calls everything a form.

    With `only_first`, bytes behind the first JSON value are ignored, as in Ollama. `max_items` says how many items
    the lists of these fields may have, so that a large body with more is refused before it is parsed; for a small
    body the route calls `hold_to_limit`. Numbers are the token ids of one text, and no items.

    Raises MissingBodyError, and BadRequestError for a body that is no JSON object or too large.
    """
    text = await request.body()
    if not text or text.isspace():
        raise MissingBodyError("missing request body")
    if len(text) <= LARGE:
        data = _parsed(text, only_first)
    else:
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(_PARSER, _large, text, only_first, max_items)
    if not isinstance(data, dict):
        raise BadRequestError(f"the body must be a JSON object, got {shown(data)}")
    return Fields(data, body)


def _parsed(text: bytes, only_first: bool = False) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        end = count(text).end if only_first else None
        if end is None or end == len(text):
            raise BadRequestError(f"the body is not JSON: {error}") from None
    return _parsed(text[:end])


def _large(text: bytes, only_first: bool, max_items: Mapping[str, int]) -> Any:
    """Count a large body, then parse it. Runs on the parser's thread."""
    counts = count(text, VALUES_MAX)
    _hold_to_limits(counts, max_items)
    with _without_collections():
        return _parsed(text[: counts.end] if only_first else text)


def _hold_to_limits(counts: Counts, max_items: Mapping[str, int]) -> None:
    """Raise BadRequestError for what is too much to parse, naming the field that has most of it."""
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
    """Keep the garbage collector from walking again and again over the values that the parser makes.

    Only the parser's thread switches the collector off and on, so no two switches cross.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def token_ids(value: list[Any], field: str) -> tuple[int, ...]:
    """A list of token ids as an input of its ids. Raises BadRequestError for anything else in the list."""
    # The check of the whole list takes 15 ms for a million ids; the loop takes 80 ms, and finds the wrong id.
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


def hold_to_limit(n_items: int, limit: int, field: str) -> None:
    """Raise BadRequestError for more items than one request may have."""
    if n_items > limit:
        raise _too_many(field, str(n_items), limit)


def _too_many(field: str, n_items: str, limit: int) -> BadRequestError:
    return BadRequestError(f"{field} has {n_items} items, the limit of this server is {limit} (--max-items)", field)
