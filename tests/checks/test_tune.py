"""`q3e-local tune` takes what is clearly faster, and nothing else. Speeds are a fake's; no test looks at a time."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from q3e_local.checks.tune import TuneResult, Tuning
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import CrashError, NotEnoughMemoryError
from q3e_local.llama.settings.defaults import TUNABLE, Host, Settings, Tuned, defaults, settle

HOST = Host(n_cores=4)
N_CPUS = 8

Speed = Callable[[Settings], float]
Crashes = Callable[[Settings], bool]


class Time:
    """A clock that only computing moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeModel:
    """A model as fast as `speed` says of its settings, in tokens a second; a text is as many tokens as bytes."""

    def __init__(self, time: Time, speed: Speed) -> None:
        self._time, self._speed = time, speed
        self._numbers = itertools.count()
        self.settings = defaults(HOST)
        self.worked: list[tuple[Settings, list[str]]] = []

    def use(self, settings: Settings) -> None:
        self.settings = settings

    def make(self, n_texts: int, n_tokens: int) -> list[str]:
        return [f"{next(self._numbers):0{n_tokens}d}" for _ in range(n_texts)]

    def speed(self, texts: list[str]) -> float:
        self.worked.append((self.settings, texts))
        speed = self._speed(self.settings)
        self._time.now += sum(map(len, texts)) / speed
        return speed


def tuned(speed: Speed, budget_s: float = 1000.0, host: Host = HOST) -> tuple[TuneResult, FakeModel]:
    """The result, and the model that was measured."""
    time = Time()
    model = FakeModel(time, speed)
    return Tuning(model, host, n_cpus=N_CPUS, clock=time).run(budget_s), model


def best(found: TuneResult) -> dict[str, Any]:
    """The settings that an engine will have."""
    settings = settle(EngineConfig(), HOST, found.best)
    return {name: getattr(settings, name) for name in TUNABLE}


DEFAULT = {"n_threads": 4, "n_batch": 512}


@pytest.mark.parametrize(
    ("speed", "changed"),
    [
        (lambda settings: 1000.0, {}),
        (lambda settings: 1000.0 + 50 * settings.n_threads, {"n_threads": 8}),
        (lambda settings: 1200.0 if settings.n_threads == 2 else 1000.0, {"n_threads": 2}),
        (lambda settings: 1000.0 + settings.n_batch, {"n_batch": 2048}),
        (lambda settings: 1200.0 if settings.n_batch == 1024 else 1000.0, {"n_batch": 1024}),
        (lambda settings: 3000.0 - settings.n_batch, {}),
        (lambda settings: 1000.0 + settings.n_batch / 100, {}),  # faster, but not clearly
        (lambda settings: 1000 * settings.n_threads * settings.n_batch, {"n_threads": 8, "n_batch": 2048}),
    ],
)
def test_what_is_clearly_faster_is_taken(speed, changed):
    found, _ = tuned(speed)
    assert best(found) == DEFAULT | changed
    assert found.left_out == []
    marked = {row.setting: row.value for row in found.rows if row.is_best}
    assert marked == DEFAULT | changed


def test_the_table_has_every_value_with_the_speeds_of_each_size():
    found, _ = tuned(lambda settings: 1000.0 * settings.n_threads)
    assert [(row.setting, row.value) for row in found.rows] == [
        ("n_threads", 4), ("n_threads", 8), ("n_threads", 2),
        ("n_batch", 512), ("n_batch", 1024), ("n_batch", 2048),
    ]  # fmt: skip
    threads = found.rows[1]
    assert (threads.ratio, threads.n_rounds, threads.is_best) == (pytest.approx(2.0), 5, True)
    assert threads.speeds == {"short": pytest.approx(8000.0), "medium": pytest.approx(8000.0)}
    assert found.rows[2].n_rounds == 1  # half as fast: hopeless
    assert list(found.rows[3].speeds) == ["medium"]
    assert [row.ratio for row in found.rows if row.value == DEFAULT[row.setting]] == [None] * 2


def test_a_winner_is_the_one_to_beat_for_what_comes_next():
    found, model = tuned(lambda settings: 1000.0 * settings.n_threads)
    assert best(found) == DEFAULT | {"n_threads": 8}
    after = [settings.n_threads for settings, _ in model.worked if settings.n_batch != 512]
    assert set(after) == {8}


def test_all_values_do_the_same_work_in_a_round_and_new_work_in_the_next():
    _, model = tuned(lambda settings: 1000.0)
    seen: dict[int, list[str]] = {}
    for settings, texts in model.worked:
        if settings.reasons["n_batch"].text == "being measured":
            seen.setdefault(settings.n_batch, []).extend(texts)
    assert set(seen) == {512, 1024, 2048}
    first = seen[512]
    assert len(set(first)) == len(first)
    assert all(set(texts) <= set(first) for texts in seen.values())


def test_the_largest_batch_is_full_and_has_as_many_texts_as_an_engine_takes():
    for host in (HOST, Host(4, on_gpu=True)):
        found, model = tuned(lambda settings: 1000.0, host=host)
        largest = max(row.value for row in found.rows if row.setting == "n_batch")
        (texts,) = {len(texts) for settings, texts in model.worked if settings.n_batch == largest}
        assert texts * 128 == largest
        assert texts <= EngineConfig().n_seq_max


def test_without_time_nothing_is_measured_and_all_is_said():
    found, _ = tuned(lambda settings: 100.0, budget_s=0)
    assert found.best == Tuned(None, None, found.best.day)
    assert found.rows == []
    assert [what.partition(":")[0] for what in found.left_out] == ["n_threads", "n_batch"]
    assert found.left_out[0].startswith("n_threads: no time to tell 4, 8, 2 apart; it takes about ")


@pytest.mark.parametrize("speed", [3.0, 110.0, 700.0, 100_000.0])
@pytest.mark.parametrize("budget_s", [0.0, 1.0])
def test_what_is_said_to_be_enough_is_enough(speed, budget_s):
    found, _ = tuned(lambda settings: speed, budget_s)
    assert found.left_out
    assert tuned(lambda settings: speed, found.enough_s)[0].left_out == []


@pytest.mark.parametrize("speed", [3.0, 30.0, 110.0, 700.0, 100_000.0])
@pytest.mark.parametrize("budget_s", [10.0, 50.0])
def test_it_ends_in_time_on_machines_of_any_speed(speed, budget_s):
    found, _ = tuned(lambda settings: speed, budget_s)
    warming_up = 2 * 128 / speed
    assert found.seconds <= budget_s + warming_up
    assert best(found) == DEFAULT


def test_on_a_gpu_threads_are_not_tried():
    found, _ = tuned(lambda settings: 50_000.0 + settings.n_batch * 10, host=Host(4, on_gpu=True))
    assert {row.setting for row in found.rows} == {"n_batch"}
    assert {row.value for row in found.rows if row.setting == "n_batch"} == {512, 1024, 2048, 4096}
    assert found.best.n_batch == 4096


def test_where_there_is_no_memory_for_large_batches_the_rest_counts():
    def speed(settings: Settings) -> float:
        if settings.n_batch == 2048:
            raise NotEnoughMemoryError("no room")
        return 1000.0 * settings.n_threads

    found, _ = tuned(speed)
    assert found.left_out == ["n_batch: no room"]
    assert (found.best.n_threads, found.best.n_batch) == (8, None)


class CrashingModel(FakeModel):
    """A fake that ends its process with the settings that `crashes` names, and is then cold, as a new process is."""

    def __init__(self, time: Time, speed: Speed, crashes: Crashes) -> None:
        super().__init__(time, speed)
        self._crashes = crashes
        self.n_crashes, self.is_warm = 0, False

    def speed(self, texts: list[str]) -> float:
        if self._crashes(self.settings):
            self.n_crashes, self.is_warm = self.n_crashes + 1, False
            raise CrashError("was ended by SIGABRT", -6, "GGML_ASSERT(false) failed")
        if not self.is_warm:
            self.is_warm = True
            self._time.now += 1000
            return 1.0  # nothing is fast at first
        return super().speed(texts)


SAID = "SIGABRT (llama.cpp stopped itself); its last words: GGML_ASSERT(false) failed"


def crashing(crashes: Crashes, speed: Speed = lambda settings: 1000.0) -> tuple[TuneResult, CrashingModel]:
    time = Time()
    model = CrashingModel(time, speed, crashes)
    return Tuning(model, HOST, n_cpus=N_CPUS, clock=time).run(100_000), model


def faster_with_1024(settings: Settings) -> float:
    return 1500.0 if settings.n_batch == 1024 else 1000.0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("crashes", "setting", "value"),
    [
        (lambda settings: settings.n_threads == 8, "n_threads", 8),
        (lambda settings: settings.n_batch == 2048, "n_batch", 2048),
    ],
)
def test_a_value_that_ends_the_process_is_left_out_and_the_rest_is_found(crashes, setting, value):
    found, model = crashing(crashes, faster_with_1024)
    assert best(found) == DEFAULT | {"n_batch": 1024}
    assert found.left_out == [f"{setting}: {value} ends the process here, by {SAID}"]
    assert model.n_crashes == 1  # what ended the process once is not tried again
    (row,) = [row for row in found.rows if row.crash]
    assert (row.setting, row.value, row.speeds, row.ratio) == (setting, value, {}, None)
    assert (row.crash, row.is_best) == ("SIGABRT (llama.cpp stopped itself)", False)
    usual, _ = tuned(faster_with_1024, 100_000)
    assert {(row.setting, row.value) for row in found.rows} == {(row.setting, row.value) for row in usual.rows}


def test_after_a_crash_the_next_is_measured_once_its_process_is_warm():
    """The first call of a new process makes buffers and reads the weights in: it would lose any race."""
    found, _ = crashing(lambda settings: settings.n_threads == 8, faster_with_1024)
    (row,) = [row for row in found.rows if (row.setting, row.value) == ("n_batch", 1024)]
    assert row.ratio == pytest.approx(1.5)


def test_where_a_default_ends_the_process_another_takes_its_place_though_it_is_slower():
    n_calls = itertools.count()

    def later(settings: Settings) -> bool:
        return next(n_calls) > 2 and settings.n_batch == 512  # warming up goes well

    found, _ = crashing(later, lambda settings: 1000.0 if settings.n_batch == 512 else 100.0)
    assert best(found)["n_batch"] == 1024
    assert found.left_out
    assert all("ends the process here" in what for what in found.left_out)


def test_where_the_defaults_end_the_process_so_does_the_tuning():
    with pytest.raises(CrashError, match="was ended by SIGABRT; its last words: GGML_ASSERT"):
        crashing(lambda settings: True)
