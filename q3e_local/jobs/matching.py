"""Each text's nearest in a list of standard phrases, or none of them.

Knows vectors; texts are only handed on with the result. Takes a block of rows at a time, so that no matrix of all
scores is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import OptionError
from q3e_local.jobs.rows import check_texts, check_threshold, clamped, reaches, same_dim, unit_rows
from q3e_local.vectors import Vectors, scores, top_k
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table

_BLOCK_SCORES = 1 << 22  # of a block: 16 MB


@dataclass(frozen=True, eq=False)
class Matches:
    """The nearest phrases of each text, best first: `nearest` (n, top) are their row numbers, `scores` (n, top)."""

    nearest: NDArray[np.intp]
    scores: Vectors
    threshold: float
    texts: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()

    @property
    def margin(self) -> Vectors:
        """How far the best phrase is ahead of the second (n,); NaN where there is one phrase only."""
        if self.scores.shape[1] == 1:
            return np.full(len(self.scores), np.nan, np.float32)
        ahead: Vectors = self.scores[:, 0] - self.scores[:, 1]
        return ahead

    @property
    def is_match(self) -> NDArray[np.bool_]:
        """Whether the best phrase is at the threshold or above it."""
        return reaches(self.scores[:, 0], self.threshold)

    def __repr__(self) -> str:
        n_matches, n_texts = int(self.is_match.sum()), counted(len(self.scores), "text")
        return f"<Matches: {n_matches:,} of {n_texts} at {self.threshold} or above>"

    def _repr_html_(self) -> str:
        texts = self.texts or [str(row) for row in range(len(self.scores))]
        phrases = self.phrases or [str(row) for row in range(int(self.nearest.max()) + 1)]
        nearest = [
            phrases[row] if is_match else "no match"
            for row, is_match in zip(self.nearest[:, 0], self.is_match, strict=True)
        ]
        columns = texts, nearest, self.scores[:, 0].tolist(), self.margin.tolist()
        return html_table(["text", "phrase", "score", "margin"], zip(*columns, strict=True))


def match(
    vectors: Vectors,
    phrases: Vectors,
    threshold: float = 0.7,
    top: int = 2,
    texts: Sequence[str] = (),
    phrase_texts: Sequence[str] = (),
) -> Matches:
    """Find for each text the `top` phrases that are nearest to it: two at least, as the margin takes two."""
    unit_rows(vectors)
    unit_rows(phrases, "phrases")
    same_dim(vectors, phrases, "texts", "phrases")
    check_threshold(threshold)
    check_texts(texts or None, len(vectors))
    check_texts(phrase_texts or None, len(phrases), "phrase_texts")
    if top < 2:
        raise OptionError(f"top must be at least 2, got {top}", "top")
    n_wanted = min(top, len(phrases))
    nearest = np.empty((len(vectors), n_wanted), np.intp)
    found = np.empty((len(vectors), n_wanted), np.float32)
    n_rows = max(1, _BLOCK_SCORES // len(phrases))
    for start in range(0, len(vectors), n_rows):
        block = slice(start, start + n_rows)
        nearest[block], found[block] = top_k(clamped(scores(vectors[block], phrases)), n_wanted)
    return Matches(nearest, found, threshold, tuple(texts), tuple(phrase_texts))
