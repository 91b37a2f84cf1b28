"""Columns evaluated one after another, models loaded one at a time: `evaluate`.

Joins models, vectors, rankings and measures. Knows no terminal; who calls may say how a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import q3e_local
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import OptionError
from q3e_local.evaluation.answering import Asker, Run
from q3e_local.evaluation.classes import scikit_learn
from q3e_local.evaluation.columns import Column
from q3e_local.evaluation.comparing import ColumnState, as_stored, bytes_of
from q3e_local.evaluation.data import Corpus, Data, Kind, LabelledTexts, Pairs, Questions
from q3e_local.evaluation.embedding import ModelVectors, Names, Progress
from q3e_local.evaluation.intervals import Difference, Values, of_means, scipy_stats
from q3e_local.evaluation.judging import Judged, judge
from q3e_local.evaluation.measures import agreement, of_rankings, trec_eval
from q3e_local.evaluation.passages import Passages, of_corpus, of_index
from q3e_local.evaluation.result import FEW, ColumnResult, Evaluation
from q3e_local.evaluation.tasks import ClassTask, SimilarityTask, Task
from q3e_local.reranking.reranker import Reranker
from q3e_local.wording.counts import counted


def _load(model: str | None) -> TextModel:
    return q3e_local.load(model, cache=True)


def _load_reranker() -> Reranker:
    return q3e_local.load_reranker(cache=True)


@dataclass(frozen=True)
class Models:
    """How models are loaded, by name; None is the default. What is loaded is closed when its columns are done."""

    load: Callable[[str | None], AbstractContextManager[TextModel]] = _load
    load_reranker: Callable[[], AbstractContextManager[Reranker]] = _load_reranker


def evaluate(
    data: Data,
    columns: Sequence[Column] = (Column(),),
    *,
    index: Path | None = None,
    corpus: Corpus | None = None,
    kind: Kind | None = None,
    agree: bool = False,
    models: Models = Models(),
    progress: Progress = lambda what, n_done, n_total, n_cached: None,
) -> Evaluation:
    """How good each column is on these data, and how far it is from the first.

    Questions are asked of the passages of an `index` or of the texts of a `corpus`. Labelled texts are classified, or
    with the `kind` "clustering" clustered. With `agree` questions need no labels: measured is which share of the
    first column's first ten passages stays. Vectors come from the cache where it has them, so that a call after one
    that was interrupted computes what is missing.

    Raises OptionError for what does not go together, InputError for labels that name nothing and texts without a
    vector, MissingPackageError, and what loading a model raises.
    """
    if not columns:
        raise OptionError("there must be one column at least, got none")
    if len(set(columns)) < len(columns):
        raise OptionError("a column is there twice; give each once")
    scipy_stats()  # a missing package is told before anything is computed
    if isinstance(data, Questions):
        trec_eval()
        _check(kind in (None, "retrieval"), f"questions are measured as retrieval, not as {kind}")
        with _searched(index, corpus) as passages:
            found = _asked(data, columns, passages, agree, models, progress)
        return _with_notes(found, data.notes)
    _check(
        index is None and corpus is None, "pairs and labelled texts are searched in nothing; give no index or corpus"
    )
    _check(not agree, "agreement is for questions; pairs and labelled texts have labels")
    return _with_notes(_compared(_task(data, kind), columns, models, progress), ())


def _task(data: Pairs | LabelledTexts, kind: Kind | None) -> Task:
    if isinstance(data, Pairs):
        _check(kind in (None, "sts"), f"pairs are measured as sts, not as {kind}")
        return SimilarityTask(data)
    scikit_learn()
    if kind is None or kind == "classification":
        return ClassTask(data, "classification")
    _check(kind == "clustering", f"labelled texts are measured as classification or clustering, not as {kind}")
    return ClassTask(data, "clustering")


@contextmanager
def _searched(index: Path | None, corpus: Corpus | None) -> Iterator[Passages]:
    """What questions are asked of. Raises OptionError for none, and for two, whose figures could not be compared."""
    _check(index is None or corpus is None, "columns are compared on one index or one corpus; give one of them")
    if index is not None:
        with of_index(index) as passages:
            yield passages
        return
    _check(corpus is not None, "questions are asked of an index or a corpus; give one of them")
    assert corpus is not None
    with of_corpus(corpus) as passages:
        yield passages


def _asked(
    data: Questions, columns: Sequence[Column], passages: Passages, agree: bool, models: Models, progress: Progress
) -> Evaluation:
    """Questions, answered by each column."""
    if agree:
        judged = tuple(Judged(question, {}, by_file=False) for question in data.questions)
    else:
        judged = judge(data.questions, passages)
    answers: dict[Column, tuple[Column, Run, float]] = {}  # with what is known of the column once its model is there
    notes: list[str] = []
    with ExitStack() as stack:
        reranker = None
        if any(column.rerank is not None for column in columns):
            reranker = stack.enter_context(models.load_reranker())
        for column, vectors in _with_models(columns, passages, models, progress, notes):
            what = f"asking {counted(len(judged), 'question')}, column {len(answers) + 1} of {len(columns)}"
            asked, asker, seconds = _asker(column, vectors, passages, judged, reranker)
            run = asker.run(judged, _counting(progress, what))
            answers[column] = asked, run, run.seconds + seconds
    found = [answers[column] for column in columns]
    first = found[0][1].ranked
    values: list[Mapping[str, Values]] = [
        {"agree_at_10": agreement(run.ranked, first)}
        if agree
        else of_rankings([j.grades for j in judged], run.ranked)
        for _, run, _ in found
    ]
    results = tuple(
        ColumnResult(
            column,
            {name: float(each.mean()) for name, each in measured.items()},
            {} if number == 0 else {name: of_means(each, values[0][name]) for name, each in measured.items()},
            seconds,
            _bytes(column),
        )
        for number, ((column, _, seconds), measured) in enumerate(zip(found, values, strict=True))
    )
    what = f"{counted(len(judged), 'question')}, {counted(len(passages.entries), 'passage')} of {passages.name}"
    what += _by([column for column, _, _ in found])
    return Evaluation(what, "question", len(judged), results, tuple(notes))


def _asker(
    column: Column, vectors: ModelVectors | None, passages: Passages, judged: Sequence[Judged],
    reranker: Reranker | None,
) -> tuple[Column, Asker, float]:  # fmt: skip
    """The column with its model and dim, ready to be asked; and the seconds that embedding one question takes."""
    reranker = reranker if column.rerank is not None else None
    if vectors is None:
        return column, Asker(column, ColumnState(passages, None), None, reranker), 0.0
    dim = vectors.dim(column, passages)
    request = column.questions([each.question.text for each in judged])
    names = Names("question", [each.question.place for each in judged])
    state = ColumnState(passages, as_stored(vectors.of_passages(passages, dim), dim, column.dtype))
    asked = as_stored(vectors.of(request, names), dim, column.dtype)
    known = replace(column, model=vectors.model.model, dim=dim)
    return known, Asker(known, state, asked, reranker), vectors.seconds(request)


def _compared(task: Task, columns: Sequence[Column], models: Models, progress: Progress) -> Evaluation:
    """The texts of a task, embedded and measured in each column."""
    for column in columns:
        _check(
            column.mode == "vectors" and column.rerank is None,
            "modes and rerankers are for questions; leave them out",
        )
    measured: dict[Column, tuple[Column, Values, float]] = {}
    notes: list[str] = []
    names = Names("text", task.places)
    what = task.about  # before a model is loaded, since it raises where a label lacks texts
    for column, vectors in _with_models(columns, None, models, progress, notes):
        assert vectors is not None  # every column here compares vectors
        dim, request = vectors.dim(column), column.alike(task.texts, task.kind)
        stored = as_stored(vectors.of(request, names), dim, column.dtype)
        doing = f"measuring column {len(measured) + 1} of {len(columns)}"
        values = task.values(stored, _counting(progress, doing))
        measured[column] = replace(column, model=vectors.model.model, dim=dim), values, vectors.seconds(request)
    found = [measured[column] for column in columns]
    differences: list[Mapping[str, Difference]] = [
        {task.measure: task.difference(values, found[0][1])} for _, values, _ in found[1:]
    ]
    results = tuple(
        ColumnResult(column, {task.measure: task.value(values)}, difference, seconds, _bytes(column))
        for (column, values, seconds), difference in zip(found, [{}, *differences], strict=True)
    )
    what += _by([column for column, _, _ in found])
    return Evaluation(what, task.item, task.n_items, results, tuple(notes))


def _with_models(
    columns: Sequence[Column], passages: Passages | None, models: Models, progress: Progress, notes: list[str]
) -> Iterator[tuple[Column, ModelVectors | None]]:
    """Each column with the vectors of its model, all columns of a model one after another; without a model first.

    Raises OptionError for a dim that a model has not, before anything is embedded with that model.
    """
    usual = passages.space.model if passages is not None and passages.space is not None else None
    by_model: dict[str | None, list[Column]] = {}
    for column in columns:
        if not column.needs_model:
            yield column, None
            continue
        by_model.setdefault(column.model or usual, []).append(column)
    for name, of_model in by_model.items():
        with models.load(name) as model:
            vectors = ModelVectors(model, progress)
            for column in of_model:
                vectors.dim(column, passages)
            for column in of_model:
                yield column, vectors
            notes += vectors.notes


def _by(columns: Sequence[Column]) -> str:
    """`, by demo`: the model, where all columns that have one have the same."""
    models = {column.model for column in columns if column.model is not None}
    return f", by {models.pop()}" if len(models) == 1 else ""


def _bytes(column: Column) -> int | None:
    return None if column.dim is None else bytes_of(column.dim, column.dtype)


def _counting(progress: Progress, what: str) -> Callable[[int, int], None]:
    """A callback with two counts that tells what is being done."""
    return lambda n_done, n_total: progress(what, n_done, n_total, 0)


def _with_notes(found: Evaluation, notes: Sequence[str]) -> Evaluation:
    few = f"fewer than {FEW} {found.item}s: the intervals are narrower than they should be"
    return replace(found, notes=(*notes, *found.notes, *([few] if found.n_items < FEW else [])))


def _check(is_right: bool, problem: str) -> None:
    if not is_right:
        raise OptionError(problem)
