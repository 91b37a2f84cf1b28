"""/api/search and /api/indexes: the results of `q3e-local search --json`, for programs.

Knows their JSON, with errors as the other routes under /api have them; nothing of how a search is done.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from q3e_local.embedding.prompts import TASKS, Prompts
from q3e_local.errors import InvalidTextError, OptionError, TextTooLongError
from q3e_local.reading.globs import pattern
from q3e_local.search.ask import Question
from q3e_local.search.best_sentence import Best
from q3e_local.search.database.records import Filters
from q3e_local.search.dates import moment
from q3e_local.search.hits import MODES, Mode, as_record
from q3e_local.search.reranked import N_CANDIDATES, check_candidates, check_seconds
from q3e_local.server.dialects import ollama
from q3e_local.server.dialects.failures import Failure
from q3e_local.server.dialects.fields import KEEP_ALIVE, Body, Fields, Schema, shown
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.dialects.routes import Routes, json_utf8_response, result_headers
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.errors import BadRequestError, IndexUnusableError
from q3e_local.server.local.best_sentences import search_with_best
from q3e_local.server.local.index_search import Reranking, SearchResult, search
from q3e_local.server.local.indexes import TEXT_MAX, Index, Indexes
from q3e_local.server.service import Service, ServiceRequest

K_MAX, K = 100, 5
# A search by words has no context length that bounds the query. This is longer than any question, and is looked up
# in milliseconds.
QUERY_CHARACTERS_MAX = 20_000
_GLOB_CHARACTERS_MAX = 1_000

_FIELDS: dict[str, Schema] = {
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
    "rerank": {
        "oneOf": [{"type": "integer", "minimum": 1, "maximum": K_MAX}, {"type": "boolean"}],
        "description": f"How many of the first hits a reranker reads and orders; true: {N_CANDIDATES}",
    },
    "reranker": {
        "type": "string",
        "description": "The reranker's name; left out, the one that answers at `/v1/rerank` when no model is named",
    },
    "rerank_seconds": {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "After this time no more hits are read, and the rest keeps its order; loading does not count",
    },
    "keep_alive": KEEP_ALIVE,
    "text": {
        "type": "boolean",
        "default": True,
        "description": f"Whether hits come with their passages, {TEXT_MAX:,} characters of each at most",
    },
    "best": {
        "type": "boolean",
        "default": False,
        "description": "Whether hits say which characters of the passage are the sentence that answers best",
    },
}


def routes(service: Service, indexes: Indexes, which: WhichModel, unknown: Notices) -> Routes:
    """/api/search and /api/indexes. `unknown` logs the fields that they do not have."""
    routes = Routes("Search", answer_failure)
    example = {"query": "What did we decide about the budget?", "index": next(iter(indexes.names), "default")}
    body = Body(_FIELDS, ("query",), example)
    # /openapi.json shows the route only where there is something to search.
    summary = "Find passages in an index that the server was started with" if indexes.names else ""

    @routes.with_body("/api/search", body, summary)
    async def find(fields: Fields) -> Response:
        fields.log_unknown("/api/search", unknown)
        index = indexes.get(fields.text("index"))
        question, query = _read(fields)
        reranking = await _reranking(fields, which)
        best: list[Best | None] | None = None
        if fields.flag("best"):
            result, best = await search_with_best(service, index, question, query, reranking)
        else:
            result = await search(service, index, question, query, reranking)
        return json_utf8_response(_body(index, result, fields.flag("text"), best), headers=_headers(result))

    @routes.get("/api/indexes", "The indexes that /api/search knows, and what is in them")
    async def listed(request: Request) -> Response:
        return json_utf8_response({"indexes": await asyncio.gather(*map(described, indexes))})

    return routes


def answer_failure(failure: Failure) -> Response:
    """Ollama's error object for a failure."""
    if isinstance(failure.error, (TextTooLongError, InvalidTextError)):  # the query is the only text
        return json_utf8_response({"error": f"query {failure.error.message}"}, failure.status)
    return ollama.answer_failure(failure)


def _read(fields: Fields) -> tuple[Question, ServiceRequest]:
    """The question without its vector, and what to embed for that; the index knows with which model."""
    text = fields.text("query")
    if text is None or not text.strip():
        raise BadRequestError("query is required, a text", "query")
    k = fields.integer("k")
    task, instruction = fields.text("task"), fields.text("instruction")
    # A wrong task is refused in every mode, and before a model is loaded.
    Prompts().prefix("query", task, instruction)
    path = fields.text("path")
    if path is not None:
        pattern(path)  # raises OptionError for a wrong pattern, before a model is loaded
    mode, filters = cast(Mode, fields.choice("mode")), Filters(path, since_of(fields.text("since")))
    question = Question(text, None, K if k is None else k, mode, fields.flag("exact"), filters)
    keep = fields.keep_alive_s()
    return question, ServiceRequest(
        "", (text,), kind="query", task=task, instruction=instruction, truncate=False, keep_alive_s=keep
    )


async def _reranking(fields: Fields, which: WhichModel) -> Reranking | None:
    """The second stage that is asked for.

    Raises BadRequestError, and ModelNotHereError where no reranker is named and the server has none of its own.
    """
    n, model, seconds = fields.raw("rerank"), fields.text("reranker") or None, fields.raw("rerank_seconds")
    try:
        n_candidates = check_candidates(n, K_MAX, shown)
        check_seconds(seconds, shown)
    except OptionError as error:
        raise BadRequestError(str(error), error.option) from None
    if n is None or n is False:
        given = [name for name, value in {"reranker": model, "rerank_seconds": seconds}.items() if value is not None]
        if given:
            raise BadRequestError(f"{given[0]} is for a search with rerank; give rerank too", given[0])
        return None
    return Reranking(n_candidates, model or await which.own("reranker"), seconds, fields.keep_alive_s())


def since_of(text: str | None) -> float | None:
    """Seconds since 1970 of a client's `since`. Raises BadRequestError for what is no date."""
    try:
        return None if text is None else moment(text).timestamp()
    except OptionError as error:
        raise BadRequestError(f"since: {error}", "since") from None


def _body(index: Index, result: SearchResult, with_text: bool, best: list[Best | None] | None) -> dict[str, Any]:
    hits = [as_record(hit) for hit in result.found.hits]
    for hit, span in zip(hits, best or (), strict=best is not None):
        hit["best"] = None if span is None else {"start": span.start, "end": span.end}
    for hit in hits:
        text = hit.pop("text")
        if with_text:
            hit.update(answered(text))
    return {
        "index": index.name,
        "model": result.model,
        "space": result.space.name or None,
        "mode": result.found.mode,
        "reranker": result.found.reranker,
        "hits": hits,
        "explained": result.found.explained,
        "milliseconds": {stage: round(seconds * 1000, 2) for stage, seconds in result.seconds.items()},
    }


def answered(text: str) -> dict[str, Any]:
    """The text of a passage, or its beginning where it is longer than an answer may have."""
    return {"text": text[:TEXT_MAX], "cut": len(text) > TEXT_MAX}


def _headers(result: SearchResult) -> dict[str, str]:
    """The headers of an embedding answer, because the query was embedded; the space is that of the hits."""
    space = {"x-q3e-space": result.space.name} if result.space.name else {}
    return (result_headers(result.embedded) if result.embedded else {}) | space


async def described(index: Index) -> dict[str, Any]:
    """What clients are told of an index; of one that cannot be used, why."""
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
