"""The measures of rankings are those of a second library, and do not depend on how ids are spelled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, recall_score

from q3e_local.evaluation.measures import agreement, of_rankings

N = 15  # passages that are ranked; more than ten, so that the limit of ten counts


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Grades of passages, one above 0 at least, and an order of the passages."""
    grades = draw(st.lists(st.integers(0, 3), min_size=N, max_size=N).filter(any))
    return grades, draw(st.permutations(range(N)))


def reference(grades: list[int], order: list[int]) -> dict[str, float]:
    """scikit-learn's measures of the same: an order is a score that falls with the place."""
    scores = np.empty(N)
    scores[order] = np.arange(N, 0, -1)
    relevant = np.array(grades) > 0
    in_ten = np.isin(np.arange(N), order[:10])
    first = next((place for place, row in enumerate(order[:10], 1) if relevant[row]), None)
    return {
        "ndcg_at_10": ndcg_score([grades], [scores], k=10),
        "recall_at_10": recall_score(relevant, in_ten),
        "mrr_at_10": 0.0 if first is None else 1 / first,
        "map": average_precision_score(relevant, scores),
    }


@settings(max_examples=200)
@given(st.lists(rankings(), min_size=1, max_size=4))
def test_measures_equal_those_of_scikit_learn(found):
    graded = [{f"d{row}": grade for row, grade in enumerate(grades)} for grades, _ in found]
    measured = of_rankings(graded, [[f"d{row}" for row in order] for _, order in found])
    wanted = [reference(*each) for each in found]
    for name, values in measured.items():
        assert values == pytest.approx([each[name] for each in wanted], abs=1e-6), name


@given(rankings(), st.permutations(range(N)))
def test_other_names_change_no_measure(found, spelled):
    """trec_eval orders equal scores by their ids; it never sees equal ones."""
    grades, order = found
    plain = of_rankings(
        [{f"d{row:02}": grade for row, grade in enumerate(grades)}], [[f"d{row:02}" for row in order]]
    )
    names = [f"{spelled[row]:02}" for row in range(N)]
    renamed = of_rankings([dict(zip(names, grades, strict=True))], [[names[row] for row in order]])
    assert all(plain[name] == renamed[name] for name in plain)


def test_what_is_not_found_counts_as_not_found():
    measured = of_rankings([{"a": 1, "b": 1}, {"c": 1}], [["x", "a"], []])
    assert measured["recall_at_10"].tolist() == [0.5, 0]
    assert measured["mrr_at_10"].tolist() == [0.5, 0]
    assert measured["map"].tolist() == [0.25, 0]  # (1 / 2 + 0) / 2


def test_agreement_is_the_share_of_the_first_ten_that_stays():
    first = [list("abcdefghijKL"), list("ab"), []]
    other = [list("KLabcdefghij"), list("ax"), []]
    assert agreement(other, first) == pytest.approx([0.8, 0.5, 1])
    assert agreement(first, first) == pytest.approx([1, 1, 1])
