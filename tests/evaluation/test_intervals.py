"""Intervals: what they say of differences that are there, and that are not; against NumPy's own draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from q3e_local.evaluation.intervals import of_correlations, of_means, of_samples, spearman


def test_the_interval_of_a_mean_is_that_of_its_normal_distribution():
    """With so many questions the distribution of the mean is normal, whose quantiles scipy knows."""
    rng = np.random.default_rng(7)
    first = rng.uniform(size=2000)
    values = first + rng.normal(0.02, 0.1, 2000)
    found = of_means(values, first)
    spread = norm.ppf(0.975) * np.std(values - first) / np.sqrt(2000)
    assert found.value == pytest.approx(np.mean(values) - np.mean(first))
    assert (found.low, found.high) == pytest.approx((found.value - spread, found.value + spread), abs=3e-4)
    assert found.is_shown


def test_the_same_questions_are_drawn_for_both():
    """Questions differ widely among each other, and hardly between columns: only a paired interval is narrow."""
    first = np.linspace(0, 1, 40)
    better = of_means(np.clip(first + 0.01, 0, 2), first)
    assert (better.low, better.high) == pytest.approx((0.01, 0.01))
    assert better.is_shown


def test_what_is_equal_or_uncertain_is_no_difference():
    values = np.array([0.2, 0.9, 0.4, 1.0])
    assert of_means(values, values).is_shown is False
    assert of_means(values, values[::-1]).is_shown is False
    assert of_means(values, values[::-1]).interval.startswith("-0.")


def test_spearman_ranks():
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 400])) == pytest.approx(1)
    # By hand: the squared differences of ranks are 0, 1, 1, 0, so 1 - 6 * 2 / (4 * 15).
    assert spearman(np.array([1.0, 3, 2, 4]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.8)
    assert spearman(np.ones(4), np.array([1.0, 2, 3, 4])) == 0


def test_a_correlation_that_is_lost_is_shown_and_one_that_is_kept_is_not():
    rng = np.random.default_rng(3)
    wanted = rng.uniform(size=120)
    first = wanted + rng.normal(0, 0.1, 120)
    lost = of_correlations(rng.uniform(size=120), first, wanted)
    assert lost.high < -0.5
    kept = of_correlations(wanted + rng.normal(0, 0.1, 120), first, wanted)
    assert not kept.is_shown
    assert abs(kept.value) < 0.03


def test_samples_are_their_own_draws():
    first = np.linspace(0.4, 0.6, 101)
    found = of_samples(first - np.linspace(0, 1, 101), first)
    assert (found.value, found.low, found.high) == pytest.approx((-0.5, -0.975, -0.025))
    assert found.is_shown
