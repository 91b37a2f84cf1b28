"""The best sentence of each hit of a search on a server: by words, else by meaning with the index's own model.

Knows sentences and the service; nothing of HTTP or of how the hits were found.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import numpy as np

from q3e_local.search.best_sentence import TOKENS_MAX, Best, by_words, candidates
from q3e_local.search.documents import DOCUMENT_TASK
from q3e_local.search.sentences import trimmed
from q3e_local.server.local.index_search import SearchResult
from q3e_local.server.service import Service, ServiceRequest

_LOOKED_AT = 8  # passages whose tokens are counted: more seldom fit into the limit
# Of such a passage. A text that a program added may be of any length, and too long to be counted at all.
_CHARACTERS_MAX = 20_000


async def with_best(
    service: Service, result: SearchResult, query: str, keep_alive_s: float | None = None
) -> tuple[SearchResult, list[Best | None]]:
    """The result with one more stage, `sentences`, and the best sentence of each hit, None where none stands out.

    Sentences that share no word with the query are compared by meaning, up to TOKENS_MAX tokens in all, and not at
    all where no vector of the query was made. Raises what embedding raises.
    """
    began, found = time.perf_counter(), result.found

    def words() -> list[Best | None]:
        return [by_words(query, hit.text, found.absent) for hit in found.hits]

    best = await asyncio.to_thread(words)
    if result.model is not None and found.vector is not None:
        try:
            await _add_by_meaning(service, result, best)
        finally:
            if keep_alive_s == 0:  # the model that was to go has been loaded again
                await service.unload(result.model)
    return replace(result, seconds={**result.seconds, "sentences": time.perf_counter() - began}), best


async def _add_by_meaning(service: Service, result: SearchResult, best: list[Best | None]) -> None:
    """Fill in the sentences nearest to the query, for the first hits that have none yet."""
    hits, vector, model = result.found.hits, result.found.vector, result.model
    assert vector is not None
    assert model is not None
    unknown = (place for place, sentence in enumerate(best) if sentence is None)
    left = [place for place in unknown if len(hits[place].text) <= _CHARACTERS_MAX][:_LOOKED_AT]
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
