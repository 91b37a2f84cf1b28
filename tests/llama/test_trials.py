"""Which setting wins a race: only a setting that is clearly faster in most rounds; and a race in real work."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import N_BATCH, Sequences

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama import binding
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.settings.trials import Race


def raced(ratios: list[float]) -> tuple[str, int]:
    """The winner of a race between `old` and a `new` that is faster by these ratios, and the rounds it took."""
    race, n_rounds = Race(1, [2]), 0
    for ratio in ratios:
        if race.is_over:
            break
        race.add({1: 100.0, 2: 100.0 * ratio})
        n_rounds += 1
    assert race.is_over
    return race.winner, n_rounds


@pytest.mark.parametrize(
    ("ratios", "winner", "n_rounds"),
    [
        ([1.1, 1.1, 1.1, 1.1, 1.1], 2, 5),
        ([1.2, 1.0, 1.2, 1.2, 1.2], 2, 5),  # a single round may be lost
        ([1.1, 0.9, 1.1, 1.1, 1.1], 1, 5),  # but then the other rounds must leave no doubt
        ([1.1, 0.9, 1.1, 0.99], 1, 4),  # two may not
        ([1.03, 1.03, 1.03, 1.03, 1.03], 1, 5),  # faster, but not clearly
        ([1.0, 1.0], 1, 2),
        ([0.8], 1, 1),  # hopeless
        ([1.5, 1.5, 1.0, 1.5, 1.5], 2, 5),
    ],
)
def test_a_winner_wins_clearly_and_most_of_the_time(ratios, winner, n_rounds):
    assert raced(ratios) == (winner, n_rounds)


def test_of_several_winners_the_fastest_is_taken():
    race = Race(1, [2, 3, 4])
    while not race.is_over:
        race.add({1: 100.0, 2: 120.0, 3: 150.0, 4: 50.0})
    assert race.winner == 3
    assert len(race.ratios[4]) == 1


def test_before_the_end_nobody_has_won():
    race = Race(1, [2])
    race.add({1: 1.0, 2: 2.0})
    assert (race.is_over, race.winner) == (False, 1)


def test_each_round_goes_the_other_way_round():
    race, orders = Race(1, [2, 3]), []
    while not race.is_over:
        orders.append(race.order())
        race.add(dict.fromkeys(orders[-1], 1.0) | {2: 1.1, 3: 1.1})
    assert orders == [[1, 2, 3], [3, 2, 1], [1, 2, 3], [3, 2, 1], [1, 2, 3]]


def test_noise_alone_seldom_makes_a_winner():
    noise = random.Random(0)
    n_won = 0
    for _ in range(1000):
        race = Race(1, [2])
        while not race.is_over:
            race.add({name: noise.gauss(100, 7) for name in (1, 2)})
        n_won += race.winner == 2
    assert n_won < 40


def test_a_candidate_that_is_dropped_cannot_win_and_is_not_measured_again():
    race = Race(1, [2, 3])
    race.add({1: 1.0, 2: 2.0, 3: 1.5})
    race.drop(2)
    assert (race.order(), race.left) == ([3, 1], [3])
    while not race.is_over:
        race.add({1: 1.0, 3: 1.5})
    assert (race.winner, race.ratios[2]) == (3, [2.0])


def test_without_others_there_is_no_race():
    assert (Race(1, []).is_over, Race(1, [1]).is_over, Race(1, []).winner) == (True, True, 1)


# In real work

Cost = Callable[[int], float]


@dataclass
class FakeClock:
    """Time passes by what is computed: a batch takes as long as `cost` says for the threads at work."""

    cost: Cost
    n_threads: list[int] = field(default_factory=list)
    now: float = 0.0
    looks: int = 0

    def __call__(self) -> float:
        self.looks += 1
        if self.looks % 2 == 0:  # the second look of a batch
            self.now += self.cost(self.n_threads[-1])
        return self.now


Work = Callable[..., tuple[LlamaEngine, list[np.ndarray], FakeClock]]


@pytest.fixture
def work(f32: Path, sequences: Sequences, monkeypatch: pytest.MonkeyPatch) -> Work:
    """An engine after 20 batches on a machine of 1 core with 2 CPUs. Batches are full unless `lengths` is given."""
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    monkeypatch.setattr(machine, "logical_cpus", lambda: 2)

    def run(cost: Cost, lengths: tuple[int, ...] = (2, 9, 9, 9), **options: Any) -> Any:
        clock, set_threads = FakeClock(cost), binding.Context.set_threads

        def counted(self: binding.Context, n_threads: int) -> None:
            clock.n_threads.append(n_threads)
            set_threads(self, n_threads)

        monkeypatch.setattr(binding.Context, "set_threads", counted)
        config = EngineConfig(**{"n_batch": N_BATCH, "self_tuning": True} | options)
        with LlamaEngine(f32, config, clock) as engine:
            return engine, [engine.decode([sequences[n] for n in lengths]) for _ in range(20)], clock

    return run


def test_full_batches_of_real_work_find_the_fastest_number_of_threads(work):
    engine, vectors, clock = work(lambda n: 1 / n)
    assert engine.n_threads == 2
    assert engine.settings.explained("n_threads") == "n_threads 2 (fastest in this work)"
    # Five rounds of both, after each the old number again; then the winner for good.
    assert clock.n_threads == [1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 2]
    for vector in vectors:
        np.testing.assert_array_equal(vector, vectors[0])


@pytest.mark.parametrize("cost", [lambda n: 1.0, lambda n: float(n), lambda n: 1 - n / 100])
def test_what_is_not_clearly_faster_changes_nothing(work, cost):
    engine, _, clock = work(cost)
    assert (engine.n_threads, clock.n_threads[-1]) == (1, 1)
    assert engine.settings.reasons["n_threads"].source == "default"


@pytest.mark.parametrize("options", [{"self_tuning": False}, {"n_threads": 1}, {"lengths": (9,)}])
def test_nothing_is_tried_unless_it_is_wanted_and_open_nor_with_small_batches(work, options):
    engine, _, clock = work(lambda n: 1 / n, **options)
    assert (engine.n_threads, clock.n_threads, clock.looks) == (1, [], 0)
