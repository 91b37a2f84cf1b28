"""Whether the CPU is faster than a GPU that computes with the CPU's memory: an integrated one, or a Mac's.

Takes two loaded models and a clock; prints and keeps nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from q3e_local.checks.measured import LENGTHS, SAMPLE_S, SAMPLE_TOKENS, Row, mean
from q3e_local.llama.settings.defaults import Tuned
from q3e_local.llama.settings.kept import Platform
from q3e_local.llama.settings.placement import Placement
from q3e_local.llama.settings.trials import Race


class Measured(Protocol):
    """A model whose speed is measured."""

    @property
    def platform(self) -> Platform:
        """Where the result counts."""

    @property
    def placement(self) -> Placement:
        """Where the layers are."""

    def make(self, n_texts: int, n_tokens: int) -> list[str]:
        """Texts of exactly so many tokens, which no earlier call made."""

    def speed(self, texts: list[str]) -> float:
        """Tokens a second of these texts."""


@dataclass(frozen=True)
class Contest:
    """The CPU against a GPU that shares its memory: `platform` is the GPU's, with `n_layers` of the model there."""

    platform: Platform
    n_layers: int
    cpu_is_faster: bool | None  # None: there was no time to tell
    rows: list[Row]
    left_out: list[str]
    seconds: float

    @property
    def kept(self) -> Tuned | None:
        """What is to be kept for the GPU: that it is left alone, or that it is not."""
        if self.cpu_is_faster is None:
            return None
        return Tuned(None, None, date.today().isoformat(), n_gpu_layers=0 if self.cpu_is_faster else self.n_layers)


def cpu_against_gpu(
    on_cpu: Measured,
    on_gpu: Measured,
    budget_s: float,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Contest:
    """Let the CPU and a GPU do the same work in turn. The CPU must be clearly faster in most rounds."""
    began, n_layers = clock(), on_gpu.placement.n_on_gpu
    models = {n_layers: on_gpu, 0: on_cpu}
    race = Race(n_layers, [0])
    speeds: dict[int, list[dict[str, float]]] = {value: [] for value in models}
    tell(f"n_gpu_layers: {n_layers}, 0")
    pace = min(_paces(models.values()))
    n_tokens = max(
        LENGTHS["medium"], min(SAMPLE_TOKENS[1], int(SAMPLE_S * pace)) // LENGTHS["medium"] * LENGTHS["medium"]
    )
    while not race.is_over:
        round_s = 2 * len(LENGTHS) * n_tokens / pace
        if clock() - began + round_s > budget_s:
            left = [f"n_gpu_layers: no time to tell {n_layers} and 0 apart; it takes about {round_s * 5:.0f} s more"]
            return Contest(on_gpu.platform, n_layers, None, _contest_rows(speeds, race, None), left, clock() - began)
        texts = {size: on_gpu.make(max(1, n_tokens // length), length) for size, length in LENGTHS.items()}
        for value in race.order():
            speeds[value].append({size: models[value].speed(of_size) for size, of_size in texts.items()})
        race.add({value: mean(of[-1]) for value, of in speeds.items()})
    cpu_is_faster = race.winner == 0
    rows = _contest_rows(speeds, race, race.winner)
    return Contest(on_gpu.platform, n_layers, cpu_is_faster, rows, [], clock() - began)


def _paces(models: Iterable[Measured]) -> Iterator[float]:
    """Tokens a second of a first look at each model, after a call that makes buffers and compiles shaders."""
    for model in models:
        model.speed(model.make(1, LENGTHS["medium"]))
        yield model.speed(model.make(1, LENGTHS["medium"]))


def _contest_rows(speeds: dict[int, list[dict[str, float]]], race: Race, winner: int | None) -> list[Row]:
    return [
        Row(
            "n_gpu_layers",
            value,
            {size: statistics.median(speed[size] for speed in rounds) for size in LENGTHS},
            statistics.median(race.ratios[value]) if race.ratios.get(value) else None,
            len(rounds),
            value == winner,
        )
        for value, rounds in speeds.items()
        if rounds
    ]
