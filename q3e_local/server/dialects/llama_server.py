"""llama-server's routes, where they do not collide with another dialect's.

Knows llama-server's JSON; hands what is OpenAI's or TEI's by its fields to those.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from q3e_local.errors import (
    ModelNotHereError,
    OptionError,
    Q3EError,
    TextError,
    TextTooLongError,
    UnknownModelError,
)
from q3e_local.gguf.model_file import END_TEXT
from q3e_local.server.dialects import names, ollama_models, openai, tei
from q3e_local.server.dialects.body import (
    BadRequestError,
    Fields,
    read_fields,
    token_ids,
)
from q3e_local.server.dialects.mixed_inputs import as_inputs, read_mixed
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
    told_by,
    while_connected,
)
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.errors import QueueFullError, StoppingError
from q3e_local.server.service import Service, ServiceRequest
from q3e_local.server.settings import ServerSettings
from q3e_local.vectors import Vectors

# Class, status, type: the first that fits. What is none of these is our fault.
_ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (TextTooLongError, 400, "exceed_context_size_error"),
    (TextError, 400, "invalid_request_error"),
    (BadRequestError, 400, "invalid_request_error"),
    (names.InvalidNameError, 404, "not_found_error"),
    (OptionError, 400, "invalid_request_error"),
    (UnknownModelError, 404, "not_found_error"),
    (ModelNotHereError, 404, "not_found_error"),
    (QueueFullError, 429, "unavailable_error"),
    (StoppingError, 503, "unavailable_error"),
    (ClientGoneError, 499, "invalid_request_error"),
)

_UNIT, _LARGEST = 2, 32_760
_VOCAB_TYPE_BPE = 2  # llama.h, LLAMA_VOCAB_TYPE_BPE

_ANY_INPUT = {
    "description": "A text, token ids, both mixed (one input), an object with `prompt_string` or `content` parts, "
    "or a list of these",
    "oneOf": [{"type": "string"}, {"type": "array", "items": {}}, {"type": "object"}],
}
_EMBED_SCHEMA = {
    "content": _ANY_INPUT,
    "input": _ANY_INPUT,
    "model": {"type": "string"},
    "embd_normalize": {"type": "integer", "minimum": 0, "description": "`2`, unit length, unless said otherwise"},
}


def router(service: Service, settings: ServerSettings, which: WhichModel, embeddings: openai.Embeddings) -> APIRouter:
    """The routes at the root that llama-server's clients use. `embeddings` answers what is OpenAI's."""
    routes = APIRouter(route_class=route_class(failure), tags=["llama-server"])
    max_items = dict.fromkeys(("content", "input"), settings.max_items)

    @routes.post(
        "/embedding",
        summary="Embed; a bare list",
        openapi_extra=body_schema(_EMBED_SCHEMA, (), {"content": "a text"}),
    )
    async def embedding(request: Request) -> Response:
        fields = await read_fields(request, max_items=max_items)
        return await _embed(request, service, settings, which, fields)

    @routes.post(
        "/embeddings",
        summary="With `input` as `/v1/embeddings`, with `content` as `/embedding`",
        openapi_extra=body_schema(_EMBED_SCHEMA, (), {"input": "a text"}),
    )
    async def embed(request: Request) -> Response:
        fields = await read_fields(request, max_items=max_items)
        if not fields.has("input"):
            return await _embed(request, service, settings, which, fields)
        return await told_by(openai.failure, request, embeddings.answer(request, fields))

    @routes.post(
        "/tokenize",
        summary="The token ids of a text: `content` as llama-server has it, `inputs` as TEI",
        openapi_extra=body_schema(
            {
                "content": {"type": "string"},
                "add_special": {"type": "boolean", "default": False, "description": "Add the end token"},
                "with_pieces": {"type": "boolean", "default": False},
                "inputs": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
                "add_special_tokens": {"type": "boolean", "default": True, "description": "Of `inputs`: add it"},
                "prompt_name": tei.PROMPT_NAME,
                "model": {"type": "string"},
            },
            (),
            {"content": "a text"},
        ),
    )
    async def tokenize(request: Request) -> Response:
        try:
            fields = await read_fields(request, max_items={"inputs": settings.max_items})
        except BadRequestError as error:
            if error.field == "inputs":
                return tei.failure(request, error)
            raise
        if fields.has("inputs"):
            return await told_by(tei.failure, request, tei.tokenize(request, service, settings, which, fields))
        text, add_special = fields.content("content") or "", fields.flag("add_special", False)
        if not fields.flag("parse_special", True):
            raise BadRequestError(
                "parse_special must be true: this model always reads special tokens", "parse_special"
            )
        if not text:
            return _json({"tokens": []})
        model = await which.of(fields)
        ids = await while_connected(request, service.tokenize(model, text, add_end_token=add_special))
        if not fields.flag("with_pieces", False):
            return _json({"tokens": ids})
        written = await while_connected(request, pieces(service, model, ids))
        return _json({"tokens": await asyncio.to_thread(_tokens, ids, written)})

    @routes.post(
        "/detokenize",
        summary="The text of token ids",
        openapi_extra=body_schema(
            {"tokens": {"type": "array", "items": {"type": "integer"}}, "model": {"type": "string"}},
            (),
            {"tokens": [9707, 1879]},
        ),
    )
    async def detokenize(request: Request) -> Response:
        fields = await read_fields(request)
        ids = list(token_ids(fields.items("tokens") or [], "tokens"))
        if not ids:
            return _json({"content": ""})
        text = await while_connected(request, service.detokenize(await which.of(fields), ids))
        return _json({"content": text})

    @routes.get("/props", summary="The model that answers where none is named")
    async def props() -> Response:
        name = await which.own()
        one = await asyncio.to_thread(names.here, name, settings)
        info = await asyncio.to_thread(names.described, one)
        return _json(
            {
                "default_generation_settings": {"n_ctx": info.n_ctx_train},
                "total_slots": 1,
                "model_alias": one.name,
                "model_path": one.path.name,
                "model_ftype": info.quantization.upper(),
                "modalities": {"vision": False, "audio": False},
                "chat_template": "",
                "bos_token": "",
                "eos_token": END_TEXT,
                "build_info": "q3e-local",
                "is_sleeping": not service.loaded(),
            }
        )

    @routes.get("/models", summary="The models on this machine, with what their files say")
    async def models() -> Response:
        return _json(await asyncio.to_thread(_models, settings))

    @routes.get("/health", summary="Whether the server answers, and what is loaded")
    @routes.get("/v1/health", include_in_schema=False)
    @routes.head("/health", include_in_schema=False)
    async def health() -> Response:
        loaded = [
            {
                "name": one.name,
                "size_bytes": one.size_bytes,
                "n_ctx": one.n_ctx,
                "on_gpu": one.on_gpu,
                "kernels": one.kernels.fields(),
            }
            for one in service.loaded()
        ]
        return _json({"status": "ok", "healthy": True, "loaded": loaded})

    return routes


def failure(request: Request, error: Exception) -> Response:
    """llama-server's error object for an exception."""
    found = next(((status, kind) for of_class, status, kind in _ERRORS if isinstance(error, of_class)), None)
    status, kind = found or (500, "server_error")
    message = str(error) if isinstance(error, Q3EError) else "internal error; the server's log says more"
    if isinstance(error, TextTooLongError):
        message = f"the request exceeds the available context size, it is too large to process: {message}"
    return _json({"error": {"code": status, "message": message, "type": kind}}, status, retry_headers(error))


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return json_response(value, status, headers, "application/json; charset=utf-8")


async def _embed(
    request: Request, service: Service, settings: ServerSettings, which: WhichModel, fields: Fields
) -> Response:
    field = "input" if fields.has("input") else "content"
    if not fields.has(field):
        raise BadRequestError('"input" or "content" must be provided')
    norm = fields.integer("embd_normalize")
    if norm is not None and norm < 0:
        raise BadRequestError(
            "embd_normalize must not be below 0: vectors leave this server scaled", "embd_normalize"
        )
    model = await which.of(fields)
    mixed, truncate = read_mixed(fields.raw(field), field, settings.max_items), fields.flag("truncate", False)
    inputs = await as_inputs(request, service, model, mixed)
    wanted = ServiceRequest(model, tuple(inputs), truncate=truncate)
    result = await embedded(request, service, wanted)
    scaled = await asyncio.to_thread(_scaled, result.vectors, _UNIT if norm is None else norm)
    answer = [{"index": i, "embedding": [row]} for i, row in enumerate(await rows(scaled))]
    return _json(answer, headers=result_headers(result))


def _models(settings: ServerSettings) -> dict[str, Any]:
    """OpenAI's list with llama-server's `meta`, and Ollama's list, which llama-server has beside it."""
    found = []
    for name, one in names.listed(settings):
        shown = names.short_form(name)
        with suppress(Q3EError, OSError):  # a file that cannot be read is shown by `q3e-local list`
            info = names.described(one)
            meta = {
                "vocab_type": _VOCAB_TYPE_BPE,
                "n_vocab": info.n_vocab,
                "n_ctx": info.n_ctx_train,
                "n_ctx_train": info.n_ctx_train,
                "n_embd": info.n_embd,
                "n_params": names.parameters(one),
                "size": one.size_bytes,
                "ftype": info.quantization.upper(),
            }
            aliases = [] if name == shown else [name]
            found.append({**openai.model_object(shown, one), "aliases": aliases, "tags": [], "meta": meta})
    return {"models": ollama_models.listed_models(settings), "object": "list", "data": found}


def _tokens(ids: list[int], written: list[bytes]) -> list[dict[str, Any]]:
    return [{"id": i, "piece": _piece(one)} for i, one in zip(ids, written, strict=True)]


def _piece(written: bytes) -> str | list[int]:
    """A token's text, or its bytes where they are a part of a character."""
    try:
        return written.decode("utf-8")
    except UnicodeDecodeError:
        return list(written)


def _scaled(vectors: Vectors, norm: int) -> Vectors:
    """Rows of length 1 in another of llama.cpp's norms: 0 the largest number is 32760, else the p-norm is 1."""
    if norm == _UNIT:
        return vectors
    sizes = np.abs(vectors).astype(np.float64)
    if norm == 0:
        lengths = sizes.max(axis=1, keepdims=True) / _LARGEST
    else:
        # The largest number first, so that a high power of a small one does not vanish.
        largest = np.maximum(sizes.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        lengths = largest * ((sizes / largest) ** norm).sum(axis=1, keepdims=True) ** (1 / norm)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-300), dtype=np.float32)
