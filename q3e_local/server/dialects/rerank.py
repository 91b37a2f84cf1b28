"""The rerank routes of Jina, llama-server, vLLM and Cohere, and TEI's, which shares a path with them.

Knows their JSON, all of which one answer serves: their clients ignore what is not theirs. A request with `texts` is
TEI's, one with `documents` anybody else's.
"""

from __future__ import annotations

import uuid
from typing import Any

from starlette.responses import Response

from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.server.dialects import llama_server, ranking, tei
from q3e_local.server.dialects.failures import Failure
from q3e_local.server.dialects.fields import FLAG, Body, Fields
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.dialects.routes import (
    Routes,
    answer_or_fail,
    json_response,
    json_utf8_response,
    rank_headers,
    truncated,
)
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.errors import BadRequestError, EmptyInputError
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings

# The routes whose errors have llama-server's shape, also where a request is turned away before them.
PATHS = ("/v1/rerank", "/rerank", "/reranking", "/v1/reranking")
COHERES_PATH = "/v2/rerank"

_NOT_SUPPORTED = 501  # llama-server's status where the model is no reranker
_COHERES_MAX_TOKENS = 4096  # of a document, where the request does not say

_EXAMPLE = {
    "model": DEFAULT_RERANKER,
    "query": "Which planet is known as the Red Planet?",
    "documents": ["Venus is a twin of Earth.", "Mars is often called the Red Planet."],
}
_RANK = Body(
    {
        "model": ranking.MODEL,
        "query": ranking.QUERY,
        "documents": ranking.DOCUMENTS,
        "top_n": ranking.TOP_N,
        "return_documents": FLAG,
        **ranking.HOW,
        "max_tokens_per_doc": {"type": "integer", "minimum": 1},
    },
    ("query", "documents"),
    _EXAMPLE,
    {**ranking.UNLISTED, **ranking.COHERES, "texts": {}},
)
_TEIS: Body = Body(
    {
        "query": ranking.QUERY,
        "texts": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        "top_n": ranking.TOP_N,
        "truncation_direction": {"type": "string", "enum": ["Right"]},
        "return_text": FLAG,
        "model": ranking.MODEL,
        **ranking.HOW,
    },
    ("query", "texts"),
    unlisted=ranking.UNLISTED,
)
_EITHER = Body(
    {**_RANK.fields, "texts": _TEIS.fields["texts"], "return_text": FLAG},
    ("query",),
    _EXAMPLE,
    {**_RANK.unlisted, "truncation_direction": _TEIS.fields["truncation_direction"]},
)


def routes(
    service: Service, settings: ServerSettings, which: WhichModel, notices: Notices, unknown: Notices
) -> Routes:
    """The routes under /v1 and at the root. `unknown` logs the fields that they do not have."""
    routes = Routes("Rerank", answer_failure, dict.fromkeys(("documents", "texts"), settings.max_items))

    async def rank(path: str, fields: Fields) -> Response:
        if not fields.has("documents") and fields.has("texts"):
            as_tei = _as_tei(service, settings, which, fields.read_as(_TEIS))
            return await answer_or_fail(answer_failure_as_tei, f"POST {path}", as_tei)
        fields.log_unknown(path, unknown)
        answer, headers = await _ranked(service, settings, which, fields.read_as(_RANK), notices)
        return json_utf8_response(answer, headers=headers)

    def serve(path: str, summary: str) -> None:
        @routes.with_body(path, _EITHER, summary)
        async def reranking(fields: Fields) -> Response:
            return await rank(path, fields)

    serve("/v1/rerank", "Order documents by how well they answer a query (Jina, llama-server, vLLM, Cohere's v1)")
    serve("/rerank", "The same; with `texts` as Text Embeddings Inference has it")
    serve("/reranking", "The same")
    serve("/v1/reranking", "The same")
    return routes


def coheres_routes(service: Service, settings: ServerSettings, which: WhichModel, notices: Notices) -> Routes:
    """Cohere's own route, whose clients read its errors in another shape."""
    routes = Routes("Rerank", answer_failure_as_cohere, {"documents": settings.max_items})

    @routes.with_body(COHERES_PATH, _RANK, "The same, as Cohere's clients send it")
    async def rerank(fields: Fields) -> Response:
        answer, headers = await _ranked(
            service, settings, which, fields, notices, version="2", max_tokens=_COHERES_MAX_TOKENS
        )
        return json_response(answer, headers=headers)

    return routes


async def _ranked(
    service: Service,
    settings: ServerSettings,
    which: WhichModel,
    fields: Fields,
    notices: Notices,
    version: str = "1",
    max_tokens: int | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The answer and its headers. `max_tokens` are a document's where the request does not say."""
    query, names = ranking.query(fields), ranking.rank_fields(fields)
    documents = ranking.documents(fields, "documents", settings.max_items, names)
    top_n, raw = ranking.top_n(fields), ranking.is_raw(fields)
    with_documents = fields.flag("return_documents")
    ranking.note_chunks(fields, notices)
    wanted = ranking.wanted(
        fields,
        await which.of(fields, "reranker"),
        query,
        documents,
        fields.integer("max_tokens_per_doc") or max_tokens,
    )
    result = await ranking.ranked(service, wanted)
    results: list[dict[str, Any]] = []
    for place in ranking.best_first(result, top_n, raw=raw):
        results.append({"index": place.index, "relevance_score": place.score})
        if with_documents:
            sent = fields.raw("documents")[place.index]
            results[-1]["document"] = sent if isinstance(sent, dict) else {"text": sent}
    n_tokens = sum(result.prompt_tokens)
    answer = {
        "id": str(uuid.uuid4()),
        "model": fields.text("model") or result.model,
        "object": "list",
        "results": results,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 1}},
        "truncated": truncated(result),
    }
    return answer, rank_headers(result)


async def _as_tei(service: Service, settings: ServerSettings, which: WhichModel, fields: Fields) -> Response:
    query = ranking.query(fields)
    if fields.items("texts") == []:
        raise EmptyInputError("`texts` cannot be empty", "texts")
    texts = ranking.documents(fields, "texts", settings.max_items)
    fields.choice("truncation_direction", "truncation_direction must be Right: texts are cut at their end")
    top_n, raw, with_text = ranking.top_n(fields), ranking.is_raw(fields), fields.flag("return_text")
    wanted = ranking.wanted(fields, await which.of(fields, "reranker"), query, texts)
    result = await ranking.ranked(service, wanted)
    answer: list[dict[str, Any]] = []
    for place in ranking.best_first(result, top_n, raw=raw):
        answer.append({"index": place.index, "score": place.score})
        if with_text:
            answer[-1]["text"] = texts[place.index]
    return json_response(answer, headers=rank_headers(result))


def answer_failure(failure: Failure) -> Response:
    """llama-server's error object for a failure; TEI's where the field is wrong that only TEI's clients send."""
    if isinstance(failure.error, BadRequestError) and failure.error.field == "texts":
        return answer_failure_as_tei(failure)
    if failure.kind != "wrong kind":
        return llama_server.answer_failure(failure)
    error = {"code": _NOT_SUPPORTED, "message": failure.message, "type": "not_supported_error"}
    return json_utf8_response({"error": error}, _NOT_SUPPORTED)


def answer_failure_as_tei(failure: Failure) -> Response:
    """TEI's two fields for a failure, and first TEI's words for a model that is no reranker."""
    if failure.kind == "wrong kind":
        failure = Failure(failure.kind, failure.status, f"model is not a re-ranker model: {failure.message}")
    return tei.answer_failure(failure)


def answer_failure_as_cohere(failure: Failure) -> Response:
    """Cohere's error: a message, under a status that its clients make exceptions of."""
    status = 404 if failure.kind == "model name" else failure.status
    return json_response({"id": str(uuid.uuid4()), "message": failure.message}, status, failure.headers)
