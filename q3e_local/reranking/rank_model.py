"""What ranks documents, wherever it computes: `RankModel`, and its calls for lists of documents.

Knows requests and results. Leaves to its two subclasses where a document is read: in this process, or on a server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from q3e_local.embedding.stream import Progress
from q3e_local.errors import OptionError, TextError
from q3e_local.reranking.preparing import RankRequest


@dataclass(frozen=True)
class Ranked:
    """A document's place in the caller's order, and how well it answers the question.

    `score` is the probability of "yes" against "no", 0 to 1: 1 / (1 + exp(-logit)). `tokens` are those of the whole
    prompt, after cutting.
    """

    index: int
    score: float
    logit: float
    truncated: bool
    tokens: int

    def __repr__(self) -> str:
        return f"<Ranked {self.index}: {self.score:.4f}, {self.tokens} tokens{', cut' * self.truncated}>"


def probability(logit: float) -> float:
    """softmax([no, yes])[yes], of the difference of the two logits."""
    return float(1 / (1 + np.exp(-np.float64(logit))))


class RankModel(ABC):
    """A model that reads a question and a document together. Close it when done."""

    model: str

    @abstractmethod
    def close(self) -> None:
        """Free what the model takes."""

    @abstractmethod
    def _stream(self, request: RankRequest, progress: Progress | None) -> Iterator[Ranked | TextError]:
        """The items of `stream`. Raises OptionError at once, for what the model cannot do."""

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        instruction: str | None = None,
        top_n: int | None = None,
        *,
        task: str | None = None,
        truncate: bool = True,
        max_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> list[Ranked]:
        """The documents by how well they answer the query, best first; of equal ones the earlier first.

        `top_n` leaves the best out of all. A document is cut at its end to what fits; without `truncate` it raises
        TextTooLongError. `progress(n_documents, n_tokens)` is called after each batch with the counts so far. Raises
        OptionError, or the TextError of the first document that fails.
        """
        if top_n is not None and (type(top_n) is not int or top_n < 1):
            raise OptionError(f"top_n must be 1 or more, got {top_n!r}; leave it out to get all", "top_n")
        request = RankRequest(query, documents, task, instruction, truncate, max_tokens)
        done: list[Ranked] = []
        for item in self.stream(request, progress):
            if isinstance(item, TextError):
                raise item
            done.append(item)
        return sorted(done, key=lambda ranked: -ranked.logit)[:top_n]

    def score(
        self, pairs: Iterable[tuple[str, str]], instruction: str | None = None, *, task: str | None = None
    ) -> list[float]:
        """The score of each pair of a query and a document, in the order of the pairs.

        Raises what `rank` raises; a TextError names the place of the pair.
        """
        by_query: dict[str, list[int]] = {}
        listed = list(pairs)
        for place, pair in enumerate(listed):
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
                raise OptionError(f"pair {place} must be a query and a document, two texts, got {pair!r:.80}")
            by_query.setdefault(pair[0], []).append(place)
        scores = [0.0] * len(listed)
        for query, places in by_query.items():
            request = RankRequest(query, [listed[place][1] for place in places], task, instruction)
            for place, item in zip(places, self.stream(request), strict=True):
                if isinstance(item, TextError):
                    item.index = place
                    raise item
                scores[place] = item.score
        return scores

    def stream(self, request: RankRequest, progress: Progress | None = None) -> Iterator[Ranked | TextError]:
        """One item for each document, in order, as documents are done: how it ranks, or the TextError why it cannot.

        Raises OptionError at once.
        """
        if isinstance(request.documents, str):
            raise OptionError("documents must be a list of texts, got one str; put it in a list")
        return self._stream(request, progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
