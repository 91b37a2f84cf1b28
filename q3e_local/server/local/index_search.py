"""A question to one of the server's indexes: the query through the one embed path, its vector to the index, and with
two stages the first hits through the one path of rerankers.

Knows services and indexes; nothing of HTTP or of any wire format.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from q3e_local import space as spaces
from q3e_local.errors import OptionError, SpaceMismatchError
from q3e_local.models.installed import is_known
from q3e_local.search.ask import Question
from q3e_local.search.database.records import IndexSpace
from q3e_local.search.hits import Found
from q3e_local.search.places import option_of
from q3e_local.search.reranked import explained, groups, ordered
from q3e_local.server.errors import RebuiltError
from q3e_local.server.local.indexes import Index
from q3e_local.server.service import RankServiceRequest, Service, ServiceRequest, ServiceResult

OnRead = Callable[[int], Awaitable[None]]
"""Waited for with the number of candidates that a reranker has read, first with 0."""

_TIMES = 3  # an index may be rebuilt while its query is embedded


@dataclass(frozen=True)
class Reranking:
    """The second stage of a search: how many hits which reranker reads, for how long at most."""

    n_candidates: int
    model: str
    seconds: float | None = None
    keep_alive_s: float | None = None  # of the reranker, as in ServiceRequest


@dataclass(frozen=True)
class SearchResult:
    """The hits, and the embedded query; None where only words were looked for."""

    found: Found
    model: str | None
    space: IndexSpace  # of the index
    embedded: ServiceResult | None
    seconds: Mapping[str, float] = field(default_factory=dict)  # of each stage that there was, in their order


async def _unheard(n_read: int) -> None:
    """The `OnRead` of those who need not know."""


async def search(
    service: Service,
    index: Index,
    question: Question,
    query: ServiceRequest,
    reranking: Reranking | None = None,
    on_read: OnRead = _unheard,
) -> SearchResult:
    """Embed the query with the index's model and dim, unless words alone are looked for, and search.

    With a second stage a reranker reads the first hits, and the best of all are the result; one that is not here is
    found before the query is embedded, because that may load the index's model.

    Raises what embedding and ranking raise, SpaceMismatchError where the model is not the index's own,
    IndexUnusableError, RebuiltError, and OptionError for a search by meaning among vectors of no model we know.
    """
    if reranking is None:
        return await _first_stage(service, index, question, query)
    await service.check(reranking.model, "reranker")
    wider = replace(question, k=max(question.k, reranking.n_candidates))
    result = await _first_stage(service, index, wider, query)
    began = time.perf_counter()
    found = await _read(service, result.found, question, query, reranking, on_read)
    return replace(result, found=found, seconds={**result.seconds, "rerank": time.perf_counter() - began})


async def _first_stage(service: Service, index: Index, question: Question, query: ServiceRequest) -> SearchResult:
    for _ in range(_TIMES):
        model, space = index.made.model, index.made.space
        if model is None and question.mode in ("vectors", "hybrid"):
            raise OptionError(
                f"the index {index.name!r} holds {space}, of no model known here; search it with mode words", "mode"
            )
        embedded, seconds = None, {}
        began = time.perf_counter()
        if model is not None and question.mode != "words":
            embedded = await service.embed(replace(query, model=model, dim=space.dim))
            if not spaces.is_of(embedded.space, space.digest):
                await index.facts()  # brings `made` up to date: the index may have been rebuilt with this model
                if index.made.space.is_same(space):
                    raise SpaceMismatchError(_other_model(index, embedded))
                continue
            seconds = {"load": embedded.load_s, "embed": time.perf_counter() - began - embedded.load_s}
        asked = question if embedded is None else replace(question, vector=embedded.vectors[0])
        began = time.perf_counter()
        with suppress(RebuiltError):
            found = await index.search(asked, space)
            return SearchResult(found, model, space, embedded, {**seconds, "search": time.perf_counter() - began})
    raise RebuiltError(f"the index {index.name!r} is being rebuilt; ask again")


async def _read(
    service: Service,
    found: Found,
    question: Question,
    query: ServiceRequest,
    reranking: Reranking,
    on_read: OnRead,
) -> Found:
    """The hits in the order of a reranker. The time that it takes to load does not count."""
    n, model, loading_s = reranking.n_candidates, reranking.model, 0.0
    # A model that is to go afterwards must stay from one group to the next.
    is_to_go = reranking.keep_alive_s == 0
    keep_alive_s = None if is_to_go else reranking.keep_alive_s
    logits: list[float] = []
    n_cut = 0

    def clock() -> float:
        return time.monotonic() - loading_s

    await on_read(0)
    try:
        for texts in groups([hit.embedded for hit in found.hits[:n]], reranking.seconds, clock):
            request = RankServiceRequest(
                reranking.model, question.text, tuple(texts), query.task, query.instruction, keep_alive_s=keep_alive_s
            )
            ranked = await service.rank(request)
            logits += ranked.logits
            n_cut += sum(ranked.truncated)
            loading_s += ranked.load_s
            model = ranked.model
            await on_read(len(logits))
    finally:
        if is_to_go:
            await service.unload(reranking.model)
    hits = ordered(found.hits, logits)
    said = (*found.explained, *explained(hits, model, n, n_cut))
    return replace(found, hits=hits[: question.k], explained=said, reranker=model)


def _other_model(index: Index, embedded: ServiceResult) -> str:
    made_by, served = index.made.space.digest[:8], embedded.space.split("-")[1][:8]
    # Clients know indexes and files by the names under which they are served, and need not know their paths.
    option = " --db FILE" if " --db " in option_of(index.path) else option_of(index.path)
    model = embedded.model if is_known(embedded.model) else "FILE"
    return (
        f"the index {index.name!r} holds {index.made.space} (file {made_by}), and {embedded.model} on this server is "
        f"another file ({served}); the index can be embedded anew on the server's machine with: "
        f"q3e-local index rebuild{option} -m {model} -d {index.made.space.dim}"
    )
