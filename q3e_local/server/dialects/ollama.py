"""Ollama's embedding routes and one to rank, the words of its errors, and a refusal for routes that generate text.

Knows Ollama's JSON; leaves the models on this machine to ollama_models and ollama_pull.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from q3e_local.errors import BadVectorError, Q3EError, UnknownModelError
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.server.dialects import names, ollama_models, ollama_pull, ranking
from q3e_local.server.dialects.body import hold_to_limit
from q3e_local.server.dialects.failures import Failure
from q3e_local.server.dialects.fields import KEEP_ALIVE, TEXT, Body, Fields, Schema
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.dialects.ollama_models import NAMED, OLD_NAME, model_name, not_found
from q3e_local.server.dialects.routes import (
    Routes,
    embedded,
    json_utf8_response,
    rank_headers,
    result_headers,
    rows,
    truncated,
)
from q3e_local.server.errors import BadRequestError, NotServedError
from q3e_local.server.service import Service, ServiceRequest
from q3e_local.server.settings import OLLAMA_VERSION, ServerSettings

_OPTIONS: Schema = {
    "type": "object",
    "properties": {"num_ctx": {"type": "integer", "minimum": 2}},  # a word and the end token
    "description": "`num_ctx` limits the tokens of each text; the others are this server's own to choose",
}
_EMBED = Body(
    {
        "model": {
            "type": "string",
            "description": "A name as in `/api/tags`; with `-query` behind it, texts are queries",
        },
        "input": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "truncate": {"type": "boolean", "default": True},
        "dimensions": {"type": "integer"},
        "options": _OPTIONS,
        "keep_alive": KEEP_ALIVE,
    },
    ("model",),
    {"model": "qwen3-embedding:4b", "input": ["a text"]},
    OLD_NAME,
)
_EMBEDDINGS = Body(
    {"model": TEXT, "prompt": TEXT, "options": _OPTIONS, "keep_alive": KEEP_ALIVE},
    ("model",),
    {"model": "qwen3-embedding:4b", "prompt": "a text"},
    OLD_NAME,
)
_GENERATE = Body(
    {"model": TEXT, "keep_alive": KEEP_ALIVE},
    ("model",),
    {"model": "demo", "keep_alive": 0},
    {**OLD_NAME, "prompt": TEXT},
)
_RERANK = Body(
    {
        "model": TEXT,
        "query": ranking.QUERY,
        "documents": ranking.DOCUMENTS,
        "top_n": ranking.TOP_N,
        **ranking.HOW,
        "options": _OPTIONS,
        "keep_alive": KEEP_ALIVE,
    },
    ("model", "query", "documents"),
    {
        "model": DEFAULT_RERANKER,
        "query": "Which planet is known as the Red Planet?",
        "documents": ["Venus is a twin of Earth.", "Mars is often called the Red Planet."],
    },
    {**OLD_NAME, **ranking.UNLISTED},
)
_ONLY_EMBEDS = "this server only embeds and ranks texts: use /api/embed or /api/rerank"


def routes(service: Service, settings: ServerSettings, unknown: Notices) -> Routes:
    """The routes under /api, and the root that Ollama's clients knock at. `unknown` logs fields that they lack."""
    routes = Routes(
        "Ollama", answer_failure, dict.fromkeys(("input", "documents"), settings.max_items), only_first=True
    )

    @routes.get("/")
    async def root(request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    @routes.get("/api/version", "The release of Ollama that this server speaks like")
    async def version(request: Request) -> Response:
        return json_utf8_response({"version": OLLAMA_VERSION})

    @routes.with_body("/api/embed", _EMBED, "Embed one text or a list")
    async def embed(fields: Fields) -> Response:
        begun = time.perf_counter_ns()
        fields.log_unknown("/api/embed", unknown)
        inputs = _inputs(fields.raw("input"), settings.max_items)
        model, name, keep = _model(fields, settings)
        dim = fields.integer("dimensions")
        truncate = fields.flag("truncate")
        max_tokens = _max_tokens(fields, truncate)
        with _found(model):
            if not inputs:
                await _preload(service, settings, name, keep)
                return json_utf8_response({"model": model, "embeddings": []})
            if dim is not None:
                dim = await ollama_models.useful_dim(name, dim, settings)
            wanted = ServiceRequest(
                name, tuple(inputs), dim=dim, truncate=truncate, max_tokens=max_tokens, keep_alive_s=keep
            )
            result = await embedded(service, wanted)
        body = {
            "model": model,
            "embeddings": await rows(result.vectors),
            "total_duration": time.perf_counter_ns() - begun,
            "load_duration": max(1, round(result.load_s * 1e9)),
            "prompt_eval_count": sum(result.prompt_tokens),
            "space": result.space,
            "truncated": truncated(result),
        }
        return json_utf8_response(body, headers=result_headers(result))

    @routes.with_body("/api/embeddings", _EMBEDDINGS, "Embed one text (Ollama's older route)")
    async def embeddings(fields: Fields) -> Response:
        fields.log_unknown("/api/embeddings", unknown)
        model, name, keep = _model(fields, settings, BadRequestError("model is required", "model"))
        prompt, max_tokens = fields.content("prompt"), _max_tokens(fields, truncate=False)
        with _found(model):
            if not prompt:
                await _preload(service, settings, name, keep)
                return json_utf8_response({"embedding": []})
            wanted = ServiceRequest(name, (prompt,), truncate=False, max_tokens=max_tokens, keep_alive_s=keep)
            result = await embedded(service, wanted)
        return json_utf8_response({"embedding": result.vectors[0]}, headers=result_headers(result))

    @routes.with_body("/api/rerank", _RERANK, "Order documents by how well they answer a query (not Ollama's)")
    async def rerank(fields: Fields) -> Response:
        begun = time.perf_counter_ns()
        fields.log_unknown("/api/rerank", unknown)
        model, name, keep = _model(fields, settings)
        query, documents = ranking.query(fields), ranking.documents(fields, "documents", settings.max_items)
        top_n, raw, max_tokens = ranking.top_n(fields), ranking.is_raw(fields), _max_tokens(fields, truncate=True)
        wanted = ranking.wanted(fields, name, query, documents)
        with _found(model):
            wanted = replace(wanted, max_tokens=max_tokens or wanted.max_tokens, keep_alive_s=keep)
            result = await ranking.ranked(service, wanted)
        body = {
            "model": model,
            "results": [
                {"index": place.index, "relevance_score": place.score, "document": documents[place.index]}
                for place in ranking.best_first(result, top_n, raw=raw)
            ],
            "total_duration": time.perf_counter_ns() - begun,
            "load_duration": max(1, round(result.load_s * 1e9)),
            "prompt_eval_count": sum(result.prompt_tokens),
            "truncated": truncated(result),
        }
        return json_utf8_response(body, headers=rank_headers(result))

    @routes.with_body(
        "/api/generate", _GENERATE, "Load a model, or unload it with `keep_alive` 0 (what `ollama stop` sends)"
    )
    async def generate(fields: Fields) -> Response:
        model, name, keep = _model(fields, settings)
        if fields.content("prompt"):
            raise BadRequestError(f'"{model}" does not support generate: {_ONLY_EMBEDS}')
        with _found(model):
            await _preload(service, settings, name, keep)
        body = {
            "model": model,
            "created_at": ollama_models.rfc3339(),
            "response": "",
            "done": True,
            "done_reason": "unload" if keep == 0 else "load",
        }
        return json_utf8_response(body)

    @routes.with_body("/api/chat", NAMED)
    async def chat(fields: Fields) -> Response:
        raise BadRequestError(f'"{model_name(fields) or ""}" does not support chat: {_ONLY_EMBEDS}')

    @routes.add(("POST",), "/api/create")
    @routes.add(("POST",), "/api/push")
    @routes.add(("HEAD", "POST"), "/api/blobs/{digest}")
    async def not_served(request: Request) -> Response:
        raise NotServedError(
            "this server only embeds texts; take in a model of your own with q3e-local import or q3e-local convert"
        )

    ollama_models.add_routes(routes, service, settings)
    ollama_pull.add_route(routes, service, settings)
    return routes


def answer_failure(failure: Failure) -> Response:
    """Ollama's error object. Ollama's words come first, because clients look for them, then the message."""
    words, status = "", failure.status
    if failure.kind == "text too long":
        words = "the input length exceeds the context length: "
    elif isinstance(failure.error, BadVectorError):
        words = "embedding contains NaN or Inf values: "
    elif failure.kind == "queue full":
        words, status = "server busy, please try again.  maximum pending requests exceeded: ", 503
    return json_utf8_response({"error": f"{words}{failure.message}"}, status, failure.headers)


def _model(
    fields: Fields, settings: ServerSettings, missing: Q3EError | None = None
) -> tuple[str, str, float | None]:
    """The model's name as it was sent, the name checked, and keep_alive. Raises `missing` where no name was sent."""
    model = model_name(fields)
    if not model:
        raise missing or UnknownModelError("model '' not found")
    return model, names.checked(model, settings), fields.keep_alive_s()


def _inputs(value: Any, max_items: int) -> list[str]:
    """The texts. A request without a text, or with an empty one, only loads the model."""
    if value is None or value == "":
        return []
    texts = value if isinstance(value, list) else [value]
    hold_to_limit(len(texts), max_items, "input")
    if not all(isinstance(text, str) for text in texts):
        raise BadRequestError("invalid input type", "input")
    return texts


def _max_tokens(fields: Fields, truncate: bool) -> int | None:
    """The tokens a text may have, from `options.num_ctx`."""
    exceeds = "input after truncation exceeds maximum" if truncate else "the input length exceeds the"
    return fields.object("options").integer("num_ctx", f"{exceeds} context length")


def _found(model: str) -> AbstractContextManager[None]:
    return not_found(f'model "{model}" not found, try pulling it first')


async def _preload(service: Service, settings: ServerSettings, name: str, keep: float | None) -> None:
    if keep == 0:
        await asyncio.to_thread(names.here, name, settings)
        await asyncio.shield(service.unload(name))  # who sends this and leaves still means it
    else:
        await service.load(name, keep)
