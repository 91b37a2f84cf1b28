"""Questions asked in each column, and measured: `asked`.

Joins models, vectors, rankings and measures. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from q3e_local.evaluation.columns import Column, told_apart
from q3e_local.evaluation.comparing import ColumnState, as_stored, bytes_of
from q3e_local.evaluation.data import Questions
from q3e_local.evaluation.embedding import ModelVectors, Names, Progress, counting
from q3e_local.evaluation.intervals import Values, of_means
from q3e_local.evaluation.judging import Judged, judge
from q3e_local.evaluation.measures import agreement, of_rankings
from q3e_local.evaluation.models import Models
from q3e_local.evaluation.passages import Passages
from q3e_local.evaluation.result import AGREEMENT, ColumnResult, Evaluation, by_model
from q3e_local.evaluation.runs import Asker, Run
from q3e_local.reranking.reranker import Reranker
from q3e_local.wording.counts import counted


@dataclass(frozen=True)
class _Answered:
    """The rankings of a column, whose model and dim are known by now, and the seconds that a question takes."""

    column: Column
    run: Run
    seconds: float


def asked(
    data: Questions, columns: Sequence[Column], passages: Passages, agree: bool, models: Models, progress: Progress
) -> Evaluation:
    """The questions asked in each column; measured by their labels, or with `agree` by the first column's answers.

    Raises InputError, OptionError, and what loading a model raises.
    """
    if agree:
        judged = tuple(Judged(question, {}, by_file=False) for question in data.questions)
    else:
        judged = judge(data.questions, passages)
    answered: dict[Column, _Answered] = {}
    notes = list(data.notes)
    with ExitStack() as stack:
        reranker = None
        if any(column.rerank is not None for column in columns):
            reranker = stack.enter_context(models.load_reranker())
        for column, vectors in models.of_columns(columns, passages, progress, notes):
            what = f"asking {counted(len(judged), 'question')}, column {len(answered) + 1} of {len(columns)}"
            asker, seconds = _asker(column, vectors, passages, judged, reranker)
            run = asker.run(judged, counting(progress, what))
            answered[column] = _Answered(asker.column, run, run.seconds + seconds)
    known = told_apart(columns, [answered[column].column for column in columns])
    in_order = [replace(answered[column], column=shown) for column, shown in zip(columns, known, strict=True)]
    results = _results(in_order, judged, agree)
    what = f"{counted(len(judged), 'question')}, {counted(len(passages.entries), 'passage')} of {passages.name}"
    return Evaluation(what + by_model(results), "question", len(judged), results, tuple(notes))


def _asker(
    column: Column, vectors: ModelVectors | None, passages: Passages, judged: Sequence[Judged],
    reranker: Reranker | None,
) -> tuple[Asker, float]:  # fmt: skip
    """The column, with its model and dim, ready to be asked; and the seconds that embedding one question takes."""
    reranker = reranker if column.rerank is not None else None
    if vectors is None:
        return Asker(column, ColumnState(passages, None), None, reranker), 0.0
    dim = vectors.dim(column, passages)
    request = column.questions([each.question.text for each in judged])
    names = Names("question", [each.question.place for each in judged])
    state = ColumnState(passages, as_stored(vectors.of_passages(passages, dim), dim, column.dtype))
    of_questions = as_stored(vectors.of(request, names), dim, column.dtype)
    known = replace(column, model=vectors.model.model, dim=dim)
    return Asker(known, state, of_questions, reranker), vectors.seconds(request)


def _results(answered: Sequence[_Answered], judged: Sequence[Judged], agree: bool) -> tuple[ColumnResult, ...]:
    """What each column came to, and its differences to the first."""
    first_ranked = answered[0].run.ranked
    grades = [each.grades for each in judged]

    def measured(run: Run) -> Mapping[str, Values]:
        return {AGREEMENT: agreement(run.ranked, first_ranked)} if agree else of_rankings(grades, run.ranked)

    first = measured(answered[0].run)
    results = []
    for number, each in enumerate(answered):
        values = measured(each.run) if number else first
        means = {name: float(of_each.mean()) for name, of_each in values.items()}
        differences = {name: of_means(of_each, first[name]) for name, of_each in values.items()} if number else {}
        dim = each.column.dim
        n_bytes = None if dim is None else bytes_of(dim, each.column.dtype)
        results.append(ColumnResult(each.column, means, differences, each.seconds, n_bytes))
    return tuple(results)
