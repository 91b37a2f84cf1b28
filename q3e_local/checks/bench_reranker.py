"""How fast a reranker is on this machine: one question with as many documents as a search has candidates.

Measures a Reranker, and makes documents as bench does. Prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from q3e_local.checks.bench import MakeTexts
from q3e_local.llama.kernels.choice import Taken
from q3e_local.reranking.reranker import Reranker

if TYPE_CHECKING:
    from q3e_local.llama.engine import LlamaEngine

SIZES = {"short": 64, "medium": 256, "long": 1024}  # tokens of a document
DOCUMENTS = 10  # in a call: the candidates of a search
_LEAST = 32  # tokens of a document, however slow the machine
_QUERY_TOKENS = 12


@dataclass(frozen=True)
class RankCell:
    """A size of document. `n_tokens` count prompt and question once for each document; `seconds` are of all calls."""

    size: str
    tokens_per_document: int
    documents_per_call: int
    n_documents: int
    n_tokens: int
    seconds: float
    tokens_per_s: float
    documents_per_s: float
    peak_bytes: int
    kernels: Taken  # what our kernels computed of it


def measure(
    reranker: Reranker, make: MakeTexts, budget_s: float, clock: Callable[[], float] = time.perf_counter
) -> Iterator[RankCell]:
    """Yield a cell for each size as it is done, in about `budget_s` in all.

    Each cell makes at least one call, and each call asks another question. Where its share of the budget is too
    small, documents are shorter.
    """
    reranker.rank(*_call(make, SIZES["short"], 2))  # the first call makes buffers
    engine = cast("LlamaEngine", reranker.engine)  # or one in a process of its own, which says the same of itself
    ends, speed = clock() + budget_s, 0.0
    for n_left, (size, n_tokens) in zip((3, 2, 1), SIZES.items(), strict=True):
        share_s = max(0.0, ends - clock()) / n_left
        if speed:
            n_tokens = max(_LEAST, min(n_tokens, int(speed * share_s / DOCUMENTS)))
        calls: list[float] = []
        n_done, before, until = 0, engine.kernels_taken, clock() + share_s
        while not calls or clock() + calls[-1] <= until:
            query, documents = _call(make, n_tokens, DOCUMENTS)
            began = clock()
            ranked = reranker.rank(query, documents)
            calls.append(clock() - began)
            n_done += sum(one.tokens for one in ranked)
        seconds, n_documents = sum(calls), DOCUMENTS * len(calls)
        speed = n_done / seconds
        yield RankCell(
            size=size,
            tokens_per_document=n_tokens,
            documents_per_call=DOCUMENTS,
            n_documents=n_documents,
            n_tokens=n_done,
            seconds=seconds,
            tokens_per_s=speed,
            documents_per_s=n_documents / seconds,
            peak_bytes=engine.peak_bytes,
            kernels=engine.kernels_taken.since(before),
        )


def _call(make: MakeTexts, n_tokens: int, n_documents: int) -> tuple[str, list[str]]:
    """A question and documents of so many tokens; texts are counted with an end token, which there is none here."""
    return make(1, _QUERY_TOKENS + 1)[0], make(n_documents, n_tokens + 1)
