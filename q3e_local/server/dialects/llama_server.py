"""llama-server's routes, where they do not collide with another dialect's.

Knows llama-server's JSON; a request with the fields of OpenAI or TEI goes to the module of that dialect.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from q3e_local.errors import Q3EError
from q3e_local.gguf.model_file import END_TEXT
from q3e_local.server.dialects import names, ollama_models, openai, tei
from q3e_local.server.dialects.body import token_ids
from q3e_local.server.dialects.failures import Failure
from q3e_local.server.dialects.fields import FLAG, TEXT, Body, Fields, Schema
from q3e_local.server.dialects.kinds import KIND
from q3e_local.server.dialects.mixed_inputs import as_inputs, read_mixed
from q3e_local.server.dialects.routes import (
    Routes,
    answer_or_fail,
    embedded,
    json_utf8_response,
    pieces,
    result_headers,
    rows,
)
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.errors import BadRequestError
from q3e_local.server.service import Service, ServiceRequest
from q3e_local.server.settings import ServerSettings
from q3e_local.vectors import Vectors

# The routes whose errors have llama-server's shape, also where a request is turned away before them.
PATHS = ("/embedding", "/embeddings", "/tokenize", "/detokenize", "/props", "/models", "/health", "/v1/health")

# llama-server's `type` of an error by status, where it is not `invalid_request_error`.
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "unavailable_error",
    500: "server_error",
    503: "unavailable_error",
}

_UNIT, _LARGEST = 2, 32_760
_VOCAB_TYPE_BPE = 2  # llama.h, LLAMA_VOCAB_TYPE_BPE

_ANY_INPUT: Schema = {
    "description": "A text, token ids, both mixed (one input), an object with `prompt_string` or `content` parts, "
    "or a list of these",
    "oneOf": [{"type": "string"}, {"type": "array", "items": {}}, {"type": "object"}],
}
_EMBED_FIELDS: dict[str, Schema] = {
    "content": _ANY_INPUT,
    "input": _ANY_INPUT,
    "model": TEXT,
    "embd_normalize": {"type": "integer", "minimum": 0, "description": "`2`, unit length, unless said otherwise"},
}
_CUT: dict[str, Schema] = {"truncate": FLAG}
_EMBEDDING = Body(_EMBED_FIELDS, (), {"content": "a text"}, _CUT)
_EMBEDDINGS = Body(_EMBED_FIELDS, (), {"input": "a text"}, _CUT)
_TOKENIZE = Body(
    {
        "content": TEXT,
        "add_special": {"type": "boolean", "default": False, "description": "Add the end token"},
        "with_pieces": {"type": "boolean", "default": False},
        "inputs": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "add_special_tokens": {"type": "boolean", "default": True, "description": "Of `inputs`: add it"},
        "prompt_name": KIND,
        "model": TEXT,
    },
    (),
    {"content": "a text"},
    {"parse_special": {"type": "boolean", "default": True}},
)
_DETOKENIZE = Body(
    {"tokens": {"type": "array", "items": {"type": "integer"}}, "model": TEXT}, (), {"tokens": [9707, 1879]}
)


def routes(service: Service, settings: ServerSettings, which: WhichModel, embeddings: openai.Embeddings) -> Routes:
    """The routes at the root that llama-server's clients use. `embeddings` answers requests in OpenAI's form."""
    max_items = dict.fromkeys(("content", "input", "inputs"), settings.max_items)
    routes = Routes("llama-server", answer_failure, max_items)

    @routes.with_body("/embedding", _EMBEDDING, "Embed; a bare list")
    async def embedding(fields: Fields) -> Response:
        return await _embed(service, settings, which, fields)

    @routes.with_body("/embeddings", _EMBEDDINGS, "With `input` as `/v1/embeddings`, with `content` as `/embedding`")
    async def embed(fields: Fields) -> Response:
        if not fields.has("input"):
            return await _embed(service, settings, which, fields)
        as_openai = embeddings.answer("/embeddings", fields.read_as(openai.EMBED))
        return await answer_or_fail(openai.answer_failure, "POST /embeddings", as_openai)

    @routes.with_body(
        "/tokenize", _TOKENIZE, "The token ids of a text: `content` as llama-server has it, `inputs` as TEI"
    )
    async def tokenize(fields: Fields) -> Response:
        if fields.has("inputs"):
            as_tei = tei.tokenize(service, settings, which, fields)
            return await answer_or_fail(tei.answer_failure, "POST /tokenize", as_tei)
        text, add_special = fields.content("content") or "", fields.flag("add_special")
        if not fields.flag("parse_special"):
            raise BadRequestError(
                "parse_special must be true: this model always reads special tokens", "parse_special"
            )
        if not text:
            return json_utf8_response({"tokens": []})
        model = await which.of(fields, None)
        ids = await service.tokenize(model, text, add_end_token=add_special)
        if not fields.flag("with_pieces"):
            return json_utf8_response({"tokens": ids})
        written = await pieces(service, model, ids)
        return json_utf8_response({"tokens": await asyncio.to_thread(_tokens, ids, written)})

    @routes.with_body("/detokenize", _DETOKENIZE, "The text of token ids")
    async def detokenize(fields: Fields) -> Response:
        ids = list(token_ids(fields.items("tokens") or [], "tokens"))
        if not ids:
            return json_utf8_response({"content": ""})
        text = await service.detokenize(await which.of(fields, None), ids)
        return json_utf8_response({"content": text})

    @routes.get("/props", "The first model named at the start, or the one that answers where none is named")
    async def props(request: Request) -> Response:
        model = await asyncio.to_thread(names.here, await which.own(None), settings)
        facts = await asyncio.to_thread(names.described, model)
        return json_utf8_response(
            {
                "default_generation_settings": {"n_ctx": facts.n_ctx_train},
                "total_slots": 1,
                "model_alias": model.name,
                "model_path": model.path.name,
                "model_ftype": facts.quantization.upper(),
                "modalities": {"vision": False, "audio": False},
                "chat_template": "",
                "bos_token": "",
                "eos_token": END_TEXT,
                "build_info": "q3e-local",
                "is_sleeping": not service.loaded(),
            }
        )

    @routes.get("/models", "The models on this machine, with what their files say")
    async def models(request: Request) -> Response:
        return json_utf8_response(await asyncio.to_thread(_models, settings))

    @routes.get("/health", "Whether the server answers, and what is loaded")
    @routes.get("/v1/health")
    async def health(request: Request) -> Response:
        loaded = [
            {
                "name": model.name,
                "type": names.label(model.kind),
                "size_bytes": model.size_bytes,
                "n_ctx": model.n_ctx,
                "on_gpu": model.placement.on_gpu,
                "kernels": model.kernels.fields(),
            }
            for model in service.loaded()
        ]
        return json_utf8_response({"status": "ok", "healthy": True, "loaded": loaded})

    return routes


def answer_failure(failure: Failure) -> Response:
    """llama-server's error object for a failure; TEI's where the field is wrong that only TEI's clients send."""
    if isinstance(failure.error, BadRequestError) and failure.error.field == "inputs":
        return tei.answer_failure(failure)
    message, status = failure.message, 404 if failure.kind == "model name" else failure.status
    kind = _TYPES.get(status, "invalid_request_error")
    if failure.kind == "text too long":
        message = f"the request exceeds the available context size, it is too large to process: {message}"
        kind = "exceed_context_size_error"
    body = {"error": {"code": status, "message": message, "type": kind}}
    return json_utf8_response(body, status, failure.headers)


async def _embed(service: Service, settings: ServerSettings, which: WhichModel, fields: Fields) -> Response:
    field = "input" if fields.has("input") else "content"
    if not fields.has(field):
        raise BadRequestError('"input" or "content" must be provided')
    norm = fields.integer("embd_normalize", "embd_normalize must not be below 0: vectors leave this server scaled")
    model = await which.of(fields)
    mixed, truncate = read_mixed(fields.raw(field), field, settings.max_items), fields.flag("truncate")
    inputs = await as_inputs(service, model, mixed)
    result = await embedded(service, ServiceRequest(model, tuple(inputs), truncate=truncate))
    scaled = await asyncio.to_thread(_scaled, result.vectors, _UNIT if norm is None else norm)
    answer = [{"index": i, "embedding": [row]} for i, row in enumerate(await rows(scaled))]
    return json_utf8_response(answer, headers=result_headers(result))


def _models(settings: ServerSettings) -> dict[str, Any]:
    """OpenAI's list with llama-server's `meta`, and Ollama's list, which llama-server has beside it."""
    data = []
    for name, model in names.listed(settings):
        shown = names.short_form(name)
        with suppress(Q3EError, OSError):  # a file that cannot be read is shown by `q3e-local list`
            facts = names.described(model)
            meta = {
                "vocab_type": _VOCAB_TYPE_BPE,
                "n_vocab": facts.n_vocab,
                "n_ctx": facts.n_ctx_train,
                "n_ctx_train": facts.n_ctx_train,
                "n_embd": facts.n_embd,
                "n_params": facts.n_parameters,
                "size": model.size_bytes,
                "ftype": facts.quantization.upper(),
            }
            aliases = [] if name == shown else [name]
            data.append({**openai.model_object(shown, model), "aliases": aliases, "tags": [], "meta": meta})
    return {"models": ollama_models.listed_models(settings), "object": "list", "data": data}


def _tokens(ids: list[int], written: list[bytes]) -> list[dict[str, Any]]:
    return [{"id": token_id, "piece": _piece(piece)} for token_id, piece in zip(ids, written, strict=True)]


def _piece(written: bytes) -> str | list[int]:
    """A token's text, or its bytes where they are a part of a character."""
    try:
        return written.decode("utf-8")
    except UnicodeDecodeError:
        return list(written)


def _scaled(vectors: Vectors, norm: int) -> Vectors:
    """Rows of length 1, in one of llama.cpp's norms: of 0 the largest number is 32760, else the p-norm is 1."""
    if norm == _UNIT:
        return vectors
    sizes = np.abs(vectors).astype(np.float64)
    if norm == 0:
        lengths = sizes.max(axis=1, keepdims=True) / _LARGEST
    else:
        # Divided by the largest number first, so that a high power of a small number does not vanish.
        largest = np.maximum(sizes.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        lengths = largest * ((sizes / largest) ** norm).sum(axis=1, keepdims=True) ** (1 / norm)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-300), dtype=np.float32)
