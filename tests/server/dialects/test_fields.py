"""One declaration of a body is what is read and what /openapi.json shows."""

from __future__ import annotations

from typing import Any

import pytest

from q3e_local.server.dialects.fields import KEEP_ALIVE, NEVER, Body, Fields
from q3e_local.server.errors import BadRequestError

BODY = Body(
    {
        "model": {"type": "string", "maxLength": 5},
        "k": {"type": "integer", "minimum": 1, "maximum": 9},
        "dim": {"type": "integer", "minimum": 32},
        "mode": {"type": "string", "enum": ["words", "Both"], "default": "words"},
        "kind": {"type": "string", "enum": ["query"]},
        "cut": {"type": "boolean", "default": True},
        "exact": {"type": "boolean"},
        "options": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 2}}},
    },
    ("model",),
    unlisted={"name": {"type": "string"}},
)


def read(**data: Any) -> Fields:
    return Fields(data, BODY)


def test_defaults_are_those_of_the_declaration() -> None:
    fields = read()
    assert (fields.flag("cut"), fields.flag("exact")) == (True, False)
    assert (fields.choice("mode"), fields.choice("kind"), fields.integer("k")) == ("words", None, None)
    assert (read(cut=False).flag("cut"), read(mode=None).choice("mode")) == (False, "words")


def test_a_choice_is_taken_in_any_case_and_answered_as_declared() -> None:
    assert read(mode="both").choice("mode") == "Both"
    assert read(kind="QUERY").choice("kind") == "query"


@pytest.mark.parametrize(
    ("data", "method", "key", "said"),
    [
        ({"model": 1}, "text", "model", "model must be a text, got 1"),
        ({"model": "a" * 6}, "text", "model", "model has 6 characters, the limit is 5"),
        ({"k": 0}, "integer", "k", "k must be between 1 and 9, got 0"),
        ({"k": 10}, "integer", "k", "k must be between 1 and 9, got 10"),
        ({"k": True}, "integer", "k", "k must be a whole number, got true"),
        ({"k": 2**31}, "integer", "k", "k is 2147483648, which is out of range"),
        ({"dim": 31}, "integer", "dim", "dim must be 32 or more, got 31"),
        ({"cut": "yes"}, "flag", "cut", "cut must be true or false, got 'yes'"),
        ({"options": [1]}, "object", "options", "options must be an object, got a list of 1"),
        ({"mode": "x"}, "choice", "mode", "Invalid value for 'mode' = 'x'. Supported values: ['words', 'Both']."),
    ],
)
def test_what_the_declaration_does_not_allow_is_named(data: dict[str, Any], method: str, key: str, said: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        getattr(read(**data), method)(key)
    assert (str(caught.value), caught.value.field) == (said, key)


def test_a_dialects_sentence_takes_the_place_of_the_usual_one() -> None:
    with pytest.raises(BadRequestError, match=r"^too few$") as caught:
        read(options={"n": 1}).object("options").integer("n", "too few")
    assert caught.value.field == "options.n"
    with pytest.raises(BadRequestError, match=r"^only queries$"):
        read(kind="document").choice("kind", "only queries")


def test_a_field_without_declaration_cannot_be_read() -> None:
    for method in ("text", "flag", "integer", "items", "raw", "has", "choice"):
        with pytest.raises(KeyError):
            getattr(read(other=1), method)("other")


def test_an_unlisted_field_is_read_and_not_shown() -> None:
    assert read(name="a").text("name") == "a"
    assert BODY.schema() == {"type": "object", "properties": dict(BODY.fields), "required": ["model"]}
    assert "name" not in BODY.schema()["properties"]


def keep_alive_s(value: object) -> float | None:
    return Fields({"keep_alive": value}, Body({"keep_alive": KEEP_ALIVE})).keep_alive_s()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [  # ollama api/types_test.go: TestKeepAliveParsingFromJSON
        (None, None), (42, 42), (42.5, 42.5), ("42m", 2520), (-1, NEVER), (-3.14, NEVER), ("-1m", NEVER),
        (0, 0), ("0", 0), ("0s", 0), ("-0", 0), ("1h30m", 5400), ("1.5h", 5400), ("100ms", 0.1), ("1us", 1e-6),
        (1e300, NEVER),
    ],
)  # fmt: skip
def test_keep_alive(value: object, seconds: float | None) -> None:
    assert keep_alive_s(value) == (pytest.approx(seconds) if seconds else seconds)


@pytest.mark.parametrize("value", ["", "10", "1d", "???", "m", "1m ", True, [], {}, "9" * 30 + "h"])
def test_keep_alive_that_is_none(value: object) -> None:
    with pytest.raises(BadRequestError, match="keep_alive must be seconds or a duration"):
        keep_alive_s(value)
