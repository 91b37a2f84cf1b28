"""The application: all dialects' routes, and an answer in the right shape for a path or a method there is not.

Knows which dialect a path belongs to; nothing of models. Limits, keys and logs are put around it by others.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from q3e_local import __version__
from q3e_local.server.dialects import llama_server, ollama, openai, q3e, q3e_search, tei
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.http.docs import add_docs
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.service import Service
from q3e_local.server.settings import ServerSettings

_DESCRIPTION = (
    "Qwen3-Embedding on this machine, for the clients of Ollama, OpenAI, llama-server and Text Embeddings Inference. "
    "Every answer with vectors says in its headers which space they live in (`x-q3e-space`), how many tokens were "
    "read (`x-q3e-prompt-tokens`), and which inputs were cut (`x-q3e-truncated`, places counted from 0). "
    "Counters for Prometheus are at `/metrics`. A server that asks for a key asks for it everywhere but at `/health`."
)


def create_app(service: Service, settings: ServerSettings, indexes: Indexes) -> FastAPI:
    """All routes on one service and on the indexes that are open."""
    # The usual pages load their scripts from another server; add_docs has one that needs no network.
    app = FastAPI(title="q3e-local", version=__version__, description=_DESCRIPTION, docs_url=None, redoc_url=None)
    notices = Notices()
    which = WhichModel(service, settings, notices)
    embeddings = openai.Embeddings(service, settings, which, notices)
    for routes in (
        ollama.router(service, settings),
        openai.router(embeddings, settings),
        llama_server.router(service, settings, which, embeddings),
        tei.router(service, settings, which),
        q3e.router(service, settings),
        q3e_search.router(service, indexes),
    ):
        app.include_router(routes)
    add_docs(app, settings)
    app.add_exception_handler(HTTPException, _no_route)
    return app


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405 as the family of the path has them."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    wrong_method = error.status_code == 405
    if request.url.path.startswith("/v1/"):
        message = f"{request.method} {request.url.path} is not served here; /docs lists what is"
        kind, code = "invalid_request_error", "method_not_allowed" if wrong_method else "unknown_url"
        return openai.error_response(error.status_code, message, kind, None, code, headers)
    text = "405 method not allowed" if wrong_method else "404 page not found"
    return PlainTextResponse(text, error.status_code, headers)
