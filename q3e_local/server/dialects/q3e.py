"""Routes under /q3e for the command line, which needs more than any other dialect has.

`/q3e/embed` answers vectors as they are in memory (base64 of little-endian float32 rows), the tokens of each text and
whether the text was cut, and which text failed; `/q3e/rank` answers a logit for each text in place of its vector.
`/q3e/model` describes a model and what options come to for it, `/q3e/tokens` counts tokens, `/q3e/seen` shows those
of a text as the model reads them, and `/q3e/stop` says whether a model was loaded and has left the memory.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from starlette.responses import Response

from q3e_local.embedding.prompts import Kind
from q3e_local.errors import ModelNotHereError, OptionError, TextError, WrongKindError
from q3e_local.jobs.inspecting import written
from q3e_local.server.dialects import names, ranking
from q3e_local.server.dialects.body import hold_to_limit
from q3e_local.server.dialects.failures import Failure
from q3e_local.server.dialects.fields import TEXT, Body, Fields, Schema, shown
from q3e_local.server.dialects.routes import Routes, json_response, pieces, rank_headers, result_headers
from q3e_local.server.errors import BadRequestError
from q3e_local.server.service import RankServiceRequest, Service, ServiceRequest
from q3e_local.server.settings import ServerSettings
from q3e_local.vectors import to_base64

_WAIT_S = 5.0  # for a model at work; a client that wants to wait longer sends the request again
# The limits of a model's numbers are the model's, which the service knows.
_OPTIONS: dict[str, Schema] = {
    "model": TEXT,
    "kind": {"type": "string", "enum": ["query", "document"]},
    "task": TEXT,
    "instruction": TEXT,
    "dim": {"type": "integer"},
    "truncate": {"type": "boolean", "default": True},
    "max_tokens": {"type": "integer"},
}
_TEXTS: dict[str, Schema] = {"model": TEXT, "texts": {"type": "array", "items": {"type": "string"}, "minItems": 1}}
_EMBED = Body(_TEXTS | _OPTIONS, ("model", "texts"), {"model": "qwen3-embedding:4b", "texts": ["a text"]})
_DESCRIBE = Body(_OPTIONS, ("model",), {"model": "qwen3-embedding:4b", "kind": "query"})
_TOKENS = Body(_TEXTS, ("model", "texts"), {"model": "demo", "texts": ["a text"]})
_RANK = Body(
    {
        "model": TEXT,
        "query": ranking.QUERY,
        "texts": {"type": "array", "items": {"type": "string"}, "description": "None: only the options are checked"},
        "task": TEXT,
        "instruction": TEXT,
        "truncate": ranking.TRUNCATE,
        "max_tokens": {"type": "integer"},
        "max_document_tokens": {"type": "integer", "minimum": 1},
    },
    ("model", "query", "texts"),
    {"model": "demo-reranker", "query": "who fed the cat?", "texts": ["The neighbour fed the cat."]},
)
_SHOWN, _SHOWN_MAX = 2_000, 10_000  # tokens of an answer: about 500 kB
_SEEN = Body(
    {
        **_OPTIONS,
        "text": TEXT,
        "shown": {
            "type": "integer",
            "minimum": 0,
            "maximum": _SHOWN_MAX,
            "default": _SHOWN,
            "description": "How many tokens are answered, from the first",
        },
    },
    ("model", "text"),
    {"model": "demo", "text": "a text", "kind": "query"},
)
_STOP = Body({"model": TEXT}, ("model",), {"model": "demo"})


def routes(service: Service, settings: ServerSettings) -> Routes:
    """The routes under /q3e."""
    routes = Routes("q3e-local", answer_failure, {"texts": settings.max_items})

    @routes.with_body("/q3e/embed", _EMBED, "Embed texts, as `q3e-local embed --server` does")
    async def embed(fields: Fields) -> Response:
        wanted = _wanted(fields, _texts(fields, settings), settings)
        result = await service.embed(wanted)
        answer = {
            "model": result.model,
            "space": result.space,
            "dim": result.vectors.shape[1],
            "vectors": to_base64(result.vectors),
            "prompt_tokens": result.prompt_tokens,
            "truncated": result.truncated,
        }
        return json_response(answer, headers=result_headers(result))

    @routes.with_body("/q3e/rank", _RANK, "Read a question with texts, as `q3e-local rerank --server` does")
    async def rank(fields: Fields) -> Response:
        result = await service.rank(_wanted_ranks(fields, settings))
        answer = {
            "model": result.model,
            "logits": result.logits,
            "prompt_tokens": result.prompt_tokens,
            "truncated": result.truncated,
            "max_items": settings.max_items,
        }
        return json_response(answer, headers=rank_headers(result))

    @routes.with_body(
        "/q3e/model", _DESCRIBE, "Describe a model, and what the options of an embedding come to for it"
    )
    async def describe(fields: Fields) -> Response:
        described = await service.describe(_wanted(fields, (), settings))
        facts = asdict(described)
        resolved = facts.pop("resolved")
        return json_response({**facts, **resolved, "max_items": settings.max_items})

    @routes.with_body("/q3e/tokens", _TOKENS, "Count the tokens of texts as they stand, end token left out")
    async def count_tokens(fields: Fields) -> Response:
        model, texts = _model(fields, settings), _texts(fields, settings)
        return json_response({"counts": await service.count_tokens(model, texts)})

    @routes.with_body("/q3e/seen", _SEEN, "The tokens of one text as the model reads them, and which are cut")
    async def seen(fields: Fields) -> Response:
        text, n_shown = fields.content("text"), fields.integer("shown")
        if text is None:
            raise BadRequestError("text is required", "text")
        described = await service.describe(_wanted(fields, (), settings))
        prefix, limit = described.resolved.prefix, described.resolved.limit
        ids = await service.tokenize(described.model, prefix + text, add_end_token=True)
        # The end token always stays: the embedding is its vector.
        n_kept = min(len(ids), limit) - 1
        first = ids[:-1][: _SHOWN if n_shown is None else n_shown]
        *texts, end = await pieces(service, described.model, [*first, ids[-1]])
        answer = {
            "model": described.model,
            "prefix": prefix,
            "limit": limit,
            "n_tokens": len(ids),
            "n_kept": n_kept + 1,
            "tokens": [{"id": id_, "piece": written(piece)} for id_, piece in zip(first, texts, strict=True)],
            "end": {"id": ids[-1], "piece": written(end)},
        }
        return json_response(answer)

    @routes.with_body(
        "/q3e/stop", _STOP, "Unload a model, and say whether it was loaded and is gone, as `q3e-local stop` does"
    )
    async def stop(fields: Fields) -> Response:
        stopped = await service.stop(_model(fields), _WAIT_S)
        return json_response(asdict(stopped))

    return routes


def _model(fields: Fields, settings: ServerSettings | None = None) -> str:
    model = fields.text("model")
    if not model:
        raise BadRequestError("model is required", "model")
    return names.checked(model, settings)


def _texts(fields: Fields, settings: ServerSettings) -> tuple[str, ...]:
    if not (texts := fields.items("texts")):
        raise BadRequestError("texts must be a list with one text or more", "texts")
    return _checked(texts, settings)


def _checked(texts: list[Any], settings: ServerSettings) -> tuple[str, ...]:
    """The texts of a list. Raises BadRequestError for what is none, and for too many."""
    hold_to_limit(len(texts), settings.max_items, "texts")
    for text in texts:
        if not isinstance(text, str):
            raise BadRequestError(f"texts must be texts, got {shown(text)}", "texts")
    return tuple(texts)


def _wanted(fields: Fields, texts: tuple[str, ...], settings: ServerSettings) -> ServiceRequest:
    return ServiceRequest(
        _model(fields, settings),
        texts,
        kind=cast(Kind | None, fields.choice("kind")),
        task=fields.text("task"),
        instruction=fields.text("instruction"),
        dim=fields.integer("dim"),
        truncate=fields.flag("truncate"),
        max_tokens=fields.integer("max_tokens"),
    )


def _wanted_ranks(fields: Fields, settings: ServerSettings) -> RankServiceRequest:
    if (texts := fields.items("texts")) is None:
        raise BadRequestError("texts must be a list of texts", "texts")
    documents = _checked(texts, settings)
    return RankServiceRequest(
        _model(fields, settings),
        ranking.query(fields),
        documents,
        task=fields.text("task"),
        instruction=fields.text("instruction"),
        truncate=fields.flag("truncate"),
        max_tokens=fields.integer("max_tokens"),
        max_document_tokens=fields.integer("max_document_tokens"),
    )


def answer_failure(failure: Failure) -> Response:
    """`error`, with the parts from which `q3e-local embed --server` makes the library's error again."""
    body: dict[str, Any] = {"error": failure.message}
    if isinstance(failure.error, TextError):
        body = {"error": failure.error.message, "index": failure.error.index}
    elif isinstance(failure.error, OptionError):
        body["option"] = failure.error.option
    elif isinstance(failure.error, ModelNotHereError):
        body["is_known"] = True
    elif isinstance(failure.error, WrongKindError):
        body["is_of_another_kind"] = True
    return json_response(body, failure.status, failure.headers)
