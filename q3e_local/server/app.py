"""The application: all dialects' routes, and an answer in the right shape where no route answers.

Knows which dialect a path belongs to; nothing of models. Limits, keys and logs are put around it by `run`.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from q3e_local import __version__
from q3e_local.server.assistants.http import PATH, Endpoint
from q3e_local.server.assistants.tools import Tools
from q3e_local.server.dialects import (
    llama_server,
    ollama,
    openai,
    openapi,
    q3e,
    q3e_catalog,
    q3e_index,
    q3e_search,
    rerank,
    score,
    tei,
)
from q3e_local.server.dialects.failures import Failure, FailureKind
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.dialects.openapi import DocumentedRoute
from q3e_local.server.dialects.routes import Wording, json_response
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.http.docs import docs_routes
from q3e_local.server.http.metrics import Metrics
from q3e_local.server.http.page import page_routes
from q3e_local.server.http.refusal import Refusal
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings

_DESCRIPTION = (
    "Qwen3-Embedding and Qwen3-Reranker on this machine, for the clients of Ollama, OpenAI, llama-server, Text "
    "Embeddings Inference, Jina, Cohere and vLLM. Every answer with vectors or scores says in its headers how many "
    "tokens were read (`x-q3e-prompt-tokens`), which inputs were cut (`x-q3e-truncated`, places counted from 0), and "
    "of vectors which space they live in (`x-q3e-space`). "
    "Counters for Prometheus are at `/metrics`. A server that asks for a key asks for it everywhere but at `/health` "
    "and for the page at `/ui`."
)

# Kinds of failures, by the statuses of requests that are refused before a route.
_REFUSED: dict[int, FailureKind] = {401: "no key", 403: "forbidden", 503: "unavailable"}


def create_app(
    service: Service, settings: ServerSettings, indexes: Indexes, metrics: Metrics | None = None
) -> Starlette:
    """All routes on one service and on the indexes that are open; with `metrics` a route for these too."""
    notices, unknown = Notices(), Notices()
    which = WhichModel(service, settings, notices)
    embeddings = openai.Embeddings(service, settings, which, notices)
    dialects = (
        ollama.routes(service, settings, unknown),
        openai.routes(embeddings, settings, unknown),
        llama_server.routes(service, settings, which, embeddings),
        tei.routes(service, settings, which),
        rerank.routes(service, settings, which, notices, unknown),
        rerank.coheres_routes(service, settings, which, notices),
        score.routes(service, settings, which),
        q3e.routes(service, settings),
        q3e_catalog.routes(),
        q3e_search.routes(service, indexes, which, unknown),
        q3e_index.routes(service, settings, indexes, unknown),
    )
    routes = [route for dialect in dialects for route in dialect.all]
    document = openapi.document(routes, "q3e-local", __version__, _DESCRIPTION)
    # Without GET: no message goes to an assistant that has not asked.
    routes.append(
        DocumentedRoute(PATH, Endpoint(Tools(service, indexes, settings), settings.max_body_bytes), ("POST",))
    )
    if metrics is not None:
        routes.append(DocumentedRoute("/metrics", metrics.answer, ("GET",)))
    return Starlette(
        routes=[*page_routes(), *routes, *docs_routes(document, settings)],
        exception_handlers={HTTPException: _no_route},
    )


def refusal_body(path: str, refusal: Refusal) -> bytes:
    """The error of a request that was refused before its route, as clients of this path read it."""
    kind = _REFUSED.get(refusal.status, "other")
    return bytes(_wording(path)(Failure(kind, refusal.status, refusal.message)).body)


def _wording(path: str) -> Wording:
    if path in rerank.PATHS:
        return rerank.answer_failure
    if path == rerank.COHERES_PATH:
        return rerank.answer_failure_as_cohere
    if path in score.PATHS:
        return score.answer_failure
    if path in llama_server.PATHS:
        return llama_server.answer_failure
    if path in tei.PATHS:
        return tei.answer_failure
    return openai.answer_failure if path.startswith("/v1/") else ollama.answer_failure


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405 as the family of the path has them."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    wrong_method = error.status_code == 405
    if request.url.path.startswith("/v1/"):
        message = f"{request.method} {request.url.path} is not served here; /docs lists what is"
        code = "method_not_allowed" if wrong_method else "unknown_url"
        body = openai.error_object(message, "invalid_request_error", None, code)
        return json_response(body, error.status_code, headers)
    text = "405 method not allowed" if wrong_method else "404 page not found"
    return PlainTextResponse(text, error.status_code, headers)
