"""Chapters of a transcript: consecutive texts merged while they are of one theme.

Knows vectors in order, nothing of texts. NumPy alone; time grows with the number of texts, not with its square.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import OptionError
from q3e_local.jobs.rows import check_texts, most_central, name_of, unit_rows
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table

_ROWS_OF_A_CHAPTER = 3  # at least, on average, where their number is chosen
_WORTH = 3.0  # times the scatter of one text
_ALIKE = 1e-6  # scatter that is float32's own


@dataclass(frozen=True)
class Chapter:
    """Texts `first` to `last`, both inside. `central` are their row numbers, most typical first."""

    first: int
    last: int
    central: tuple[int, ...]
    score: float  # the mean score of its texts with its centre

    def __repr__(self) -> str:
        return f"<Chapter: texts {self.first} to {self.last}, mean score {self.score:.3f}>"


@dataclass(frozen=True)
class Chapters:
    """All of them, in order; together they are the whole."""

    chapters: tuple[Chapter, ...]
    texts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        n_texts = self.chapters[-1].last + 1 if self.chapters else 0
        return f"<Chapters: {counted(len(self.chapters), 'chapter')} of {counted(n_texts, 'text')}>"

    def _repr_html_(self) -> str:
        rows = (
            (number, chapter.first, chapter.last, chapter.score, name_of(chapter.central[0], self.texts, 80))
            for number, chapter in enumerate(self.chapters, 1)
        )
        return html_table(["chapter", "first", "last", "mean score", "most central"], rows)


def chapters(vectors: Vectors, n: int | None = None, texts: Sequence[str] | None = None) -> Chapters:
    """Part consecutive texts into `n` chapters, or into as many as part them best.

    Neighbours are merged by Ward's rule: first the two whose merging adds least to the scatter inside chapters.
    """
    unit_rows(vectors)
    check_texts(texts, len(vectors))
    n_rows = len(vectors)
    check_chapters(n, n_rows)
    starts, costs = _merges(vectors)
    if n is None:
        n = _best_number(costs)
    begins = np.sort(np.concatenate([[0], starts[n_rows - n :]])).astype(np.intp)
    ends = np.append(begins[1:], n_rows)
    found = (_chapter(vectors, int(first), int(end)) for first, end in zip(begins, ends, strict=True))
    return Chapters(tuple(found), tuple(texts or ()))


def check_chapters(n: int | None, n_texts: int) -> None:
    """Raise OptionError for a number of chapters that so many texts cannot have."""
    if n is not None and not 1 <= n <= n_texts:
        raise OptionError(f"the number of chapters must be between 1 and that of the texts, {n_texts}, got {n}")


def _merges(vectors: Vectors) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """All merges down to one chapter: the row at which the later one began, and the scatter that was added."""
    n_rows = len(vectors)
    sums = vectors.copy()  # of the chapter that begins at a row
    ends = list(range(1, n_rows + 1))  # of the chapter that begins at a row; 0 where none begins any more
    begins = list(range(-1, n_rows))  # of the chapter that ends before a row
    heap: list[tuple[float, int, int, int]] = []

    def offer(begin: int, middle: int, end: int) -> None:
        n_earlier, n_later = middle - begin, end - middle
        apart = sums[begin] / n_earlier - sums[middle] / n_later
        cost = n_earlier * n_later / (n_earlier + n_later) * float(apart @ apart)
        heapq.heappush(heap, (cost, begin, middle, end))

    for row in range(n_rows - 1):
        offer(row, row + 1, row + 2)
    starts: list[int] = []
    costs: list[float] = []
    while len(starts) < n_rows - 1:
        cost, begin, middle, end = heapq.heappop(heap)
        if ends[begin] != middle or ends[middle] != end:
            continue  # one of the two chapters has grown since
        starts.append(middle)
        costs.append(max(cost, 0.0))
        sums[begin] += sums[middle]
        ends[begin], ends[middle], begins[end] = end, 0, begin
        if begin > 0:
            offer(begins[begin], begin, end)
        if end < n_rows:
            offer(begin, end, ends[end])
    return np.array(starts, np.intp), np.array(costs, np.float64)


def _best_number(costs: NDArray[np.float64]) -> int:
    """The most chapters whose last boundary is worth its place; 1 where none is.

    Merging two stretches of one theme adds about the scatter of one text, however long they are: a boundary must save
    a few times that. So a single strange line makes no chapter, and of texts without a theme there is one.
    """
    n_rows = len(costs) + 1
    inside = np.cumsum(costs)
    for n in range(n_rows // _ROWS_OF_A_CHAPTER, 1, -1):
        of_one_text = max(float(inside[n_rows - n - 1]) / (n_rows - n), _ALIKE)
        if costs[n_rows - n] >= _WORTH * of_one_text:
            return n
    return 1


def _chapter(vectors: Vectors, first: int, end: int) -> Chapter:
    order, found = most_central(vectors[first:end])
    return Chapter(first, end - 1, tuple((order + first).tolist()), float(found.mean()))
