"""Scores of texts with each other, and of pairs of texts.

Knows vectors; texts are only handed on with the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import OptionError
from q3e_local.jobs.rows import check_texts, check_threshold, clamped, reaches, same_dim, unit_rows
from q3e_local.vectors import Vectors, scores
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table

N_MATRIX_MAX = 10_000  # rows of a matrix: 400 MB


@dataclass(frozen=True, eq=False)
class Similarities:
    """The score of every text with every other: `scores` (n, n)."""

    scores: Vectors
    texts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Similarities: {counted(len(self.scores), 'text')}, scores {self.scores.shape}>"

    def _repr_html_(self) -> str:
        names = self.texts or [str(row) for row in range(len(self.scores))]
        rows = ([name, *found] for name, found in zip(names, self.scores.tolist(), strict=True))
        return html_table(["", *names], rows)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The score of each pair, and whether it is kept."""

    scores: Vectors
    kept: NDArray[np.bool_]
    threshold: float

    def __repr__(self) -> str:
        return f"<Pairs: {self._summary()}>"

    def _repr_html_(self) -> str:
        rows = zip(range(len(self.scores)), self.scores.tolist(), self.kept.tolist(), strict=True)
        return html_table(["pair", "score", "kept"], rows, self._summary())

    def _summary(self) -> str:
        return f"{int(self.kept.sum()):,} of {counted(len(self.kept), 'pair')} at {self.threshold} or above"


def similar(vectors: Vectors, texts: Sequence[str] = ()) -> Similarities:
    """Compare every text with every other. Raises OptionError for more than a matrix of them can hold."""
    unit_rows(vectors)
    check_texts(texts or None, len(vectors))
    check_matrix(len(vectors))
    return Similarities(clamped(scores(vectors, vectors)), tuple(texts))


def check_matrix(n_texts: int) -> None:
    """Raise OptionError for more texts than a matrix of all their scores can hold."""
    if n_texts > N_MATRIX_MAX:
        raise OptionError(
            f"a matrix of {n_texts:,} texts is too large, at most {N_MATRIX_MAX:,}; duplicates needs none"
        )


def filter_pairs(left: Vectors, right: Vectors, threshold: float = 0.7) -> Pairs:
    """Compare row by row: a pair is kept whose score is at the threshold or above it."""
    unit_rows(left, "left")
    unit_rows(right, "right")
    check_threshold(threshold)
    same_dim(left, right, "left", "right")
    if len(left) != len(right):
        raise OptionError(f"left and right must have as many rows as each other, got {len(left)} and {len(right)}")
    found = clamped(np.einsum("ij,ij->i", left, right))
    return Pairs(found, reaches(found, threshold), threshold)
