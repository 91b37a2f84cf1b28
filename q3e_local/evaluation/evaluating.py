"""Columns evaluated on whatever data there are: `evaluate`.

Checks what goes together; leaves questions to asking.py and all other data to measuring.py. Knows no terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from q3e_local.errors import OptionError
from q3e_local.evaluation.asking import asked
from q3e_local.evaluation.classes import scikit_learn
from q3e_local.evaluation.columns import Column
from q3e_local.evaluation.data import Corpus, Data, Kind, LabelledTexts, Pairs, Questions
from q3e_local.evaluation.embedding import Progress
from q3e_local.evaluation.intervals import scipy_stats
from q3e_local.evaluation.measures import trec_eval
from q3e_local.evaluation.measuring import measured
from q3e_local.evaluation.models import Models
from q3e_local.evaluation.passages import Passages, of_corpus, of_index
from q3e_local.evaluation.result import FEW, Evaluation
from q3e_local.evaluation.runs import K
from q3e_local.evaluation.tasks import ClassTask, SimilarityTask, Task


def evaluate(
    data: Data,
    columns: Sequence[Column] = (Column(),),
    *,
    index: Path | None = None,
    corpus: Corpus | None = None,
    kind: Kind | None = None,
    agree: bool = False,
    models: Models = Models(),  # noqa: B008 (frozen)
    progress: Progress = lambda what, n_done, n_total, n_cached: None,
) -> Evaluation:
    """How good each column is on these data, and how far it is from the first.

    Questions are asked of the passages of an `index` or of the texts of a `corpus`. Labelled texts are classified, or
    with the `kind` "clustering" clustered. With `agree` questions need no labels: measured is which share of the
    first column's first ten passages stays. Vectors come from the cache where it has them, so that a call after one
    that was interrupted computes what is missing.

    Raises OptionError for what does not go together, such as `agree` and a reranker of ten candidates or fewer, which
    changes nothing in which ten they are; InputError for labels that name nothing and texts without a vector,
    MissingPackageError, and what loading a model raises.
    """
    if not columns:
        raise OptionError("there must be one column at least, got none")
    if len(set(columns)) < len(columns):
        raise OptionError("a column is there twice; give each once")
    scipy_stats()  # a missing package is told before anything is computed
    if isinstance(data, Questions):
        trec_eval()
        if agree and any(column.rerank is not None and column.rerank <= K for column in columns):
            raise OptionError(
                f"rerank must be above {K} with agree: of {K} candidates or fewer a reranker changes the order "
                f"alone, and agreement is which of the first {K} stay",
                "rerank",
            )
        _check(kind in (None, "retrieval"), f"questions are measured as retrieval, not as {kind}")
        with _searched(index, corpus) as passages:
            return _cautioned(asked(data, columns, passages, agree, models, progress))
    is_searched = index is not None or corpus is not None
    _check(not is_searched, "pairs and labelled texts are searched in nothing; give no index or corpus")
    _check(not agree, "agreement is for questions; pairs and labelled texts have labels")
    return _cautioned(measured(_task(data, kind), columns, models, progress))


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


def _cautioned(found: Evaluation) -> Evaluation:
    """The evaluation, with a word of caution where its items are few."""
    if found.n_items >= FEW:
        return found
    few = f"fewer than {FEW} {found.item}s: the intervals are narrower than they should be"
    return replace(found, notes=(*found.notes, few))


def _check(is_right: bool, problem: str) -> None:
    if not is_right:
        raise OptionError(problem)
