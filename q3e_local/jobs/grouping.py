"""Groups of near-duplicates among any number of texts, without a matrix of all their scores.

Knows vectors, and texts as far as two may be the same. Groups are single linkage: two texts may be in one because a
third is near to both, so each group says how far its farthest two are from each other.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from q3e_local.jobs.rows import SAME, OnDone, check_texts, check_threshold, name_of, unit_rows
from q3e_local.vectors import Vectors, scores
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table

_BLOCK = 2048  # rows: 16 MB of scores
# Reading two rows to compare one pair costs as much as this part of a block's product.
_FEW_PAIRS = 1 / 40
_DIM_WORTH_CUTTING = 256

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Group:
    """Texts that are near to each other. Row numbers, in order."""

    rows: tuple[int, ...]
    representative: int  # the one nearest to all others on average
    scores: tuple[float, ...]  # of each row with the representative
    is_copy: tuple[bool, ...]  # the text, or without texts the vector, is that of the representative
    lowest: float  # score of the two that are farthest from each other

    def __repr__(self) -> str:
        n_texts = counted(len(self.rows), "text")
        return f"<Group: {n_texts}, representative row {self.representative}, lowest score {self.lowest:.3f}>"


@dataclass(frozen=True)
class Duplicates:
    """The groups, largest first; texts that are near to no other are in none."""

    groups: tuple[Group, ...]
    n_rows: int
    threshold: float
    texts: tuple[str, ...] = ()

    @property
    def n_redundant(self) -> int:
        """Texts that could go, were one of each group kept."""
        return sum(len(group.rows) - 1 for group in self.groups)

    def __repr__(self) -> str:
        return f"<Duplicates: {self._summary()}>"

    def _repr_html_(self) -> str:
        rows = (
            (number, len(group.rows), group.lowest, *self._names(group))
            for number, group in enumerate(self.groups, 1)
        )
        return html_table(["group", "texts", "lowest score", "representative", "others"], rows, self._summary())

    def _summary(self) -> str:
        n_groups, n_redundant = counted(len(self.groups), "group"), counted(self.n_redundant, "text")
        return f"{n_groups} at {self.threshold} or above, {n_redundant} could go"

    def _names(self, group: Group) -> tuple[str, str]:
        others = (name_of(row, self.texts, 60) for row in group.rows if row != group.representative)
        return name_of(group.representative, self.texts, 60), " · ".join(others)


def duplicates(
    vectors: Vectors, threshold: float = 0.95, texts: Sequence[str] | None = None, progress: OnDone | None = None
) -> Duplicates:
    """Find the groups of texts whose scores reach the threshold. Equal ones are found without scores."""
    unit_rows(vectors)
    check_threshold(threshold)
    check_texts(texts, len(vectors))
    first = first_of_each(vectors, texts)
    distinct = np.flatnonzero(first == np.arange(len(vectors)))
    rows = vectors if len(distinct) == len(vectors) else vectors[distinct]
    roots = _roots(len(rows), _close_pairs(rows, threshold, progress))
    roots = distinct[roots][np.searchsorted(distinct, first)]
    order = np.argsort(roots, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)
    groups = [_group(vectors, first, part) for part in parts if len(part) > 1]
    groups.sort(key=lambda group: (-len(group.rows), group.rows))
    return Duplicates(tuple(groups), len(vectors), threshold, tuple(texts or ()))


def first_of_each(vectors: Vectors, texts: Sequence[str] | None) -> Indices:
    """For each row the first that is of the same text to the model, or without texts the same row."""
    seen: dict[bytes, int] = {}
    same = (
        (row.tobytes() for row in vectors)
        if texts is None
        else (unicodedata.normalize("NFC", text).encode() for text in texts)
    )
    digests = (hashlib.sha256(content).digest() for content in same)
    return np.array([seen.setdefault(digest, row) for row, digest in enumerate(digests)], np.intp)


def _close_pairs(vectors: Vectors, threshold: float, progress: OnDone | None) -> Iterator[tuple[Indices, Indices]]:
    """The pairs at the threshold or above it, each once, a block of rows against a block at a time."""
    bounds = _bounds(vectors)
    least = threshold - SAME
    n_rows = len(vectors)
    for top in range(0, n_rows, _BLOCK):
        upper = vectors[top : top + _BLOCK]
        for left in range(top, n_rows, _BLOCK):
            lower = vectors[left : left + _BLOCK]
            rows, columns = np.nonzero(scores(bounds[top : top + _BLOCK], bounds[left : left + _BLOCK]) >= least)
            if left == top:
                is_above = rows < columns
                rows, columns = rows[is_above], columns[is_above]
            rows, columns = _above(upper, lower, rows, columns, threshold)
            if len(rows):
                yield rows + top, columns + left
        if progress is not None:
            progress(min(top + _BLOCK, n_rows), n_rows)


def _bounds(vectors: Vectors) -> Vectors:
    """Shorter rows whose products are never below those of the rows: a quarter of each, and the length of the rest.

    By Cauchy and Schwarz the rests add at most the product of their lengths. A quarter of the work rules most pairs
    out, the more so as these models put most of a text into a vector's first numbers (MRL).
    """
    dim = vectors.shape[1]
    if dim < _DIM_WORTH_CUTTING:
        return vectors
    head = dim // 4
    rest = vectors[:, head:]
    return np.column_stack([vectors[:, :head], np.sqrt(np.einsum("ij,ij->i", rest, rest))])


def _above(
    upper: Vectors, lower: Vectors, rows: Indices, columns: Indices, threshold: float
) -> tuple[Indices, Indices]:
    """Those of the pairs that truly are at the threshold or above it."""
    if len(rows) <= _FEW_PAIRS * len(upper) * len(lower):
        found = np.einsum("ij,ij->i", upper[rows], lower[columns])
    else:
        found = scores(upper, lower)[rows, columns]
    is_above = found >= threshold
    return rows[is_above], columns[is_above]


def _roots(n_rows: int, pairs: Iterable[tuple[Indices, Indices]]) -> Indices:
    """For each row the lowest that pairs join with it, directly or through others.

    Union-find on whole arrays of pairs: each root points to a lower one, until the two rows of every pair share one.
    """
    roots: Indices = np.arange(n_rows)
    for left, right in pairs:
        while (is_apart := roots[left] != roots[right]).any():
            left, right = left[is_apart], right[is_apart]
            np.minimum.at(roots, np.maximum(roots[left], roots[right]), np.minimum(roots[left], roots[right]))
            while not np.array_equal(up := roots[roots], roots):
                roots = up
    return roots


def _group(vectors: Vectors, first: Indices, rows: Indices) -> Group:
    """The group of these rows, its scores between texts that differ."""
    distinct = np.unique(first[rows])
    place = np.searchsorted(distinct, first[rows])
    members = vectors[distinct]
    weights = np.bincount(place).astype(np.float32)
    sums = members @ (weights @ members)  # of scores with all others: the highest has the highest mean
    nearest = int(np.argmax(sums >= sums.max() - SAME * len(rows)))  # of equals the first
    to_nearest = members @ members[nearest]
    to_nearest[nearest] = 1  # what float32 makes of a length may differ in the last digit
    is_copy = place == nearest
    return Group(
        tuple(rows.tolist()),
        int(rows[np.argmax(is_copy)]),
        tuple(np.minimum(to_nearest, 1)[place].tolist()),
        tuple(is_copy.tolist()),
        _lowest(members),
    )


def _lowest(members: Vectors) -> float:
    """The lowest score between two rows, 1 for a row alone."""
    if len(members) == 1:
        return 1.0
    blocks = [members[start : start + _BLOCK] for start in range(0, len(members), _BLOCK)]
    pairs = combinations_with_replacement(blocks, 2)
    return min(1.0, *(float(scores(upper, lower).min()) for upper, lower in pairs))
