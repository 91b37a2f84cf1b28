"""How good a ranking is, by trec_eval itself, through pytrec-eval-terrier: nDCG@10, recall@10, MRR@10, MAP.

The only file that imports it. Knows ids, grades and ranks; nothing of questions or passages.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import MissingPackageError
from q3e_local.evaluation.runs import K

Values = NDArray[np.float64]
"""A measure's value for each question (n,), from 0 to 1."""

# Our names, which are MTEB's, and trec_eval's. Its reciprocal rank knows no limit: it gets rankings of ten.
_NAMES = {"ndcg_at_10": "ndcg_cut_10", "recall_at_10": "recall_10", "mrr_at_10": "recip_rank", "map": "map"}
# For which there are wheels; on others the extra goes without the package, as pyproject.toml says.
_MACHINES = ("x86_64", "AMD64", "arm64")


def of_rankings(grades: Sequence[Mapping[str, int]], ranked: Sequence[Sequence[str]]) -> dict[str, Values]:
    """The four measures of rankings, each of which has the ids of one question, best first.

    An id that `grades` does not have is no answer. trec_eval orders by scores, and of equal ones by ids in the order
    of the alphabet, last first; it gets scores that are all different, so that the order here is the order that
    counts. Raises MissingPackageError.
    """
    evaluator = trec_eval().RelevanceEvaluator
    labels = {str(number): dict(of_question) for number, of_question in enumerate(grades)}

    def evaluated(measures: set[str], depth: int | None) -> dict[str, dict[str, float]]:
        run = {
            str(number): {name: float(-place) for place, name in enumerate(names[:depth])}
            for number, names in enumerate(ranked)
        }
        found: dict[str, dict[str, float]] = evaluator(labels, measures).evaluate(run)
        return found

    whole = evaluated({"ndcg_cut.10", "recall.10", "map"}, None)
    of_ten = evaluated({"recip_rank"}, K)
    return {
        name: np.array([{**whole.get(key, {}), **of_ten.get(key, {})}.get(theirs, 0.0) for key in labels])
        for name, theirs in _NAMES.items()
    }


def agreement(ranked: Sequence[Sequence[str]], first: Sequence[Sequence[str]]) -> Values:
    """For each question which share of the first ranking's first ten is among this ranking's first ten."""
    shares = [
        len(set(names[:K]) & set(of_first[:K])) / len(of_first[:K]) if of_first else 1.0
        for names, of_first in zip(ranked, first, strict=True)
    ]
    return np.array(shares)


def trec_eval() -> Any:
    """The library. Raises MissingPackageError."""
    try:
        import pytrec_eval
    except ImportError:
        extra = "eval" if platform.machine() in _MACHINES else None
        raise MissingPackageError("measuring rankings", "pytrec-eval-terrier", extra) from None
    return pytrec_eval
