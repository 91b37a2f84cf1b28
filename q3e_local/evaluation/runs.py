"""Questions answered by one column: `Run`, the ranking of each question, and how long an answer takes.

Asks as `search` does, through `search.ask` and its second stage. Knows rankings; nothing of grades or measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from q3e_local.errors import InputError, TextError
from q3e_local.evaluation.columns import Column
from q3e_local.evaluation.comparing import ColumnState
from q3e_local.evaluation.judging import Judged
from q3e_local.reranking.reranker import Reranker
from q3e_local.search.ask import Question, ask
from q3e_local.search.database.records import NO_FILTERS
from q3e_local.search.hits import Found
from q3e_local.search.reranked import SecondStage
from q3e_local.vectors import Vectors

K = 10  # what people look at, and what the measures are about
DEPTH = 100  # how far a ranking goes on behind that, for the mean average precision
_TIMED_RERANKS = 3  # questions whose candidates are read anew to see how long that takes


@dataclass(frozen=True)
class Run:
    """For each question the ids of passages, or the files, best first; and the seconds that a question takes.

    The seconds are those of search and reranking, without those of embedding the question.
    """

    ranked: tuple[tuple[str, ...], ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Asker:
    """A column that is ready to be asked: its passages, the vector of each question, and its reranker.

    `vectors` are (n_questions, dim), as the column compares them; None for a search by words alone.
    """

    column: Column
    state: ColumnState
    vectors: Vectors | None
    reranker: Reranker | None

    def run(self, questions: Sequence[Judged], on_done: Callable[[int, int], None]) -> Run:
        """Ask every question. `on_done(n_done, n_total)` counts questions.

        Raises InputError for a passage that the reranker fails on, OptionError for a question too long for it.
        """
        on_done(0, len(questions))
        seconds_to_read = self._seconds_to_read(questions)
        ranked, seconds = [], []
        for number, question in enumerate(questions):
            first, taken = self._first(number, question)
            seconds.append(taken)
            if self.column.rerank is not None:
                first = self._reranked(first, question)
            # A deeper search fuses deeper rankings, which may change the first hits: they stay as `search` has them.
            rest = self._found(number, question, DEPTH)
            ranked.append(question.names((*first, *rest)))
            on_done(number + 1, len(questions))
        return Run(tuple(ranked), median(seconds) + seconds_to_read)

    def _first(self, number: int, question: Judged) -> tuple[Found, float]:
        """The hits that `search` would show or have reranked, and how long it took to find them."""
        began = time.perf_counter()
        found = self._found(number, question, max(K, self.column.rerank or 0))
        return found, time.perf_counter() - began

    def _found(self, number: int, question: Judged, k: int) -> Found:
        vector = None if self.vectors is None else self.vectors[number]
        asked = Question(question.question.text, vector, k, self.column.mode, exact=True, filters=NO_FILTERS)
        return ask(self.state, asked)

    def _reranked(self, found: Found, question: Judged, reranker: Reranker | None = None) -> Found:
        reranker = reranker or self.reranker
        assert reranker is not None  # the column has a second stage
        assert self.column.rerank is not None
        stage = SecondStage(reranker, self.column.rerank)
        task, instruction = self.column.meaning
        try:
            return stage.applied(found, question.question.text, len(found), task=task, instruction=instruction)
        except TextError as error:
            raise InputError(f"{found.hits[error.index].id} {error.message}") from None

    def _seconds_to_read(self, questions: Sequence[Judged]) -> float:
        """How long a reranker reads for a question, computed anew: the median of a few; 0 without a reranker."""
        if self.reranker is None:
            return 0.0
        reranker = self.reranker
        anew = Reranker(reranker.engine, reranker.model, reranker.prompts, None, reranker.defaults)
        seconds = []
        for number, question in enumerate(questions[:_TIMED_RERANKS]):
            found, _ = self._first(number, question)
            began = time.perf_counter()
            self._reranked(found, question, anew)
            seconds.append(time.perf_counter() - began)
        return median(seconds)
