"""Our own routes over indexes, under /api: what `q3e-local search --json` finds, for programs.

Knows their JSON, with errors as the other routes under /api have them; nothing of how a search is done.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from q3e_local.embedding.prompts import TASKS, Prompts
from q3e_local.errors import InvalidTextError, OptionError, SpaceMismatchError, TextTooLongError
from q3e_local.reading.globs import pattern
from q3e_local.search.database.records import Filters
from q3e_local.search.dates import moment
from q3e_local.search.hits import MODES, Mode, as_record
from q3e_local.server.dialects import ollama
from q3e_local.server.dialects.body import BadRequestError, Fields, read_fields
from q3e_local.server.dialects.ignored import Ignored
from q3e_local.server.dialects.keep_alive import keep_alive_s
from q3e_local.server.dialects.routes import body_schema, result_headers, retry_headers, route_class, while_connected
from q3e_local.server.errors import IndexUnusableError, RebuiltError, UnknownIndexError
from q3e_local.server.local.index_search import SearchRequest, SearchResult, search
from q3e_local.server.local.indexes import Index, Indexes
from q3e_local.server.service import Service

K_MAX, K = 100, 5
# Words have no context that bounds them. As long as any question, and looked up in milliseconds.
QUERY_CHARACTERS_MAX = 20_000
_GLOB_CHARACTERS_MAX = 1_000

# Beside those of the other routes under /api.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (UnknownIndexError, 404),
    (SpaceMismatchError, 409),
    (IndexUnusableError, 503),
    (RebuiltError, 503),
)
_SCHEMA: dict[str, Any] = {
    "query": {"type": "string", "minLength": 1, "maxLength": QUERY_CHARACTERS_MAX},
    "index": {"type": "string", "description": "A name as in /api/indexes; needed where there are several"},
    "k": {"type": "integer", "minimum": 1, "maximum": K_MAX, "default": K},
    "mode": {
        "type": "string",
        "enum": list(MODES),
        "default": "auto",
        "description": "By meaning, by words (which needs no model), or by both; auto is by both where words help",
    },
    "exact": {"type": "boolean", "default": False, "description": "Compare all full vectors, not a shortlist"},
    "path": {"type": "string", "maxLength": _GLOB_CHARACTERS_MAX, "description": "Only files like notes/** or *.md"},
    "since": {"type": "string", "description": "Only what changed since: 2026-11-01, or 12h, 7d, 2w, 3m, 1y ago"},
    "task": {"type": "string", "enum": list(TASKS), "description": "A named instruction for the query"},
    "instruction": {"type": "string", "description": "An instruction of your own instead"},
    "keep_alive": ollama.KEEP_ALIVE,
    "text": {"type": "boolean", "default": True, "description": "Whether hits come with their passages"},
}


def router(service: Service, indexes: Indexes) -> APIRouter:
    """/api/search and /api/indexes."""
    routes = APIRouter(route_class=route_class(failure), tags=["Search"])
    ignored = Ignored()
    example = {"query": "What did we decide about the budget?", "index": next(iter(indexes.names), "default")}

    @routes.post(
        "/api/search",
        summary="Find passages in an index that the server was started with",
        openapi_extra=body_schema(_SCHEMA, ("query",), example),
        include_in_schema=bool(indexes.names),
    )
    async def find(request: Request) -> Response:
        fields = await read_fields(request)
        ignored.tell(fields, "/api/search", _SCHEMA)
        index = indexes.get(fields.text("index"))
        wanted, with_text = _request(fields), fields.flag("text", True)
        result = await while_connected(request, search(service, index, wanted))
        return ollama.answer(_body(index, result, with_text), headers=_headers(result))

    @routes.get("/api/indexes", summary="The indexes that /api/search knows, and what is in them")
    async def listed() -> Response:
        return ollama.answer({"indexes": await asyncio.gather(*map(_described, indexes))})

    return routes


def failure(request: Request, error: Exception) -> Response:
    """Ollama's error object for an exception."""
    for of_class, status in _STATUSES:
        if isinstance(error, of_class):
            return ollama.answer({"error": str(error)}, status, retry_headers(error))
    if isinstance(error, (TextTooLongError, InvalidTextError)):  # it is the only text
        return ollama.answer({"error": f"query {error.message}"}, 400)
    return ollama.failure(request, error)


def _request(fields: Fields) -> SearchRequest:
    query = fields.content("query")
    if query is None or not query.strip():
        raise BadRequestError("query is required, a text", "query")
    k = fields.integer("k")
    if k is not None and not 1 <= k <= K_MAX:
        raise BadRequestError(f"k must be between 1 and {K_MAX}, got {k}", "k")
    task, instruction, path = fields.text("task"), fields.text("instruction"), fields.text("path")
    # What is wrong is said in every mode, and before a model is loaded.
    Prompts().prefix("query", task, instruction)
    for name, text, limit in (("query", query, QUERY_CHARACTERS_MAX), ("path", path, _GLOB_CHARACTERS_MAX)):
        if text is not None and len(text) > limit:
            raise BadRequestError(f"{name} has {len(text)} characters, the limit is {limit}", name)
    if path is not None:
        pattern(path)
    return SearchRequest(
        query,
        K if k is None else k,
        cast(Mode, fields.choice("mode", MODES, "auto")),
        fields.flag("exact", False),
        Filters(path, _since(fields.text("since"))),
        task,
        instruction,
        keep_alive_s(fields.raw("keep_alive")),
    )


def _since(text: str | None) -> float | None:
    try:
        return None if text is None else moment(text).timestamp()
    except OptionError as error:
        raise BadRequestError(f"since: {error}", "since") from None


def _body(index: Index, result: SearchResult, with_text: bool) -> dict[str, Any]:
    hits = [as_record(hit) for hit in result.found.hits]
    if not with_text:
        for hit in hits:
            del hit["text"]
    return {
        "index": index.name,
        "model": result.model,
        "space": result.space.name or None,
        "mode": result.found.mode,
        "hits": hits,
        "explained": result.found.explained,
    }


def _headers(result: SearchResult) -> dict[str, str]:
    """Those of an embedding answer, as the query was embedded; but for the space, which is that of the hits."""
    space = {"x-q3e-space": result.space.name} if result.space.name else {}
    return (result_headers(result.embedded) if result.embedded else {}) | space


async def _described(index: Index) -> dict[str, Any]:
    try:
        facts = await index.facts()
    except IndexUnusableError as error:
        return {"name": index.name, "error": str(error)}
    made = index.made
    return {
        "name": index.name,
        "model": made.model,
        "space": made.space.name or None,
        "dim": made.space.dim,
        "files": facts.n_files,
        "chunks": facts.n_chunks,
        "changed_at": facts.changed_at,
    }
