"""Ollama's embedding routes, its errors, and what it has that a server for embeddings has not.

Knows Ollama's JSON; leaves the models on this machine to ollama_models and ollama_pull.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from q3e_local.errors import (
    BadVectorError,
    ModelNotHereError,
    OptionError,
    Q3EError,
    TextError,
    TextTooLongError,
    UnknownModelError,
)
from q3e_local.server.dialects import names, ollama_models, ollama_pull
from q3e_local.server.dialects.body import BadRequestError, Fields, hold_to_limit, read_fields
from q3e_local.server.dialects.ignored import Ignored
from q3e_local.server.dialects.keep_alive import keep_alive_s
from q3e_local.server.dialects.routes import (
    ClientGoneError,
    NotServedError,
    body_schema,
    embedded,
    json_response,
    result_headers,
    retry_headers,
    route_class,
    rows,
    truncated,
    while_connected,
)
from q3e_local.server.errors import QueueFullError, StoppingError
from q3e_local.server.service import Service, ServiceRequest
from q3e_local.server.settings import ServerSettings

# Old clients say `name` for `model`.
_NAMES = ("name",)

# Class and status: the first that fits. What is none of these is our fault.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (TextError, 400),
    (BadRequestError, 400),
    (OptionError, 400),
    (UnknownModelError, 404),
    (ModelNotHereError, 404),
    (NotServedError, 501),
    (QueueFullError, 503),
    (StoppingError, 503),
    (ClientGoneError, 499),
)

KEEP_ALIVE = {
    "oneOf": [{"type": "string"}, {"type": "number"}],
    "description": "Seconds, or a duration such as `10m`; 0 unloads afterwards, below 0 never",
}
_OPTIONS = {
    "type": "object",
    "properties": {"num_ctx": {"type": "integer", "minimum": 2}},
    "description": "`num_ctx` limits the tokens of each text; the others are this server's own to choose",
}
_EMBED_SCHEMA = {
    "model": {
        "type": "string",
        "description": "A name as in `/api/tags`; with `-query` behind it, texts are queries",
    },
    "input": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "truncate": {"type": "boolean", "default": True},
    "dimensions": {"type": "integer"},
    "options": _OPTIONS,
    "keep_alive": KEEP_ALIVE,
}
_OLD_SCHEMA = {
    "model": {"type": "string"},
    "prompt": {"type": "string"},
    "options": _OPTIONS,
    "keep_alive": KEEP_ALIVE,
}
_ONLY_EMBEDS = "this server only embeds texts: use /api/embed"


def router(service: Service, settings: ServerSettings) -> APIRouter:
    """The routes under /api, and the root that Ollama's clients knock at."""
    routes = APIRouter(route_class=route_class(failure), tags=["Ollama"])
    ignored = Ignored(_NAMES)

    @routes.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def root() -> Response:
        return PlainTextResponse("Ollama is running")

    @routes.api_route("/api/version", methods=["GET"], summary="The release of Ollama that this server speaks like")
    @routes.head("/api/version", include_in_schema=False)
    async def version() -> Response:
        return answer({"version": settings.version})

    @routes.post(
        "/api/embed",
        summary="Embed one text or a list",
        openapi_extra=body_schema(_EMBED_SCHEMA, ("model",), {"model": "qwen3-embedding:4b", "input": ["a text"]}),
    )
    async def embed(request: Request) -> Response:
        begun = time.perf_counter_ns()
        fields = await read_fields(request, only_first=True, max_items={"input": settings.max_items})
        ignored.tell(fields, "/api/embed", _EMBED_SCHEMA)
        inputs = _inputs(fields.raw("input"), settings.max_items)
        given = _model(fields)
        if not given:
            raise UnknownModelError("model '' not found")
        name = names.checked(given, settings)
        keep, dim = keep_alive_s(fields.raw("keep_alive")), fields.integer("dimensions")
        truncate = fields.flag("truncate", True)
        max_tokens = _max_tokens(fields, truncate)
        with _naming(given):
            if not inputs:
                await _preload(request, service, settings, name, keep)
                return answer({"model": given, "embeddings": []})
            if dim is not None:
                dim = await ollama_models.useful_dim(name, dim, settings)
            wanted = ServiceRequest(
                name, tuple(inputs), dim=dim, truncate=truncate, max_tokens=max_tokens, keep_alive_s=keep
            )
            result = await embedded(request, service, wanted)
        body = {
            "model": given,
            "embeddings": await rows(result.vectors),
            "total_duration": time.perf_counter_ns() - begun,
            "load_duration": max(1, round(result.load_s * 1e9)),
            "prompt_eval_count": sum(result.prompt_tokens),
            "space": result.space,
            "truncated": truncated(result),
        }
        return answer(body, headers=result_headers(result))

    @routes.post(
        "/api/embeddings",
        summary="Embed one text (Ollama's older route)",
        openapi_extra=body_schema(_OLD_SCHEMA, ("model",), {"model": "qwen3-embedding:4b", "prompt": "a text"}),
    )
    async def embeddings(request: Request) -> Response:
        fields = await read_fields(request, only_first=True)
        ignored.tell(fields, "/api/embeddings", _OLD_SCHEMA)
        given = _model(fields)
        if not given:
            raise BadRequestError("model is required", "model")
        name, keep = names.checked(given, settings), keep_alive_s(fields.raw("keep_alive"))
        prompt, max_tokens = fields.content("prompt"), _max_tokens(fields, truncate=False)
        with _naming(given):
            if not prompt:
                await _preload(request, service, settings, name, keep)
                return answer({"embedding": []})
            wanted = ServiceRequest(name, (prompt,), truncate=False, max_tokens=max_tokens, keep_alive_s=keep)
            result = await embedded(request, service, wanted)
        return answer({"embedding": result.vectors[0]}, headers=result_headers(result))

    @routes.post(
        "/api/generate",
        summary="Load a model, or unload it with `keep_alive` 0 (what `ollama stop` sends)",
        openapi_extra=body_schema(
            {"model": {"type": "string"}, "keep_alive": KEEP_ALIVE}, ("model",), {"model": "demo", "keep_alive": 0}
        ),
    )
    async def generate(request: Request) -> Response:
        fields = await read_fields(request, only_first=True)
        given = _model(fields)
        if not given:
            raise UnknownModelError("model '' not found")
        name, keep = names.checked(given, settings), keep_alive_s(fields.raw("keep_alive"))
        if fields.content("prompt"):
            raise BadRequestError(f'"{given}" does not support generate: {_ONLY_EMBEDS}')
        with _naming(given):
            await _preload(request, service, settings, name, keep)
        reason = "unload" if keep == 0 else "load"
        body = {
            "model": given,
            "created_at": ollama_models.rfc3339(),
            "response": "",
            "done": True,
            "done_reason": reason,
        }
        return answer(body)

    @routes.post("/api/chat", include_in_schema=False)
    async def chat(request: Request) -> Response:
        fields = await read_fields(request, only_first=True)
        raise BadRequestError(f'"{_model(fields) or ""}" does not support chat: {_ONLY_EMBEDS}')

    @routes.post("/api/create", include_in_schema=False)
    @routes.post("/api/push", include_in_schema=False)
    @routes.api_route("/api/blobs/{digest}", methods=["HEAD", "POST"], include_in_schema=False)
    async def not_served() -> Response:
        raise NotServedError(
            "this server only embeds texts; take in a model of your own with q3e-local import or q3e-local convert"
        )

    ollama_models.add_routes(routes, service, settings, answer)
    ollama_pull.add_route(routes, service, settings, answer)
    return routes


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON with the content type that Ollama gives."""
    return json_response(value, status, headers, "application/json; charset=utf-8")


def failure(request: Request, error: Exception) -> Response:
    """Ollama's error object for an exception."""
    status = next((status for of_class, status in _STATUSES if isinstance(error, of_class)), 500)
    return answer({"error": _message(error)}, status, retry_headers(error))


def _message(error: Exception) -> str:
    """Ollama's words first, as clients look for them, then ours."""
    if isinstance(error, TextTooLongError):
        return f"the input length exceeds the context length: {error}"
    if isinstance(error, BadVectorError):
        return f"embedding contains NaN or Inf values: {error}"
    if isinstance(error, QueueFullError):
        return f"server busy, please try again.  maximum pending requests exceeded: {error}"
    return str(error) if isinstance(error, Q3EError) else "internal error; the server's log says more"


def _model(fields: Fields) -> str | None:
    # Old clients say `name`.
    return fields.text("model") or fields.text("name")


def _inputs(value: Any, max_items: int) -> list[str]:
    """The texts; none for what means: only load the model."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise BadRequestError("invalid input type", "input")
    hold_to_limit(len(value), max_items, "input")
    if not all(isinstance(text, str) for text in value):
        raise BadRequestError("invalid input type", "input")
    return value


def _max_tokens(fields: Fields, truncate: bool) -> int | None:
    """The tokens a text may have, from `options.num_ctx`."""
    num_ctx = fields.object("options").integer("num_ctx")
    if num_ctx is not None and num_ctx < 2:  # no room for a word beside the end token
        raise BadRequestError(
            "input after truncation exceeds maximum context length"
            if truncate
            else "the input length exceeds the context length",
            "options.num_ctx",
        )
    return num_ctx


@contextmanager
def _naming(given: str) -> Iterator[None]:
    """Say that a model is not here in Ollama's words, with the name as it was given."""
    try:
        yield
    except (UnknownModelError, ModelNotHereError) as error:
        said = f'model "{given}" not found, try pulling it first{ollama_models.hint_of(error)}'
        raise type(error)(said) from None


async def _preload(
    request: Request, service: Service, settings: ServerSettings, name: str, keep: float | None
) -> None:
    if keep == 0:
        await ollama_models.known(name, settings)
        await service.unload(name)
    else:
        await while_connected(request, service.load(name, keep))
