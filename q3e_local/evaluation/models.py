"""Models as an evaluation opens them: `Models`, and each column with the vectors of its model.

One model is open at a time. Knows how models are loaded; nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import q3e_local
from q3e_local.embedding.text_model import TextModel
from q3e_local.evaluation.columns import Column
from q3e_local.evaluation.embedding import ModelVectors, Progress
from q3e_local.evaluation.passages import Passages
from q3e_local.reranking.reranker import Reranker


def _load(model: str | None) -> TextModel:
    return q3e_local.load(model, cache=True)


def _load_reranker() -> Reranker:
    return q3e_local.load_reranker(cache=True)


@dataclass(frozen=True)
class Models:
    """How models are loaded, by name; None is the default. What is loaded is closed when its columns are done."""

    load: Callable[[str | None], AbstractContextManager[TextModel]] = _load
    load_reranker: Callable[[], AbstractContextManager[Reranker]] = _load_reranker

    def of_columns(
        self, columns: Sequence[Column], passages: Passages | None, progress: Progress, notes: list[str]
    ) -> Iterator[tuple[Column, ModelVectors | None]]:
        """Each column with its model's vectors, all columns of a model one after another; without a model first.

        A column that names no model has the one that made the index. `notes` get what is to be said of each model.
        Raises OptionError for a dim that a model has not, before anything is embedded with that model.
        """
        usual = passages.space.model if passages is not None and passages.space is not None else None
        by_model: dict[str | None, list[Column]] = {}
        for column in columns:
            if column.needs_model:
                by_model.setdefault(column.model or usual, []).append(column)
            else:
                yield column, None
        for name, of_model in by_model.items():
            with self.load(name) as model:
                vectors = ModelVectors(model, progress)
                for column in of_model:
                    vectors.dim(column, passages)
                for column in of_model:
                    yield column, vectors
                notes += vectors.notes
