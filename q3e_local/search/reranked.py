"""The second stage of a search: the first hits in the order in which a reranker puts them.

Knows hits, a limit of time and an order. Leaves to its callers how a text is read, here or on a server.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from q3e_local.errors import OptionError
from q3e_local.reranking.rank_model import RankModel, probability
from q3e_local.search.hits import Found, Hit
from q3e_local.wording.counts import counted

N_CANDIDATES = 10
N_CANDIDATES_MAX = 10_000
# With a limit of time, short candidates are read together, because a batch of few tokens takes as long as a fuller
# one; a candidate of this many characters is read alone, so that the limit is passed by one candidate at most.
_GROUP_CHARACTERS = 1_000

Clock = Callable[[], float]
"""Returns seconds, of which only differences count."""

Reading = Callable[[int, int], None]
"""What `VectorIndex.search` takes as `rerank_progress`: called as `progress(n_read, n_candidates)`, first with 0."""


def rerank(
    hits: Sequence[Hit],
    n_candidates: int,
    read: Callable[[Sequence[str]], Iterable[float]],
    seconds: float | None = None,
    clock: Clock = time.monotonic,
) -> tuple[Hit, ...]:
    """The hits, the first `n_candidates` of them by what `read` says of their texts: a logit for each, higher better.

    After `seconds` no more are read. What was not read keeps its order behind what was.
    """
    logits: list[float] = []
    for texts in groups([hit.embedded for hit in hits[:n_candidates]], seconds, clock):
        logits += read(texts)
    return ordered(hits, logits)


def groups(texts: Sequence[str], seconds: float | None, clock: Clock = time.monotonic) -> Iterator[Sequence[str]]:
    """The texts as they are read: all at once, or with a limit of time a few after another until the time is up.

    The first few are read in any case.
    """
    if seconds is None:
        if texts:
            yield texts
        return
    began, start = clock(), 0
    while start < len(texts) and (start == 0 or clock() - began < seconds):
        end, n_characters = start + 1, len(texts[start])
        while end < len(texts) and n_characters + len(texts[end]) <= _GROUP_CHARACTERS:
            n_characters += len(texts[end])
            end += 1
        yield texts[start:end]
        start = end


def ordered(hits: Sequence[Hit], logits: Sequence[float]) -> tuple[Hit, ...]:
    """The hits, the first of them by these logits, best first; of equal ones, and of the rest, the earlier first."""
    placed = [replace(hit, rank_before=place) for place, hit in enumerate(hits, 1)]
    read = [replace(hit, rerank=probability(logit)) for hit, logit in zip(placed, logits, strict=False)]
    order = sorted(range(len(read)), key=lambda place: -logits[place])
    return (*(read[place] for place in order), *placed[len(read) :])


def explained(hits: Sequence[Hit], reranker: str, n_candidates: int, n_cut: int) -> tuple[str, ...]:
    """What was done, a fact each: how many candidates were read, how many of these cut, and the new order."""
    n_read = sum(hit.rerank is not None for hit in hits)
    n = min(n_candidates, len(hits))
    until = "" if n_read == n else " until the time was up"
    places = [
        f"{hit.rank_before} {'was not read' if hit.rerank is None else f'has {hit.rerank:.3f}'}" for hit in hits[:n]
    ]
    return (
        f"second stage: {reranker} read {n_read} of {counted(n, 'candidate')}{until}",
        *([f"{counted(n_cut, 'candidate')} cut to the reranker's limit"] if n_cut else []),
        *([f"new order, by the old places, with the reranker's scores: {', '.join(places)}"] if places else []),
    )


@dataclass(frozen=True)
class SecondStage:
    """A reranker, and how many candidates it reads, for how long at most."""

    reranker: RankModel
    n_candidates: int = N_CANDIDATES
    seconds: float | None = None
    progress: Reading | None = None

    def applied(self, found: Found, query: str, k: int, **options: Any) -> Found:
        """The k best of the hits. `options` are those of RankModel.rank, which raises OptionError and TextError."""
        n, n_read, n_cut = min(self.n_candidates, len(found.hits)), 0, 0

        def tell(n_more: int) -> None:
            if self.progress is not None and n:
                self.progress(n_read + n_more, n)

        def read(texts: Sequence[str]) -> list[float]:
            nonlocal n_read, n_cut
            ranked = self.reranker.rank(query, texts, progress=lambda n_done, _: tell(n_done), **options)
            n_read += len(texts)
            n_cut += sum(one.truncated for one in ranked)
            return [one.logit for one in sorted(ranked, key=lambda one: one.index)]

        tell(0)
        hits, model = rerank(found.hits, n, read, self.seconds), self.reranker.model
        said = (*found.explained, *explained(hits, model, n, n_cut))
        return replace(found, hits=hits[:k], explained=said, reranker=model)


def second_stage(
    reranker: RankModel | None, n: int | bool | None, seconds: float | None, progress: Reading | None = None
) -> SecondStage | None:
    """The second stage that these options of `VectorIndex.search` mean; None where they mean none.

    Raises OptionError for values that are outside their limits, or that do not go together.
    """
    is_off = n is False or (n is None and reranker is None)
    n = check_candidates(n)
    check_seconds(seconds)
    if is_off and (seconds is not None):
        raise OptionError("rerank_seconds is for a search with rerank; give rerank and a reranker too")
    if is_off:
        return None
    if reranker is None:
        raise OptionError("rerank needs a reranker, such as reranker=q3e_local.load_reranker()")
    return SecondStage(reranker, n, seconds, progress)


def check_candidates(n: Any, n_max: int = N_CANDIDATES_MAX, shown: Callable[[Any], str] = repr) -> int:
    """How many candidates `rerank` means: True and None are 10.

    Raises OptionError with the value as `shown` words it: a value of somebody else's may be long.
    """
    if n is None or isinstance(n, bool):
        return N_CANDIDATES
    if type(n) is not int or not 1 <= n <= n_max:
        raise OptionError(f"rerank must be true or between 1 and {n_max}, got {shown(n)}", "rerank")
    return n


def check_seconds(seconds: Any, shown: Callable[[Any], str] = repr) -> None:
    """Raise OptionError, worded as `check_candidates` words it, for what is no time above 0."""
    is_time = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
    if seconds is not None and not (is_time and seconds > 0):
        raise OptionError(f"rerank_seconds must be a number above 0, got {shown(seconds)}", "rerank_seconds")
