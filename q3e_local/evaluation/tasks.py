"""What is measured without a question: pairs of sentences, and classes of texts.

A task has texts, and says what their vectors are worth. Knows vectors and measures; nothing of models or columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from q3e_local.evaluation.classes import Rows, classified, clustered, halves
from q3e_local.evaluation.data import Kind, LabelledTexts, Pairs
from q3e_local.evaluation.intervals import Difference, Values, of_correlations, of_means, of_samples, spearman
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted

OnDone = Callable[[int, int], None]

_DIGITS = 6  # of a cosine: equal texts differ behind them by what float32 rounds


class Task(Protocol):
    """Texts, each with the place that errors name, and a measure of their vectors."""

    @property
    def kind(self) -> Kind:
        """What kind of task it is; the task of this name has the usual instruction."""

    @property
    def measure(self) -> str:
        """The name of the measure."""

    @property
    def item(self) -> str:
        """What the measure is about: "pair" or "text"."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that are embedded."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where each text stands."""

    @property
    def n_items(self) -> int:
        """How many items the measure is about."""

    @property
    def about(self) -> str:
        """`400 texts to test, 10 labels`."""

    def values(self, vectors: Vectors, on_done: OnDone) -> Values:
        """What the measure is made of, from a vector for each text (n_texts, dim)."""

    def value(self, values: Values) -> float:
        """The measure."""

    def difference(self, values: Values, first: Values) -> Difference:
        """The measure of these values less that of the first."""


@dataclass(frozen=True)
class SimilarityTask:
    """Spearman's correlation of cosines with what people said of the pairs, as MTEB measures STS."""

    pairs: Pairs
    kind: Kind = "sts"
    measure: str = "spearman"
    item: str = "pair"

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(text for pair in self.pairs.pairs for text in (pair.first, pair.second))

    @cached_property
    def places(self) -> tuple[str, ...]:
        return tuple(pair.place for pair in self.pairs.pairs for _ in range(2))

    @property
    def n_items(self) -> int:
        return len(self.pairs.pairs)

    @property
    def about(self) -> str:
        return counted(self.n_items, self.item)

    def values(self, vectors: Vectors, on_done: OnDone) -> Values:
        cosines: Values = np.einsum("ij,ij->i", vectors[::2], vectors[1::2], dtype=np.float64)
        return np.round(cosines, _DIGITS)

    def value(self, values: Values) -> float:
        return spearman(values, self._wanted)

    def difference(self, values: Values, first: Values) -> Difference:
        return of_correlations(values, first, self._wanted)

    @cached_property
    def _wanted(self) -> Values:
        return np.array([pair.score for pair in self.pairs.pairs])


@dataclass(frozen=True)
class ClassTask:
    """Accuracy of a classifier, or the V-measure of clusters: see classes.py."""

    data: LabelledTexts
    kind: Literal["classification", "clustering"]
    item: str = "text"

    @property
    def measure(self) -> str:
        return "accuracy" if self.kind == "classification" else "v_measure"

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(text.text for text in self.data.texts)

    @cached_property
    def places(self) -> tuple[str, ...]:
        return tuple(text.place for text in self.data.texts)

    @cached_property
    def parts(self) -> tuple[Rows, Rows]:
        """The rows to learn from, and the rows to be judged by. Raises InputError."""
        return halves(self.data)

    @property
    def n_items(self) -> int:
        return len(self.parts[1]) if self.kind == "classification" else len(self.texts)

    @property
    def about(self) -> str:
        learned = f", {len(self.parts[0]):,} to learn from" if self.kind == "classification" else ""
        return f"{counted(self.n_items, self.item)} of {len(set(self._labels))} labels{learned}"

    def values(self, vectors: Vectors, on_done: OnDone) -> Values:
        if self.kind == "classification":
            return classified(vectors, self._labels, self.parts, on_done)
        return clustered(vectors, self._labels, on_done)

    def value(self, values: Values) -> float:
        return float(values.mean())

    def difference(self, values: Values, first: Values) -> Difference:
        return (of_means if self.kind == "classification" else of_samples)(values, first)

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        return tuple(text.label for text in self.data.texts)
