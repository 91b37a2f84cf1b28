"""vLLM's score routes: how well texts answer texts, pair by pair, in the order of the pairs.

Knows vLLM's JSON; leaves what a question and a document may be to ranking.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import numpy as np
from starlette.responses import Response

from q3e_local.errors import TextError
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.server.dialects import ranking
from q3e_local.server.dialects.body import hold_to_limit
from q3e_local.server.dialects.failures import Failure
from q3e_local.server.dialects.fields import Body, Fields, Schema, shown
from q3e_local.server.dialects.routes import Routes, json_response, rank_headers
from q3e_local.server.dialects.which_model import WhichModel
from q3e_local.server.errors import BadRequestError
from q3e_local.server.service import RankResult, RankServiceRequest, Service
from q3e_local.server.settings import ServerSettings

# The routes whose errors have vLLM's shape, also where a request is turned away before them.
PATHS = ("/score", "/v1/score")

# Questions of one request that are asked at once: their documents share batches, and leave the queue to others.
_AT_ONCE = 16

_TEXTS: Schema = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_SCORE = Body(
    {
        "model": ranking.MODEL,
        "text_1": {**_TEXTS, "description": "A query, or a query for each text of `text_2`"},
        "text_2": {**_TEXTS, "description": "Documents: one, several for one query, or as many as queries"},
        **ranking.HOW,
    },
    ("text_1", "text_2"),
    {
        "model": DEFAULT_RERANKER,
        "text_1": "Which planet is known as the Red Planet?",
        "text_2": ["Venus is a twin of Earth.", "Mars is often called the Red Planet."],
    },
    # vLLM's newer names.
    {**ranking.UNLISTED, "queries": {}, "documents": {}},
)


def routes(service: Service, settings: ServerSettings, which: WhichModel) -> Routes:
    """vLLM's routes."""
    limits = dict.fromkeys(("text_1", "text_2", "queries", "documents"), settings.max_items)
    routes = Routes("vLLM", answer_failure, limits)

    @routes.with_body("/score", _SCORE, "Score each document for its query, in the order sent")
    @routes.with_body("/v1/score", _SCORE, "The same")
    async def score(fields: Fields) -> Response:
        field, queries = _texts(fields, ("text_1", "queries"), settings.max_items)
        _, documents = _texts(fields, ("text_2", "documents"), settings.max_items)
        ranking.check_queries(queries, field)
        if len(queries) not in (1, len(documents)):
            raise BadRequestError(
                f"{field} has {len(queries)} queries for {len(documents)} documents; send one query, or one for each "
                "document",
                field,
            )
        raw, model = ranking.is_raw(fields), await which.of(fields, "reranker")
        result = await _scored(service, ranking.wanted(fields, model, "", ()), queries, documents, field)
        n_tokens = sum(result.prompt_tokens)
        answer = {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": fields.text("model") or result.model,
            "data": [
                {"index": index, "object": "score", "score": ranking.score(logit, raw=raw)}
                for index, logit in enumerate(result.logits)
            ],
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        }
        return json_response(answer, headers=rank_headers(result))

    return routes


def answer_failure(failure: Failure) -> Response:
    """vLLM's error object: its `type` is the status in words."""
    status = 404 if failure.kind == "model name" else failure.status
    words = "".join(_PHRASES.get(status, "client closed request").title().split())
    kind = words if words.endswith("Error") else f"{words}Error"
    param = failure.error.field if isinstance(failure.error, BadRequestError) else None
    error = {"message": failure.message, "type": kind, "param": param, "code": status}
    return json_response({"error": error}, status, failure.headers)


def _texts(fields: Fields, names: tuple[str, str], max_items: int) -> tuple[str, tuple[str, ...]]:
    """The name under which a field came, the old or the new one, and its texts. Raises BadRequestError for none."""
    field = next((name for name in names if fields.has(name)), names[0])
    value = fields.raw(field)
    texts = value if isinstance(value, list) else [value]
    hold_to_limit(len(texts), max_items, field)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequestError(f"{field} must be a text or a list of texts, got {shown(value)}", field)
    return field, tuple(texts)


async def _scored(
    service: Service, options: RankServiceRequest, queries: Sequence[str], documents: Sequence[str], field: str
) -> RankResult:
    """The results of all pairs, in their order; a single query goes with all documents. `field` has the queries."""
    places: dict[str, list[int]] = {}
    for place in range(len(documents)):
        places.setdefault(queries[place if len(queries) > 1 else 0], []).append(place)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(query: str, of_query: list[int]) -> RankResult:
        async with turns:
            wanted = replace(options, query=query, documents=tuple(documents[place] for place in of_query))
            try:
                return await ranking.ranked(service, wanted)
            except TextError as error:
                error.index = of_query[error.index]
                raise
            except BadRequestError as error:
                if error.field != "query":
                    raise
                raise BadRequestError(str(error), field) from None  # by its name in this request

    working = [asyncio.ensure_future(one(query, of_query)) for query, of_query in places.items()]
    try:
        results = await asyncio.gather(*working)
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    order = np.argsort([place for of_query in places.values() for place in of_query])

    def in_order(field: str) -> tuple[Any, ...]:
        found = [value for result in results for value in getattr(result, field)]
        return tuple(found[place] for place in order)

    first = results[0]
    return replace(
        first, logits=in_order("logits"), prompt_tokens=in_order("prompt_tokens"), truncated=in_order("truncated")
    )
