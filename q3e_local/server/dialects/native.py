"""Our own routes, for `q3e-local embed --server` and `stop`: what the command line shows that no other dialect has.

Tokens and truncation of each text, which text failed, texts that are empty, a limit of tokens; vectors as they are in
memory, base64 of little-endian float32 rows. And whether a model was loaded, and is really gone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from q3e_local.errors import ModelNotHereError, OptionError, Q3EError, TextError, UnknownModelError
from q3e_local.prompts import Kind
from q3e_local.server.dialects import names
from q3e_local.server.dialects.body import BadRequestError, hold_to_limit, read_fields, shown
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
_SCHEMA: dict[str, Any] = {
    "model": {"type": "string"},
    "texts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    "kind": {"type": "string", "enum": list(_KINDS)},
    "task": {"type": "string"},
    "instruction": {"type": "string"},
    "dim": {"type": "integer", "minimum": 32},
    "truncate": {"type": "boolean", "default": True},
    "max_tokens": {"type": "integer", "minimum": 1},
}


def router(service: Service, settings: ServerSettings) -> APIRouter:
    """The routes under /q3e."""
    routes = APIRouter(route_class=route_class(failure), tags=["q3e-local"])

    @routes.post(
        "/q3e/embed",
        summary="Embed texts, as q3e-local embed --server does",
        openapi_extra=body_schema(_SCHEMA, ("model", "texts"), {"model": "qwen3-embedding:4b", "texts": ["a text"]}),
    )
    async def embed(request: Request) -> Response:
        fields = await read_fields(request, max_items={"texts": settings.max_items})
        model, texts = fields.text("model"), fields.items("texts")
        if not model:
            raise BadRequestError("model is required", "model")
        if not texts:
            raise BadRequestError("texts must be a list with one text or more", "texts")
        hold_to_limit(len(texts), settings.max_items, "texts")
        for text in texts:
            if not isinstance(text, str):
                raise BadRequestError(f"texts must be texts, got {shown(text)}", "texts")
        kind = _KINDS[fields.choice("kind", tuple(_KINDS), "document")] if fields.has("kind") else None
        wanted = ServiceRequest(
            names.checked(model, settings),
            tuple(texts),
            kind=kind,
            task=fields.text("task"),
            instruction=fields.text("instruction"),
            dim=fields.integer("dim"),
            truncate=fields.flag("truncate", True),
            max_tokens=fields.integer("max_tokens"),
        )
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
        "/q3e/stop",
        summary="Unload a model, and say whether it was loaded and is gone, as q3e-local stop does",
        openapi_extra=body_schema({"model": {"type": "string"}}, ("model",), {"model": "demo"}),
    )
    async def stop(request: Request) -> Response:
        model = (await read_fields(request)).text("model")
        if not model:
            raise BadRequestError("model is required", "model")
        stopped = await while_connected(request, service.stop(names.checked(model), _WAIT_S))
        return json_response(asdict(stopped))

    return routes


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
