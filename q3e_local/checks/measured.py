"""What measuring the settings of a model yields, and the texts it is measured with."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

LENGTHS = {"short": 16, "medium": 128}  # tokens of a text
SAMPLE_S = 0.5  # about how long the texts of a size are to take in a round
SAMPLE_TOKENS = (128, 16_384)  # at least and at most


@dataclass(frozen=True)
class Row:
    """A value of a setting: its speeds by size of text, in tokens a second, as medians of the rounds."""

    setting: str
    value: int
    speeds: dict[str, float]
    ratio: float | None  # to the speed of the value used so far, median of the rounds; None for that value
    n_rounds: int
    is_best: bool
    crash: str | None = None  # how the process ended with it, if it did


def mean(speeds: dict[str, float]) -> float:
    """Geometric, so that each size of text counts the same."""
    return math.exp(statistics.fmean(math.log(speed) for speed in speeds.values()))
