"""Pairs of sentences and labelled texts embedded and measured in each column: `measured`.

Joins models, vectors and tasks. Knows nothing of questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from q3e_local.errors import OptionError
from q3e_local.evaluation.columns import Column, told_apart
from q3e_local.evaluation.comparing import as_stored, bytes_of
from q3e_local.evaluation.embedding import Names, Progress, counting
from q3e_local.evaluation.intervals import Values
from q3e_local.evaluation.models import Models
from q3e_local.evaluation.result import ColumnResult, Evaluation, by_model
from q3e_local.evaluation.tasks import Task


@dataclass(frozen=True)
class _Measured:
    """What a measure is made of in a column with its model and `dim`, and the seconds that a text takes."""

    column: Column
    dim: int
    values: Values
    seconds: float


def measured(task: Task, columns: Sequence[Column], models: Models, progress: Progress) -> Evaluation:
    """The texts of a task in each column. Raises InputError, OptionError, and what loading a model raises."""
    for column in columns:
        if column.mode != "vectors" or column.rerank is not None:
            raise OptionError("modes and rerankers are for questions; leave them out")
    about = task.about  # before a model is loaded, since it raises where a label lacks texts
    done: dict[Column, _Measured] = {}
    notes: list[str] = []
    for column, vectors in models.of_columns(columns, None, progress, notes):
        assert vectors is not None  # every column here compares vectors
        dim, request = vectors.dim(column), column.alike(task.texts, task.kind)
        stored = as_stored(vectors.of(request, Names("text", task.places)), dim, column.dtype)
        what = f"measuring column {len(done) + 1} of {len(columns)}"
        values = task.values(stored, counting(progress, what))
        known = replace(column, model=vectors.model.model, dim=dim)
        done[column] = _Measured(known, dim, values, vectors.seconds(request))
    first = done[columns[0]]
    results = []
    in_order = [done[column] for column in columns]
    shown = told_apart(columns, [each.column for each in in_order])
    for column, each in zip(shown, in_order, strict=True):
        differences = {} if each is first else {task.measure: task.difference(each.values, first.values)}
        n_bytes = bytes_of(each.dim, each.column.dtype)
        measures = {task.measure: task.value(each.values)}
        results.append(ColumnResult(column, measures, differences, each.seconds, n_bytes))
    return Evaluation(about + by_model(results), task.item, task.n_items, tuple(results), tuple(notes))
