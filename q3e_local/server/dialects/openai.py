"""OpenAI's embeddings and models, with this model's own extras: query or document, instruction, smaller forms.

Knows OpenAI's JSON, and leaves the inputs that only llama-server takes here to mixed_inputs; translates into the
service's request and back.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from q3e_local.embedding.prompts import TASKS
from q3e_local.errors import Q3EError, TextError
from q3e_local.models.installed import Installed
from q3e_local.server.dialects import names, prompt_limit
from q3e_local.server.dialects.failures import Failure
from q3e_local.server.dialects.fields import Body, Fields, Schema
from q3e_local.server.dialects.kinds import KIND, KINDS, kind_of
from q3e_local.server.dialects.mixed_inputs import as_inputs, read_mixed
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.dialects.routes import Routes, embedded, json_response, result_headers, rows, truncated
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.errors import BadRequestError
from q3e_local.server.service import Service, ServiceRequest, ServiceResult
from q3e_local.server.settings import ServerSettings
from q3e_local.vectors import to_base64, to_binary, to_int8

# OpenAI's `type` of an error, where it is not `invalid_request_error`, and its `code`, where there is one.
_TYPES = {
    "queue full": "rate_limit_error",
    "stopping": "service_unavailable",
    "failed": "server_error",
    "unavailable": "server_error",
    "forbidden": "forbidden",
}
_NO_MODEL = "model_not_found"
_CODES = {
    "text too long": "context_length_exceeded",
    "model name": _NO_MODEL,
    "no model": _NO_MODEL,
    "queue full": "rate_limit_exceeded",
    "no key": "invalid_api_key",
}

_FORMS = ("float", "int8", "binary")

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_FIELDS: dict[str, Schema] = {
    "input": {
        "description": "A text, a list of texts, the token ids of one text, or a list of token id lists; and what "
        'llama-server takes: ids and texts mixed, `{"prompt_string": ...}`, `{"content": [...]}`',
        "oneOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            _IDS,
            {"type": "array", "items": _IDS, "minItems": 1},
            {"type": "object"},
        ],
    },
    "model": {
        "type": "string",
        "description": "A name as in `/v1/models`; with `-query` behind it, texts are queries. "
        "Left out: the first embedding model named at the start, else one that is loaded, else the default",
    },
    "encoding_format": {"type": "string", "enum": ["float", "base64"]},
    "dimensions": {"type": "integer", "minimum": 1, "description": "MRL: the first numbers, scaled to length 1"},
    "user": {"type": "string", "description": "Ignored"},
    "input_type": KIND,
    "prompt_name": KIND,
    "instruction": {"type": "string", "description": "The task in your own words, put before every text"},
    "task": {
        "type": "string",
        "enum": [*TASKS, *KINDS],
        "description": "A named instruction; or the kind of the texts, as in input_type",
    },
    "truncate": {"type": "boolean", "default": True, "description": "Cut texts that are too long, and say which"},
    "embedding_types": {
        "type": "array",
        "items": {"type": "string", "enum": list(_FORMS)},
        "description": "Each embedding is then an object of lists, whatever encoding_format says: `float`; `int8` "
        "with `int8_scale` (float = int8 * int8_scale); `binary`, eight numbers to an unsigned byte",
    },
    "pooling_method": {"type": "string", "enum": ["last"]},
    **prompt_limit.FIELDS,
}
EMBED = Body(_FIELDS, ("input",), {"model": "qwen3-embedding:4b", "input": ["a text", "another"], "dimensions": 256})


class Embeddings:
    """The answer to an embeddings request, which the log explains once where a client may expect another."""

    def __init__(self, service: Service, settings: ServerSettings, which: WhichModel, notices: Notices) -> None:
        self._service, self._settings, self._which, self._notices = service, settings, which, notices

    async def answer(self, path: str, fields: Fields) -> Response:
        """Embed the inputs of a request to this path. `model` in the answer is the name that was sent, else its own.

        Raises BadRequestError, InvalidNameError, and what Service.embed raises.
        """
        mixed = read_mixed(fields.raw("input"), "input", self._settings.max_items)
        forms, encoding = _forms(fields), fields.choice("encoding_format")
        model = await self._which.of(fields)
        wanted = _wanted(fields, model)
        inputs = await as_inputs(self._service, model, mixed)
        result = await embedded(self._service, replace(wanted, inputs=tuple(inputs)))
        if not all(isinstance(each, str) for each in mixed):
            self._notices.once(
                f"token ids were sent to {path}: they are read as ids of {result.model}'s vocabulary; "
                "ids of another vocabulary give vectors without meaning. LangChain's OpenAIEmbeddings sends such ids "
                "unless it is made with check_embedding_ctx_length=False",
                logging.WARNING,
            )
        return await _answer(result, fields.text("model") or result.model, forms, encoding)


def routes(embeddings: Embeddings, settings: ServerSettings, unknown: Notices) -> Routes:
    """The routes under /v1. `unknown` logs the fields that they do not have."""
    routes = Routes("OpenAI", answer_failure, {"input": settings.max_items})

    @routes.with_body("/v1/embeddings", EMBED, "Embed texts or token ids")
    async def embed(fields: Fields) -> Response:
        fields.log_unknown("/v1/embeddings", unknown)
        return await embeddings.answer("/v1/embeddings", fields)

    @routes.get("/v1/models", "The models on this machine")
    async def models(request: Request) -> Response:
        here = await asyncio.to_thread(names.listed, settings)
        data = await asyncio.to_thread(lambda: [model_object(names.short_form(name), model) for name, model in here])
        return json_response({"object": "list", "data": data})

    @routes.get("/v1/models/{model:path}", "One model")
    async def model(request: Request) -> Response:
        name = request.path_params["model"]
        here = await asyncio.to_thread(names.here, names.checked(name, settings), settings)
        return json_response(await asyncio.to_thread(model_object, name, here))

    return routes


def _wanted(fields: Fields, model: str) -> ServiceRequest:
    """The service's request, with every field of OpenAI's and of ours but the inputs."""
    instruction = fields.text("instruction")
    if instruction is not None and not instruction.strip():
        raise BadRequestError("instruction is empty; leave it out to get the default", "instruction")
    task = fields.choice(
        "task",
        f"unknown task; choose from {', '.join(TASKS)}, or give an instruction; or say what the texts are: "
        f"{', '.join(KINDS)}",
    )
    kind = kind_of(fields, "input_type", "prompt_name", "task")
    task = None if task in KINDS else task
    if task is not None and instruction is not None:
        raise BadRequestError("give a task or an instruction, not both", "instruction")
    fields.choice(
        "pooling_method",
        "pooling_method must be 'last': this model was trained to put a text's meaning into its last token, so "
        "every other pooling gives wrong vectors",
    )
    return ServiceRequest(
        model,
        (),
        kind=kind,
        task=task,
        instruction=instruction,
        dim=fields.integer("dimensions"),
        truncate=fields.flag("truncate"),
        max_tokens=prompt_limit.max_tokens(fields),
    )


def answer_failure(failure: Failure) -> Response:
    """OpenAI's error object for a failure."""
    status = 404 if failure.kind == "model name" else failure.status
    code, param = _CODES.get(failure.kind), None
    if isinstance(failure.error, BadRequestError):
        param = failure.error.field
    elif isinstance(failure.error, TextError):
        param = "input"
    elif code == _NO_MODEL:
        param = "model"
    body = error_object(failure.message, _TYPES.get(failure.kind, "invalid_request_error"), param, code)
    return json_response(body, status, failure.headers)


def error_object(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """OpenAI's error object, all four keys present."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model_object(name: str, model: Installed) -> dict[str, Any]:
    """OpenAI's object for a model under this name, and what it is for and can read at once.

    The last two are left out for a file that cannot be read.
    """
    shown: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": int(model.path.stat().st_mtime),
        "owned_by": name.rpartition("/")[0].rpartition("/")[2] or "library",
    }
    with suppress(Q3EError, OSError):
        facts = names.described(model)
        shown |= {"type": names.label(facts.kind), "max_model_len": facts.n_ctx_train}
    return shown


def _forms(fields: Fields) -> tuple[str, ...]:
    forms = fields.items("embedding_types")
    if forms is None:
        return ()
    if not forms or any(form not in _FORMS for form in forms):
        raise BadRequestError(f"embedding_types must be a list of {', '.join(_FORMS)}", "embedding_types")
    return tuple(dict.fromkeys(forms))


async def _answer(result: ServiceResult, model: str, forms: tuple[str, ...], encoding: str | None) -> Response:
    n_tokens = sum(result.prompt_tokens)
    embeddings: list[Any]
    if forms:
        embeddings = await _in_forms(result, forms)
    elif encoding == "base64":
        embeddings = [to_base64(row) for row in result.vectors]
    else:
        embeddings = list(await rows(result.vectors))
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(embeddings)],
        "model": model,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        "space": result.space,
        "truncated": truncated(result),
    }
    return json_response(answer, headers=result_headers(result))


async def _in_forms(result: ServiceResult, forms: tuple[str, ...]) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {}
    for form in forms:
        if form == "float":
            columns["float"] = list(await rows(result.vectors))
        elif form == "int8":
            codes, scales = to_int8(result.vectors)
            columns |= {"int8": list(codes), "int8_scale": list(scales[:, 0])}
        else:
            columns["binary"] = list(to_binary(result.vectors))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
