"""What llama-server takes as the texts to embed: texts, token ids, lists of both, and objects that hold a text.

Knows llama-server's JSON, and a service that turns a text into token ids. The shapes are those of llama.cpp
tools/server/server-common.cpp (tokenize_input_prompts, tokenize_oai_content_array).
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from q3e_local.errors import TextError
from q3e_local.server.dialects.body import Inputs, hold_to_limit, token_ids
from q3e_local.server.dialects.fields import shown
from q3e_local.server.errors import BadRequestError
from q3e_local.server.service import Service

Mixed = list[str | tuple[int, ...]]
"""Texts and runs of token ids that make one sequence, in order."""

_SHAPES = "a text, a list of token ids, a list of token ids and texts, or an object with prompt_string or content"


def read_mixed(value: Any, field: str, max_items: int) -> list[str | tuple[int, ...] | Mixed]:
    """The inputs in a value: several if the value is a list without a number in it, else a single input. Never empty.

    `max_items` is the limit of inputs, and of texts and runs of ids in mixed inputs. Raises BadRequestError.
    """
    if isinstance(value, list) and not any(type(part) is int for part in value[: max_items + 1]):
        hold_to_limit(len(value), max_items, field)
        if not value:
            raise BadRequestError(f'"{field}" must not be empty', field)
        inputs = [_input(each, f"{field}[{place}]", field) for place, each in enumerate(value)]
    else:
        inputs = [_input(value, field, field)]
    hold_to_limit(sum(len(each) for each in inputs if isinstance(each, list)), max_items, field)
    return inputs


async def as_inputs(service: Service, model: str, inputs: list[str | tuple[int, ...] | Mixed]) -> Inputs:
    """The inputs, each mixed input as token ids, without an end token unless the client sent one.

    subtle: llama-server gives a list that begins with a text the end token behind that text, in the middle of the
    sequence. Here it stands at the end alone, as it does behind token ids.

    Raises what Service.tokenize raises, a TextError with the place of its input.
    """
    unmixed: Inputs = []
    for place, mixed in enumerate(inputs):
        if not isinstance(mixed, list):
            unmixed.append(mixed)
            continue
        ids: list[int] = []
        for part in mixed:
            if not isinstance(part, str):
                ids += part
            elif part:
                try:
                    ids += await service.tokenize(model, part, add_end_token=False)
                except TextError as error:
                    error.index = place
                    raise
        unmixed.append(tuple(ids))
    return unmixed


def _input(value: Any, where: str, field: str) -> str | tuple[int, ...] | Mixed:
    """One input. Raises BadRequestError, which says where in the request it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _ids(value, where, field)
    if not isinstance(value, dict):
        several = ", or a list of these" if where == field else ""
        raise BadRequestError(f"{where} must be {_SHAPES}{several}, got {shown(value)}", field)
    if "multimodal_data" in value:
        raise BadRequestError(f"{where}.multimodal_data is not taken: the model reads text alone", field)
    if value.get("content") is not None:
        return _joined(value["content"], f"{where}.content", field)
    text = value.get("prompt_string")
    if not isinstance(text, (str, list)):
        raise BadRequestError(f"{where} must have prompt_string, or content with parts of type text", field)
    return _input(text, f"{where}.prompt_string", field)


def _ids(value: list[Any], where: str, field: str) -> tuple[int, ...] | Mixed:
    """Token ids, or token ids and texts. Texts alone are no single input: they are several, one level up."""
    if not value:
        raise BadRequestError("Input content cannot be empty", field)
    if not any(isinstance(part, str) for part in value):
        return token_ids(value, field)
    if not any(type(part) is int for part in value):
        raise BadRequestError(f"{where} must be {_SHAPES}, got {shown(value)}", field)
    mixed: Mixed = []
    for are_texts, group in groupby(value, lambda part: isinstance(part, str)):
        run = list(group)
        mixed += run if are_texts else [token_ids(run, field)]
    return mixed


def _joined(parts: Any, where: str, field: str) -> str:
    """The text of all parts of a chat message's content."""
    if not isinstance(parts, list) or not parts:
        raise BadRequestError(f"{where} must be a list of parts of type text, got {shown(parts)}", field)
    for place, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            got = f"one of type {shown(kind)}" if isinstance(kind, str) and kind != "text" else shown(part)
            raise BadRequestError(f"{where}[{place}] must be a part of type text with a text, got {got}", field)
    return "".join(part["text"] for part in parts)
