"""Differences between two columns, each with a 95 % interval of a paired bootstrap, by scipy.

The questions are drawn with replacement, the same ones for both columns, and the middle 95 % of the differences are
the interval (Efron and Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13). The draws are the same in
every run. The only file that imports scipy's bootstrap. Knows numbers alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import MissingPackageError

Values = NDArray[np.float64]

_DRAWS = 9_999
_SLOW_DRAWS = 1_999  # of a correlation, which is ranked anew for each
_DRAWN_AT_ONCE = 4_000_000  # numbers, of 8 bytes each
_LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A measure of one column less that of the first, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether the data show that there is a difference: 0 lies outside of the interval."""
        return self.low > 0 or self.high < 0

    @property
    def interval(self) -> str:
        """`-0.0312 to +0.0101`."""
        return f"{self.low:+.4f} to {self.high:+.4f}"


def of_means(values: Values, first: Values) -> Difference:
    """The difference of two means, of which each item has a value in both (n,)."""
    differences = values - first
    batch = max(1, _DRAWN_AT_ONCE // len(differences))
    low, high = _ends((differences,), np.mean, _DRAWS, vectorized=True, batch=batch)
    return Difference(float(differences.mean()), low, high)


def of_correlations(scores: Values, first: Values, wanted: Values) -> Difference:
    """The difference of two Spearman correlations with the `wanted` scores, all of the same pairs (n,)."""

    def difference(scores: Values, first: Values, wanted: Values) -> float:
        return spearman(scores, wanted) - spearman(first, wanted)

    low, high = _ends((scores, first, wanted), difference, _SLOW_DRAWS, vectorized=False, batch=None)
    return Difference(difference(scores, first, wanted), low, high)


def of_samples(values: Values, first: Values) -> Difference:
    """The mean difference of two measures that were computed on the same bootstrap samples (n_samples,)."""
    differences = values - first
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(differences, (tail, 1 - tail))
    return Difference(float(differences.mean()), float(low), float(high))


def spearman(scores: Values, wanted: Values) -> float:
    """Spearman's rank correlation; 0 where all scores are equal, and so rank nothing."""
    stats = scipy_stats()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        found = float(stats.spearmanr(scores, wanted).statistic)
    return found if np.isfinite(found) else 0.0


def _ends(
    data: tuple[Values, ...], statistic: Callable[..., object], n_draws: int, *, vectorized: bool, batch: int | None
) -> tuple[float, float]:
    stats = scipy_stats()
    # The percentile method has an answer where all differences are equal, and the corrected ones have none.
    found = stats.bootstrap(
        data, statistic, n_resamples=n_draws, batch=batch, vectorized=vectorized, paired=True,
        confidence_level=_LEVEL, method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def scipy_stats() -> Any:
    """The library. Raises MissingPackageError."""
    try:
        from scipy import stats
    except ImportError:
        raise MissingPackageError("intervals", "scipy", "eval") from None
    return stats
