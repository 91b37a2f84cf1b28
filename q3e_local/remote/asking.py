"""What embedding and ranking on a server have in common: a result for each text, and errors as the library has them.

Knows how this server words an error. Leaves to its callers what they ask for, and what a result is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from q3e_local.embedding.preparing import check_text
from q3e_local.errors import (
    InvalidTextError,
    ModelNotHereError,
    OptionError,
    Q3EError,
    TextError,
    UnknownModelError,
    WrongKindError,
)
from q3e_local.remote.connection import ServerRefusedError

Result = TypeVar("Result")


def one_each(
    texts: list[str], first_index: int, ask: Callable[[list[str]], list[Result]]
) -> list[Result | TextError]:
    """One result for each text; errors count texts from `first_index`.

    `ask` answers a result for each text of a request, or raises the TextError of the first that fails: then the
    others are sent again without it.
    """
    results: dict[int, Result | TextError] = {}
    for place, text in enumerate(texts):
        try:  # JSON could not carry such a text
            check_text(text, first_index + place)
        except InvalidTextError as error:
            results[place] = error
    while places := [place for place in range(len(texts)) if place not in results]:
        try:
            answered = ask([texts[place] for place in places])
        except TextError as error:
            place = places[error.index]
            results[place] = TextError(error.message, first_index + place)
        else:
            results.update(zip(places, answered, strict=True))
    return [results[place] for place in range(len(texts))]


def as_local(error: ServerRefusedError, n_texts: int) -> Q3EError:
    """The error that the library would raise in this process, so that exit codes are the same."""
    said, index = error.fields.get("error"), error.fields.get("index")
    text = said if isinstance(said, str) else str(error)
    if type(index) is int and 0 <= index < n_texts:
        return TextError(text, index)
    if error.status == 404:
        kind = ModelNotHereError if error.fields.get("is_known") else UnknownModelError
        return kind(f"the server: {text}")
    if error.fields.get("is_of_another_kind"):
        return WrongKindError(text)
    return OptionError(text, str(error.fields.get("option", ""))) if error.status == 400 else error
