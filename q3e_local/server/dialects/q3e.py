"""Our own routes, for commands with `--server` and `stop`: what the command line needs that no other dialect has.

What a model is and makes of options; how many tokens texts have; of each embedding its tokens and whether its text
was cut, which text failed, vectors as they are in memory: base64 of little-endian float32 rows. And whether a model
was loaded, and is really gone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from q3e_local.embedding.prompts import Kind
from q3e_local.errors import ModelNotHereError, OptionError, Q3EError, TextError, UnknownModelError
from q3e_local.server.dialects import names
from q3e_local.server.dialects.body import BadRequestError, Fields, hold_to_limit, read_fields, shown
from q3e_local.server.dialects.routes import (
    ClientGoneError,
    body_schema,
    json_response,
    result_headers,
    retry_headers,
    route_class,
    while_connected,
)
from q3e_local.server.errors import QueueFullError, StoppingError
from q3e_local.server.service import Service, ServiceRequest
from q3e_local.server.settings import ServerSettings
from q3e_local.vectors import to_base64

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (TextError, 400),
    (BadRequestError, 400),
    (UnknownModelError, 404),
    (ModelNotHereError, 404),
    (OptionError, 400),
    (QueueFullError, 429),
    (StoppingError, 503),
    (ClientGoneError, 499),
)
_WAIT_S = 5.0  # for a model at work; who wants to wait longer asks again
_KINDS: dict[str, Kind] = {"query": "query", "document": "document"}
_OPTIONS: dict[str, Any] = {
    "model": {"type": "string"},
    "kind": {"type": "string", "enum": list(_KINDS)},
    "task": {"type": "string"},
    "instruction": {"type": "string"},
    "dim": {"type": "integer", "minimum": 32},
    "truncate": {"type": "boolean", "default": True},
    "max_tokens": {"type": "integer", "minimum": 1},
}
_TEXTS: dict[str, Any] = {
    "model": {"type": "string"},
    "texts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
}


def router(service: Service, settings: ServerSettings) -> APIRouter:
    """The routes under /q3e."""
    routes = APIRouter(route_class=route_class(failure), tags=["q3e-local"])
    max_items = {"texts": settings.max_items}

    @routes.post(
        "/q3e/embed",
        summary="Embed texts, as `q3e-local embed --server` does",
        openapi_extra=body_schema(
            _TEXTS | _OPTIONS, ("model", "texts"), {"model": "qwen3-embedding:4b", "texts": ["a text"]}
        ),
    )
    async def embed(request: Request) -> Response:
        fields = await read_fields(request, max_items=max_items)
        wanted = _wanted(fields, _texts(fields, settings), settings)
        result = await while_connected(request, service.embed(wanted))
        answer = {
            "model": result.model,
            "space": result.space,
            "dim": result.vectors.shape[1],
            "vectors": to_base64(result.vectors),
            "prompt_tokens": result.prompt_tokens,
            "truncated": result.truncated,
        }
        return json_response(answer, headers=result_headers(result))

    @routes.post(
        "/q3e/model",
        summary="Describe a model, and what the options of an embedding come to for it",
        openapi_extra=body_schema(_OPTIONS, ("model",), {"model": "qwen3-embedding:4b", "kind": "query"}),
    )
    async def describe(request: Request) -> Response:
        wanted = _wanted(await read_fields(request), (), settings)
        described = await while_connected(request, service.describe(wanted))
        facts = asdict(described)
        terms = facts.pop("terms")
        return json_response({**facts, **terms, "max_items": settings.max_items})

    @routes.post(
        "/q3e/tokens",
        summary="Count the tokens of texts as they stand, end token left out",
        openapi_extra=body_schema(_TEXTS, ("model", "texts"), {"model": "demo", "texts": ["a text"]}),
    )
    async def count_tokens(request: Request) -> Response:
        fields = await read_fields(request, max_items=max_items)
        model, texts = _model(fields, settings), _texts(fields, settings)
        return json_response({"counts": await while_connected(request, service.count_tokens(model, texts))})

    @routes.post(
        "/q3e/stop",
        summary="Unload a model, and say whether it was loaded and is gone, as `q3e-local stop` does",
        openapi_extra=body_schema({"model": {"type": "string"}}, ("model",), {"model": "demo"}),
    )
    async def stop(request: Request) -> Response:
        model = _model(await read_fields(request))
        stopped = await while_connected(request, service.stop(model, _WAIT_S))
        return json_response(asdict(stopped))

    return routes


def _model(fields: Fields, settings: ServerSettings | None = None) -> str:
    model = fields.text("model")
    if not model:
        raise BadRequestError("model is required", "model")
    return names.checked(model, settings)


def _texts(fields: Fields, settings: ServerSettings) -> tuple[str, ...]:
    texts = fields.items("texts")
    if not texts:
        raise BadRequestError("texts must be a list with one text or more", "texts")
    hold_to_limit(len(texts), settings.max_items, "texts")
    for text in texts:
        if not isinstance(text, str):
            raise BadRequestError(f"texts must be texts, got {shown(text)}", "texts")
    return tuple(texts)


def _wanted(fields: Fields, texts: tuple[str, ...], settings: ServerSettings) -> ServiceRequest:
    return ServiceRequest(
        _model(fields, settings),
        texts,
        kind=_KINDS[fields.choice("kind", tuple(_KINDS), "document")] if fields.has("kind") else None,
        task=fields.text("task"),
        instruction=fields.text("instruction"),
        dim=fields.integer("dim"),
        truncate=fields.flag("truncate", True),
        max_tokens=fields.integer("max_tokens"),
    )


def failure(request: Request, error: Exception) -> Response:
    """`error`, and what `q3e-local embed` needs to say it as the library would: `index` where it is one text's."""
    status = next((status for of_class, status in _STATUSES if isinstance(error, of_class)), 500)
    message = str(error) if isinstance(error, Q3EError) else "internal error; the server's log says more"
    body: dict[str, Any] = {"error": message}
    if isinstance(error, TextError):
        body = {"error": error.message, "index": error.index}
    elif isinstance(error, OptionError):
        body["option"] = error.option
    elif isinstance(error, ModelNotHereError):
        body["is_known"] = True
    return json_response(body, status, headers=retry_headers(error))
