"""Who wins a race: only what is clearly faster in most rounds; noise leaves the default."""

from __future__ import annotations

import random

import pytest

from q3e_local.llama.settings.trials import N_ROUNDS, Race, Trials


def run(ratios: list[float]) -> tuple[str, int]:
    """The winner of a race between `old` and a `new` that is faster by these ratios, and the rounds it took."""
    race, n_rounds = Race("old", ["new"]), 0
    for ratio in ratios:
        if race.is_over:
            break
        race.add({"old": 100.0, "new": 100.0 * ratio})
        n_rounds += 1
    assert race.is_over
    return race.winner, n_rounds


@pytest.mark.parametrize(
    ("ratios", "winner", "n_rounds"),
    [
        ([1.1, 1.1, 1.1, 1.1, 1.1], "new", 5),
        ([1.2, 1.0, 1.2, 1.2, 1.2], "new", 5),  # one round may be lost
        ([1.1, 0.9, 1.1, 1.1, 1.1], "old", 5),  # but then the others must leave no doubt
        ([1.1, 0.9, 1.1, 0.99], "old", 4),  # two may not
        ([1.03, 1.03, 1.03, 1.03, 1.03], "old", 5),  # faster, but not clearly
        ([1.0, 1.0], "old", 2),
        ([0.8], "old", 1),  # hopeless
        ([1.5, 1.5, 1.0, 1.5, 1.5], "new", 5),
    ],
)
def test_a_winner_wins_clearly_and_most_of_the_time(ratios: list[float], winner: str, n_rounds: int) -> None:
    assert run(ratios) == (winner, n_rounds)


def test_of_several_winners_the_fastest_is_taken() -> None:
    race = Race(1, [2, 3, 4])
    while not race.is_over:
        race.add({1: 100.0, 2: 120.0, 3: 150.0, 4: 50.0})
    assert race.winner == 3
    assert len(race.ratios[4]) == 1


def test_before_the_end_nobody_has_won() -> None:
    race = Race(1, [2])
    race.add({1: 1.0, 2: 2.0})
    assert (race.is_over, race.winner) == (False, 1)


def test_each_round_goes_the_other_way_round() -> None:
    race, orders = Race(1, [2, 3]), []
    while not race.is_over:
        orders.append(race.order())
        race.add(dict.fromkeys(orders[-1], 1.0) | {2: 1.1, 3: 1.1})
    assert orders == [[1, 2, 3], [3, 2, 1], [1, 2, 3], [3, 2, 1], [1, 2, 3]]


def test_noise_alone_seldom_makes_a_winner() -> None:
    noise = random.Random(0)
    n_won = 0
    for _ in range(1000):
        race = Race("old", ["new"])
        while not race.is_over:
            race.add({name: noise.gauss(100, 7) for name in ("old", "new")})
        n_won += race.winner == "new"
    assert n_won < 40


def test_whoever_is_dropped_cannot_win_and_is_not_asked_again() -> None:
    race = Race(1, [2, 3])
    race.add({1: 1.0, 2: 2.0, 3: 1.5})
    race.drop(2)
    assert (race.order(), race.left) == ([3, 1], (3,))
    while not race.is_over:
        race.add({1: 1.0, 3: 1.5})
    assert (race.winner, race.ratios[2]) == (3, [2.0])


def test_without_others_there_is_no_race() -> None:
    assert (Race(1, []).is_over, Race(1, [1]).is_over, Race(1, []).winner) == (True, True, 1)
    trials = Trials(1, [])
    trials.done(5.0)
    assert (trials.is_over, trials.current) == (True, 1)


def test_trials_take_turns_and_end_with_the_winner() -> None:
    trials, turns = Trials(2, [4, 1]), []
    while not trials.is_over:
        turns.append(trials.current)
        trials.done({2: 100.0, 4: 130.0, 1: 60.0}[trials.current])
    assert turns == [2, 4, 1, *[4, 2, 2, 4] * ((N_ROUNDS - 1) // 2)]
    assert trials.current == 4
