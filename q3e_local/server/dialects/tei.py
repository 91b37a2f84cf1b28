"""Text Embeddings Inference's routes: embed, similarity, decode, info, and its way to tokenize.

Knows TEI's JSON; translates into the service's request and back.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from q3e_local import __version__
from q3e_local.errors import TextError
from q3e_local.server.dialects import names
from q3e_local.server.dialects.body import Inputs, hold_to_limit, token_ids
from q3e_local.server.dialects.failures import Failure
from q3e_local.server.dialects.fields import TEXT, Body, Fields, Schema, shown
from q3e_local.server.dialects.kinds import KIND, kind_of
from q3e_local.server.dialects.routes import Routes, embedded, json_response, pieces, result_headers, rows
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.errors import BadRequestError, EmptyInputError
from q3e_local.server.service import Service, ServiceRequest
from q3e_local.server.settings import ServerSettings
from q3e_local.vectors import scores

# The routes whose errors have TEI's shape, also where a request is turned away before them.
PATHS = ("/embed", "/similarity", "/info", "/decode", "/embed_all")

# Failures that TEI answers with 422.
_UNPROCESSABLE = ("text too long", "text", "request", "model name")
_WRONG_KIND = 424  # Failed Dependency: TEI's status for what its backend cannot do
# TEI's `error_type` by status, where it is not `Validation`.
_TYPES = {_WRONG_KIND: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}

# Every special token of this family is written so.
_SPECIAL = re.compile(rb"<\|[a-z_]+\|>")

# `model_type` of /info. TEI's clients read the first key.
_EMBEDDER = {"embedding": {"pooling": "last_token"}}
_RERANKER = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}

_TEXTS = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_HOW: dict[str, Schema] = {
    "truncate": {"type": "boolean", "default": True},
    "truncation_direction": {"type": "string", "enum": ["Right"]},
    "prompt_name": KIND,
}
_EMBED = Body(
    {
        "inputs": {"oneOf": [{"type": "string", "minLength": 1}, _TEXTS, _IDS]},
        "normalize": {"type": "boolean", "enum": [True]},
        "dimensions": {"type": "integer", "minimum": 1},
        "model": {"type": "string", "description": "Not TEI's: a name as in `/v1/models`; else the server's own"},
        **_HOW,
    },
    ("inputs",),
    {"inputs": ["a text", "another"]},
)
_DECODE = Body(
    {
        "ids": {"oneOf": [_IDS, {"type": "array", "items": _IDS, "minItems": 1}]},
        "skip_special_tokens": {"type": "boolean", "default": True},
        "model": TEXT,
    },
    ("ids",),
    {"ids": [[9707, 1879], [9707]]},
)
_SIMILARITY = Body(
    {
        "inputs": {
            "type": "object",
            "properties": {"source_sentence": {"type": "string", "minLength": 1}, "sentences": _TEXTS},
            "required": ["source_sentence", "sentences"],
        },
        "parameters": {"type": "object", "properties": _HOW},
        "model": TEXT,
    },
    ("inputs",),
    {"inputs": {"source_sentence": "a text", "sentences": ["another", "a third"]}},
)


def routes(service: Service, settings: ServerSettings, which: WhichModel) -> Routes:
    """The routes at the root that TEI's clients use."""
    # Of the sentences one less: the text that they are compared with is an item too.
    max_items = {"inputs": settings.max_items, "ids": settings.max_items, "sentences": settings.max_items - 1}
    routes = Routes("Text Embeddings Inference", answer_failure, max_items)

    @routes.with_body("/", _EMBED)
    @routes.with_body("/embed", _EMBED, "Embed; a bare list of vectors")
    async def embed(fields: Fields) -> Response:
        if not fields.has("inputs"):
            raise BadRequestError("missing field `inputs`", "inputs")
        inputs = _inputs(fields.raw("inputs"), settings.max_items)
        if fields.has("normalize") and not fields.flag("normalize"):
            raise BadRequestError("normalize must be true: this server's vectors have length 1", "normalize")
        wanted = replace(await _wanted(which, fields, fields, inputs), dim=fields.integer("dimensions"))
        result = await embedded(service, wanted)
        return json_response(await rows(result.vectors), headers=result_headers(result))

    @routes.with_body("/similarity", _SIMILARITY, "Cosine similarities of one text to others")
    async def similarity(fields: Fields) -> Response:
        texts = fields.object("inputs")
        source, sentences = texts.content("source_sentence"), texts.items("sentences")
        if not source or not sentences or "" in sentences:
            raise EmptyInputError("`inputs` cannot be empty", "inputs")
        if not all(isinstance(text, str) for text in sentences):
            raise BadRequestError("inputs.sentences must be a list of texts", "inputs.sentences")
        inputs = [source, *sentences]
        hold_to_limit(len(inputs), settings.max_items, "inputs")
        result = await embedded(service, await _wanted(which, fields, fields.object("parameters"), inputs))
        return json_response(scores(result.vectors[:1], result.vectors[1:])[0], headers=result_headers(result))

    @routes.with_body("/decode", _DECODE, "The texts of token ids")
    async def decode(fields: Fields) -> Response:
        runs = fields.items("ids")
        if not runs:
            raise EmptyInputError("`ids` cannot be empty", "ids")
        if not all(isinstance(ids, list) for ids in runs):
            runs = [runs]
        hold_to_limit(len(runs), settings.max_items, "ids")
        runs = [list(token_ids(ids, "ids")) for ids in runs]
        model, skips = await which.of(fields, None), fields.flag("skip_special_tokens")
        return json_response([await _decoded(service, model, ids, skips) for ids in runs])

    @routes.get("/info", "The first model named at the start, or the one that answers where none is named")
    async def info(request: Request) -> Response:
        model = await asyncio.to_thread(names.here, await which.own(None), settings)
        facts = await asyncio.to_thread(names.described, model)
        return json_response(
            {
                "model_id": model.name,
                "model_sha": model.sha256 or facts.digest,
                "model_dtype": facts.quantization,
                "served_model_name": model.name,
                "model_type": _EMBEDDER if facts.kind == "embedder" else _RERANKER,
                "max_concurrent_requests": settings.max_queue,
                "max_input_length": facts.n_ctx_train,
                "max_batch_tokens": facts.n_ctx_train,
                "max_batch_requests": None,
                "max_client_batch_size": settings.max_items,
                "auto_truncate": True,
                "tokenization_workers": 1,
                "version": __version__,
                "sha": None,
                "docker_label": None,
            }
        )

    return routes


async def tokenize(service: Service, settings: ServerSettings, which: WhichModel, fields: Fields) -> Response:
    """TEI's answer of /tokenize: each token of each text, and of the prompt before the text."""
    texts = _inputs(fields.raw("inputs"), settings.max_items, are_texts=True)
    kind = kind_of(fields, "prompt_name")
    model = await which.of(fields, "embedder" if kind else None)
    add_end = fields.flag("add_special_tokens")
    answer: list[list[dict[str, Any]]] = []
    n_tokens = 0
    for place, text in enumerate(cast(list[str], texts)):
        try:
            ids = await service.tokenize(model, text, add_end_token=add_end, kind=kind)
        except TextError as error:
            error.index = place
            raise
        written = await pieces(service, model, ids, n_tokens)
        n_tokens += len(ids)
        answer.append(await asyncio.to_thread(_tokens, ids, written))
    return json_response(answer)


def _inputs(value: Any, max_items: int, *, are_texts: bool = False) -> Inputs:
    """A text, the token ids of one text, or a list of either; with `are_texts` texts alone. Never empty.

    Raises EmptyInputError for an empty list, text or list of ids, and BadRequestError for any other value.
    """
    is_list = isinstance(value, list) and (not value or type(value[0]) is not int)
    inputs = value if is_list else [value]
    hold_to_limit(len(inputs), max_items, "inputs")
    if not all(isinstance(text, str) or (isinstance(text, list) and not are_texts) for text in inputs):
        kinds = "a text or a list of texts" if are_texts else "a text, a list of texts or token ids"
        raise BadRequestError(f"inputs must be {kinds}, got {shown(value)}", "inputs")
    for place, text in enumerate(inputs):
        if not text:
            where = f"inputs[{place}]" if len(inputs) > 1 else "inputs"
            raise EmptyInputError(f"`{where}` cannot be empty", "inputs")
    if not inputs:
        raise EmptyInputError("`inputs` cannot be empty", "inputs")
    return [text if isinstance(text, str) else token_ids(text, "inputs") for text in inputs]


async def _decoded(service: Service, model: str, ids: list[int], skips_special: bool) -> str:
    if skips_special:
        unique = list(dict.fromkeys(ids))
        written = await pieces(service, model, unique)
        special = {i for i, piece in zip(unique, written, strict=True) if _is_special(piece)}
        ids = [i for i in ids if i not in special]
    return await service.detokenize(model, ids) if ids else ""


def answer_failure(failure: Failure) -> Response:
    """TEI's two fields for a failure."""
    status, message = 422 if failure.kind in _UNPROCESSABLE else failure.status, failure.message
    if failure.kind == "wrong kind":
        status = _WRONG_KIND
    if isinstance(failure.error, TextError):
        message = f"Input validation error: {message}"
    kind = "Empty" if failure.kind == "empty input" else _TYPES.get(status, "Validation")
    return json_response({"error": message, "error_type": kind}, status, failure.headers)


async def _wanted(which: WhichModel, fields: Fields, how: Fields, inputs: Inputs) -> ServiceRequest:
    """The service's request. `how` are the fields for truncation and prompt."""
    how.choice("truncation_direction", "truncation_direction must be Right: texts are cut at their end")
    kind, truncate = kind_of(how, "prompt_name"), how.flag("truncate")
    return ServiceRequest(await which.of(fields), tuple(inputs), kind=kind, truncate=truncate)


def _tokens(ids: list[int], written: list[bytes]) -> list[dict[str, Any]]:
    # The place of a token in the text is not known, because the text was normalized before.
    places = {"start": None, "stop": None}
    return [
        {"id": token_id, "text": piece.decode("utf-8", "replace"), "special": _is_special(piece), **places}
        for token_id, piece in zip(ids, written, strict=True)
    ]


def _is_special(piece: bytes) -> bool:
    return _SPECIAL.fullmatch(piece) is not None
