"""A search on a server with the best sentence of each hit: by words, else by meaning with the index's own model.

Knows sentences, the service and when a model may go; nothing of HTTP or of how hits are found.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import numpy as np

from q3e_local.search.ask import Question
from q3e_local.search.best_sentence import TOKENS_MAX, Best, by_words, candidates
from q3e_local.search.documents import DOCUMENT_TASK
from q3e_local.search.sentences import trimmed
from q3e_local.server.local.index_search import Reranking, SearchResult, search
from q3e_local.server.local.indexes import TEXT_MAX, Index
from q3e_local.server.service import Service, ServiceRequest

_LOOKED_AT = 8  # passages whose tokens are counted: more seldom fit into the limit


async def search_with_best(
    service: Service, index: Index, question: Question, query: ServiceRequest, reranking: Reranking | None = None
) -> tuple[SearchResult, list[Best | None]]:
    """As `search`, with one more stage, `sentences`: the best sentence of each hit, None where none stands out.

    Sentences that share no word with the query are compared by meaning, up to TOKENS_MAX tokens in all, and not at
    all where no vector of the query was made. A model that is to go afterwards goes once that is done. Raises what
    `search` raises.
    """
    if query.keep_alive_s != 0 or question.mode == "words":
        return await _with_best(service, await search(service, index, question, query, reranking), question.text)
    models = {index.made.model}
    try:
        kept = replace(query, keep_alive_s=None)
        return await _with_best(service, await search(service, index, question, kept, reranking), question.text)
    finally:
        for model in models | {index.made.model}:  # the index may have been rebuilt with another
            if model is not None:
                await service.unload(model)


async def _with_best(service: Service, result: SearchResult, query: str) -> tuple[SearchResult, list[Best | None]]:
    began, found = time.perf_counter(), result.found

    def words() -> list[Best | None]:
        return [by_words(query, hit.text[:TEXT_MAX], found.absent) for hit in found.hits]

    best = await asyncio.to_thread(words)
    if result.model is not None and found.vector is not None:
        await _add_by_meaning(service, result, best)
    return replace(result, seconds={**result.seconds, "sentences": time.perf_counter() - began}), best


async def _add_by_meaning(service: Service, result: SearchResult, best: list[Best | None]) -> None:
    """Fill in the sentences nearest to the query, for the first hits that have none yet."""
    hits, vector, model = result.found.hits, result.found.vector, result.model
    assert vector is not None
    assert model is not None
    unknown = (place for place, sentence in enumerate(best) if sentence is None)
    left = [place for place in unknown if len(hits[place].text) <= TEXT_MAX][:_LOOKED_AT]
    if not left:
        return
    counts = await service.count_tokens(model, tuple(hits[place].text for place in left))
    spans: list[tuple[int, tuple[int, int]]] = []
    for place, n_before in zip(left, np.cumsum(counts).tolist(), strict=True):
        if n_before <= TOKENS_MAX:
            spans += [
                (place, span) for span in candidates(hits[place].text) if hits[place].text[slice(*span)].strip()
            ]
    if not spans:
        return
    parts = tuple(hits[place].text[start:end].strip() for place, (start, end) in spans)
    embedded = await service.embed(ServiceRequest(model, parts, kind="document", task=DOCUMENT_TASK, dim=len(vector)))
    nearest: dict[int, float] = {}
    for (place, span), score in zip(spans, (embedded.vectors @ vector).tolist(), strict=True):
        if score > nearest.get(place, -2.0):
            nearest[place], best[place] = score, Best(*trimmed(hits[place].text, *span))
