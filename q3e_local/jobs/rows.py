"""What every job asks of its input: unit rows, a threshold that is a score, texts that are as many as the rows.

And what several jobs say of rows: which are most central, and their names. Knows arrays and the error tree, no job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import OptionError
from q3e_local.vectors import Vectors, finish
from q3e_local.wording.html_table import shortened

OnDone = Callable[[int, int], None]
"""Called as `progress(n_done, n_total)` while a job is at work."""

SAME = 1e-5  # between scores of equal texts: what float32 and another batch make of them
_TOLERANCE = 1e-3  # rows that were kept as float16 are nearly as far off


def unit_rows(vectors: Vectors, what: str = "vectors", n_min: int = 1) -> None:
    """Raise OptionError unless the vectors are float32 (n, dim) with rows of length 1; it names a row that is not.

    NaN and infinity have no length, so they are refused too.
    """
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype != np.float32:
        raise OptionError(f"{what} must be a float32 array of shape (n, dim), got {described(vectors)}")
    if len(vectors) < n_min:
        raise OptionError(f"{what} must have at least {n_min} rows, got {len(vectors)}")
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    # subtle: not `> _TOLERANCE`, which NaN would pass.
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _TOLERANCE))
    if wrong.size:
        row = int(wrong[0])
        raise OptionError(
            f"{what} must have rows of length 1, row {row} has length {lengths[row]:.4g}; "
            "q3e_local.vectors.finish scales rows"
        )


def same_dim(vectors: Vectors, others: Vectors, what: str, whats: str) -> None:
    """Raise OptionError where two sets of rows cannot be compared."""
    if vectors.shape[1] != others.shape[1]:
        raise OptionError(f"{what} have {vectors.shape[1]} numbers a row, {whats} {others.shape[1]}: not comparable")


def check_threshold(threshold: float) -> None:
    """Raise OptionError for what is no score."""
    if not -1 <= threshold <= 1:  # NaN is not either
        raise OptionError(f"threshold must be between -1 and 1, got {threshold}", "threshold")


def clamped(scores: Vectors) -> Vectors:
    """The scores, from -1 to 1: float32 leaves those of a text with itself a little beside 1."""
    return np.clip(scores, -1, 1, out=scores)


def reaches(scores: Vectors, threshold: float) -> NDArray[np.bool_]:
    """Which scores are at the threshold or above it, but for what rounding loses."""
    found: NDArray[np.bool_] = scores >= threshold - SAME
    return found


def check_texts(texts: Sequence[str] | None, n_rows: int, what: str = "texts") -> None:
    """Raise OptionError unless there is one for each row."""
    if texts is not None and len(texts) != n_rows:
        raise OptionError(f"there must be one of {what} for each of the {n_rows} rows, got {len(texts)}")


def most_central(members: Vectors) -> tuple[NDArray[np.intp], Vectors]:
    """The order of some rows by their score with their common centre, highest first; and these scores, row by row.

    Scores that follow each other by less than SAME are equal, and of equal ones the first row comes first: two rows
    are always equally near to their centre, and which of their scores is larger depends on how a CPU rounds.
    """
    found = np.minimum(members @ finish(members.sum(axis=0, keepdims=True))[0], 1)
    order = np.argsort(-found)
    rank = np.concatenate([[0], np.cumsum(np.diff(found[order]) < -SAME)])
    return order[np.lexsort((order, rank))], found


def name_of(row: int, texts: Sequence[str], n_most: int) -> str:
    """The text of a row, shortened; its number where there are no texts."""
    return shortened(texts[row], n_most) if texts else str(row)


def described(given: object) -> str:
    """What somebody gave in place of vectors: its type, of an array also its shape."""
    if isinstance(given, np.ndarray):
        return f"{given.dtype} of shape {given.shape}"
    return type(given).__name__
