"""Which of a few candidates is clearly the fastest, on a machine whose speed drifts.

Speeds in, a decision out: knows neither what is measured nor a clock.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

_N_ROUNDS = 5
_CLEARLY = 1.05  # times the default's speed, as the median of the rounds
_ROUND_WON = 1.02  # times the default's speed in a single round
_SHARE_WON = 0.75  # of the rounds
_HOPELESS = 0.85  # a candidate with a round below this is out
_N_ERRORS = 3  # standard errors that the mean must be above no gain at all


class Race:
    """Rounds in which each candidate is measured once, beside the default.

    Only a candidate that is clearly faster in most rounds replaces the default; one that no longer can drops out.
    """

    def __init__(self, default: int, others: Sequence[int]) -> None:
        self.default = default
        self.ratios: dict[int, list[float]] = {other: [] for other in others if other != default}
        self._n_done = 0
        self.left = list(self.ratios)  # the candidates that may still win

    @property
    def is_over(self) -> bool:
        return not self.left or self._n_done >= _N_ROUNDS

    @property
    def n_rounds_left(self) -> int:
        return 0 if self.is_over else _N_ROUNDS - self._n_done

    def drop(self, candidate: int) -> None:
        """Leave out a candidate that cannot be measured any more."""
        self.left = [other for other in self.left if other != candidate]

    def order(self) -> list[int]:
        """The candidates of the next round, in the order that is the reverse of the round before."""
        if self.is_over:
            return []
        order = [self.default, *self.left]
        return order if self._n_done % 2 == 0 else order[::-1]

    def add(self, speeds: Mapping[int, float]) -> None:
        """The speeds of a round, by candidate."""
        for candidate in self.left:
            self.ratios[candidate].append(speeds[candidate] / speeds[self.default])
        self._n_done += 1
        self.left = [candidate for candidate in self.left if self._may_win(self.ratios[candidate])]

    @property
    def winner(self) -> int:
        """The default unless another has clearly won all its rounds; before the end it is the default."""
        won = {other: statistics.median(ratios) for other, ratios in self.ratios.items() if self._has_won(ratios)}
        return max(won, key=lambda other: won[other], default=self.default)

    def _may_win(self, ratios: Sequence[float]) -> bool:
        n_lost = sum(ratio < _ROUND_WON for ratio in ratios)
        n_to_win = math.ceil(_SHARE_WON * _N_ROUNDS)
        return n_lost <= _N_ROUNDS - n_to_win and min(ratios) >= _HOPELESS

    def _has_won(self, ratios: Sequence[float]) -> bool:
        if len(ratios) < _N_ROUNDS or not self._may_win(ratios):
            return False
        logs = [math.log(ratio) for ratio in ratios]
        error = statistics.stdev(logs) / math.sqrt(len(logs))
        return statistics.median(ratios) >= _CLEARLY and statistics.fmean(logs) > _N_ERRORS * error
