"""Text Embeddings Inference's routes: embed, similarity, decode, info, and its way to tokenize.

Knows TEI's JSON; translates into the service's request and back.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from q3e_local import __version__
from q3e_local.embedding.prompts import Kind
from q3e_local.errors import (
    EngineError,
    ModelNotHereError,
    OptionError,
    Q3EError,
    TextError,
    UnknownModelError,
)
from q3e_local.server.dialects import names
from q3e_local.server.dialects.body import (
    BadRequestError,
    EmptyInputError,
    Fields,
    Inputs,
    MissingBodyError,
    hold_to_limit,
    read_fields,
    read_inputs,
    shown,
    token_ids,
)
from q3e_local.server.dialects.routes import (
    ClientGoneError,
    body_schema,
    embedded,
    json_response,
    pieces,
    result_headers,
    retry_headers,
    route_class,
    rows,
    while_connected,
)
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.errors import QueueFullError, StoppingError, WorkerDiedError
from q3e_local.server.service import Service, ServiceRequest, ServiceResult
from q3e_local.server.settings import ServerSettings
from q3e_local.vectors import scores

# Class, status, kind: the first that fits. What is none of these is our fault.
_ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (EmptyInputError, 400, "Empty"),
    (MissingBodyError, 400, "Validation"),
    (TextError, 422, "Validation"),
    (BadRequestError, 422, "Validation"),
    (OptionError, 422, "Validation"),
    (UnknownModelError, 404, "Validation"),
    (ModelNotHereError, 404, "Validation"),
    (QueueFullError, 429, "Overloaded"),
    (StoppingError, 503, "Unhealthy"),
    (ClientGoneError, 499, "Validation"),
    (WorkerDiedError, 500, "Backend"),
    (EngineError, 500, "Backend"),
)

# Qwen3-Embedding's own prompt names: a query gets the instruction, a document nothing.
_PROMPTS: dict[str, Kind] = {"query": "query", "document": "document"}
# Every special token of this family is written so.
_SPECIAL = re.compile(rb"<\|[a-z_]+\|>")

PROMPT_NAME = {"type": "string", "enum": list(_PROMPTS), "description": "What the model gets before each text"}
_TEXTS = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_HOW = {
    "truncate": {"type": "boolean", "default": True},
    "truncation_direction": {"type": "string", "enum": ["Right"]},
    "prompt_name": PROMPT_NAME,
}
_EMBED_SCHEMA = {
    "inputs": {
        "oneOf": [
            {"type": "string", "minLength": 1},
            _TEXTS,
            _IDS,
        ]
    },
    "normalize": {"type": "boolean", "enum": [True]},
    "dimensions": {"type": "integer", "minimum": 1},
    "model": {"type": "string", "description": "Not TEI's: a name as in `/v1/models`; else the server's own"},
    **_HOW,
}
_DECODE_SCHEMA = {
    "ids": {"oneOf": [_IDS, {"type": "array", "items": _IDS, "minItems": 1}]},
    "skip_special_tokens": {"type": "boolean", "default": True},
    "model": {"type": "string"},
}
_SIMILARITY_SCHEMA = {
    "inputs": {
        "type": "object",
        "properties": {"source_sentence": {"type": "string", "minLength": 1}, "sentences": _TEXTS},
        "required": ["source_sentence", "sentences"],
    },
    "parameters": {"type": "object", "properties": _HOW},
    "model": {"type": "string"},
}


def router(service: Service, settings: ServerSettings, which: WhichModel) -> APIRouter:
    """The routes at the root that TEI's clients use."""
    routes = APIRouter(route_class=route_class(failure), tags=["Text Embeddings Inference"])

    @routes.post("/", include_in_schema=False)
    @routes.post(
        "/embed",
        summary="Embed; a bare list of vectors",
        openapi_extra=body_schema(_EMBED_SCHEMA, ("inputs",), {"inputs": ["a text", "another"]}),
    )
    async def embed(request: Request) -> Response:
        fields = await read_fields(request, max_items={"inputs": settings.max_items})
        if not fields.has("inputs"):
            raise BadRequestError("missing field `inputs`", "inputs")
        inputs = read_inputs(fields.raw("inputs"), "inputs", settings.max_items)
        if not fields.flag("normalize", True):
            raise BadRequestError("normalize must be true: this server's vectors have length 1", "normalize")
        dim = fields.integer("dimensions")
        result = await _result(request, service, settings, which, fields, fields, inputs, dim)
        return json_response(await rows(result.vectors), headers=result_headers(result))

    @routes.post(
        "/similarity",
        summary="Cosine similarities of one text to others",
        openapi_extra=body_schema(
            _SIMILARITY_SCHEMA,
            ("inputs",),
            {"inputs": {"source_sentence": "a text", "sentences": ["another", "a third"]}},
        ),
    )
    async def similarity(request: Request) -> Response:
        # One item is the text that the others are compared with.
        fields = await read_fields(request, max_items={"sentences": settings.max_items - 1})
        given = fields.object("inputs")
        source, sentences = given.content("source_sentence"), given.items("sentences")
        if not source or not sentences or "" in sentences:
            raise EmptyInputError("`inputs` cannot be empty", "inputs")
        if not all(isinstance(text, str) for text in sentences):
            raise BadRequestError("inputs.sentences must be a list of texts", "inputs.sentences")
        how = fields.object("parameters")
        result = await _result(request, service, settings, which, fields, how, [source, *sentences], None)
        found = scores(result.vectors[:1], result.vectors[1:])[0]
        return json_response(found, headers=result_headers(result))

    @routes.post(
        "/decode",
        summary="The texts of token ids",
        openapi_extra=body_schema(_DECODE_SCHEMA, ("ids",), {"ids": [[9707, 1879], [9707]]}),
    )
    async def decode(request: Request) -> Response:
        fields = await read_fields(request, max_items={"ids": settings.max_items})
        given = fields.items("ids")
        if not given:
            raise EmptyInputError("`ids` cannot be empty", "ids")
        if all(isinstance(one, list) for one in given):
            hold_to_limit(len(given), settings.max_items, "ids")
            runs = [token_ids(ids, "ids") for ids in given]
        else:
            runs = [token_ids(given, "ids")]
        model, skips = await which.of(fields), fields.flag("skip_special_tokens", True)
        return json_response([await _decoded(request, service, model, list(ids), skips) for ids in runs])

    @routes.get("/info", summary="The model that answers where none is named, and the limits")
    async def info() -> Response:
        name = await which.own()
        one = await asyncio.to_thread(names.here, name, settings)
        found = await asyncio.to_thread(names.described, one)
        return json_response(
            {
                "model_id": one.name,
                "model_sha": one.sha256 or found.digest,
                "model_dtype": found.quantization,
                "served_model_name": one.name,
                "model_type": {"embedding": {"pooling": "last_token"}},
                "max_concurrent_requests": settings.max_queue,
                "max_input_length": found.n_ctx_train,
                "max_batch_tokens": found.n_ctx_train,
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


async def tokenize(
    request: Request, service: Service, settings: ServerSettings, which: WhichModel, fields: Fields
) -> Response:
    """TEI's answer of /tokenize: the tokens of each text, and of the prompt before it, with what they are."""
    given = fields.raw("inputs")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise BadRequestError("inputs must be a text or a list of texts", "inputs")
    hold_to_limit(len(texts), settings.max_items, "inputs")
    if not all(isinstance(text, str) for text in texts):
        raise BadRequestError("inputs must be a text or a list of texts", "inputs")
    if not texts or "" in texts:
        raise EmptyInputError("`inputs` cannot be empty", "inputs")
    kind = _kind(fields)
    model = await which.of(fields)
    add_end = fields.flag("add_special_tokens", True)
    answer: list[list[dict[str, Any]]] = []
    n_tokens = 0
    for place, text in enumerate(texts):
        try:
            ids = await while_connected(request, service.tokenize(model, text, add_end_token=add_end, kind=kind))
        except TextError as error:
            error.index = place
            raise
        written = await while_connected(request, pieces(service, model, ids, n_tokens))
        n_tokens += len(ids)
        answer.append(await asyncio.to_thread(_tokens, ids, written))
    return json_response(answer)


async def _decoded(request: Request, service: Service, model: str, ids: list[int], skips_special: bool) -> str:
    if skips_special:
        unique = list(dict.fromkeys(ids))
        written = await while_connected(request, pieces(service, model, unique))
        special = {i for i, piece in zip(unique, written, strict=True) if _is_special(piece)}
        ids = [i for i in ids if i not in special]
    return await while_connected(request, service.detokenize(model, ids)) if ids else ""


def failure(request: Request, error: Exception) -> Response:
    """TEI's two fields for an exception."""
    found = next(((status, kind) for of_class, status, kind in _ERRORS if isinstance(error, of_class)), None)
    status, kind = found or (500, "Backend")
    message = str(error) if isinstance(error, Q3EError) else "internal error; the server's log says more"
    if isinstance(error, TextError):
        message = f"Input validation error: {message}"
    return json_response({"error": message, "error_type": kind}, status, retry_headers(error))


async def _result(
    request: Request,
    service: Service,
    settings: ServerSettings,
    which: WhichModel,
    fields: Fields,
    how: Fields,
    inputs: Inputs,
    dim: int | None,
) -> ServiceResult:
    """Embed, with `how` saying what is done to the texts."""
    hold_to_limit(len(inputs), settings.max_items, "inputs")
    if dim is not None and dim < 1:
        raise BadRequestError(f"dimensions must be 1 or more, got {dim}", "dimensions")
    if how.choice("truncation_direction", ("left", "right"), "right") == "left":
        raise BadRequestError(
            "truncation_direction must be Right: texts are cut at their end", "truncation_direction"
        )
    kind = _kind(how)
    wanted = ServiceRequest(
        await which.of(fields),
        tuple(inputs),
        kind=kind,
        dim=dim,
        truncate=how.flag("truncate", True),
    )
    return await embedded(request, service, wanted)


def _kind(how: Fields) -> Kind | None:
    """What `prompt_name` makes of the texts; None where it is left out."""
    name = how.text("prompt_name")
    if name is None:
        return None
    if name not in _PROMPTS:
        raise BadRequestError(
            f"prompt_name {shown(name)} is unknown; there are {', '.join(_PROMPTS)}", how.name("prompt_name")
        )
    return _PROMPTS[name]


def _tokens(ids: list[int], written: list[bytes]) -> list[dict[str, Any]]:
    return [_token(i, piece) for i, piece in zip(ids, written, strict=True)]


def _token(token_id: int, piece: bytes) -> dict[str, Any]:
    # Where a token stands in the text is not known: the text was normalized before.
    text, special = piece.decode("utf-8", "replace"), _is_special(piece)
    return {"id": token_id, "text": text, "special": special, "start": None, "stop": None}


def _is_special(piece: bytes) -> bool:
    return _SPECIAL.fullmatch(piece) is not None
