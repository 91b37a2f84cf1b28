"""`q3e-local tune` takes what is clearly faster, and nothing else. Speeds are a fake's; no test looks at a time."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run
from fake import FakeEngine

from q3e_local import machine
from q3e_local.engine import EngineConfig
from q3e_local.errors import NotEnoughMemoryError
from q3e_local.folders import state_folder
from q3e_local.llama.engine import LlamaEngine
from q3e_local.tune import Found, Tuning
from q3e_local.tuning import LONG, TUNABLE, Host, Settings, Tuned, defaults, settle, sparing

HOST = Host(n_cores=4, features=frozenset({"AVX512_BF16"}))
N_CPUS = 8

Speed = Callable[[Settings], float]


class Time:
    """A clock that only computing moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TunedEngine(FakeEngine):
    """A fake as fast as `speed` says of its settings, in tokens a second."""

    def __init__(self, time: Time, speed: Speed, repack: bool = False, long: Speed | None = None) -> None:
        super().__init__(n_ctx_max=4096, n_seq_max=64)
        self._time, self._speed, self._repack, self._long = time, speed, repack, long or speed
        self.settings = defaults(HOST)
        self.used: list[Settings] = []

    def use(self, settings: Settings) -> None:
        self.settings = replace(settings, repack=self._repack)
        self.n_batch = settings.n_batch
        self.used.append(self.settings)

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        is_long = len(sequences[0]) > self.n_batch
        self._time.now += sum(map(len, sequences)) / (self._long if is_long else self._speed)(self.settings)
        return super().decode(sequences, n_prefix)


def texts() -> Callable[[int, int], list[str]]:
    numbers = itertools.count()
    return lambda n, n_tokens: [f"{next(numbers):0{n_tokens - 1}d}" for _ in range(n)]


def tuned(
    speed: Speed,
    budget_s: float = 1000.0,
    host: Host = HOST,
    open_repacked: Any = None,
    n_bytes: int = 0,
    long: Speed | None = None,
) -> tuple[Found, list[TunedEngine]]:
    """What is found, and the engines that were loaded. `long`: the speed with texts longer than a batch."""
    time = Time()
    engines = [TunedEngine(time, speed, long=long)]

    def repacked() -> TunedEngine:
        engines.append(TunedEngine(time, speed, repack=True, long=long))
        return engines[1]

    tuning = Tuning(
        engines[0], open_repacked or repacked, texts(), host, n_cpus=N_CPUS, repacked_bytes=n_bytes, clock=time
    )
    return tuning.run(budget_s), engines


def best(found: Found) -> dict[str, Any]:
    """The settings there will be."""
    settings = settle(EngineConfig(), HOST, found.best)
    return {name: getattr(settings, name) for name in TUNABLE}


DEFAULT = {
    "n_threads": 4, "n_batch": 512, "flash_attention": True, "repack": False,
    "long_flash_attention": True, "long_kv_type": "f16", "long_batch": 512,
}  # fmt: skip


@pytest.mark.parametrize(
    ("speed", "changed"),
    [
        (lambda one: 1000.0, {}),
        (lambda one: 1500.0 if one.repack else 1000.0, {"repack": True}),
        (lambda one: 1100.0 if one.repack else 1000.0, {}),  # not worth twice the memory
        (lambda one: 700.0 if one.repack else 1000.0, {}),
        (lambda one: 1000.0 + 50 * one.n_threads, {"n_threads": 8}),
        (lambda one: 1200.0 if one.n_threads == 2 else 1000.0, {"n_threads": 2}),
        (
            lambda one: 1000.0 if one.flash_attention else 1100.0,
            {"flash_attention": False, "long_flash_attention": False},
        ),
        (lambda one: 1000.0 + one.n_batch, {"n_batch": 1024, "long_batch": 1024}),
        (lambda one: 3000.0 - one.n_batch, {"n_batch": 256, "long_batch": 256}),
        (lambda one: 1000.0 + one.n_batch / 100, {}),  # faster, but not clearly
        (
            lambda one: 1000 * (1 + one.repack) * (2 - one.flash_attention) * one.n_threads * one.n_batch,
            {
                "repack": True,
                "n_threads": 8,
                "flash_attention": False,
                "n_batch": 1024,
                "long_flash_attention": False,
                "long_batch": 1024,
            },
        ),
    ],
)
def test_what_is_clearly_faster_is_taken(speed: Speed, changed: dict[str, Any]) -> None:
    found, _ = tuned(speed)
    assert best(found) == DEFAULT | changed
    assert found.left_out == []
    marked: dict[str, Any] = {row.setting: row.value for row in found.rows if row.is_best}
    flash, _, kv_type = marked.pop("long_attention").partition(" ")
    marked |= {"long_flash_attention": flash == "flash", "long_kv_type": kv_type}
    assert marked == DEFAULT | changed


@pytest.mark.parametrize(
    ("long", "changed"),
    [
        (lambda one: 1000.0 if one.long_flash_attention else 1100.0, {"long_flash_attention": False}),
        (lambda one: 1000.0 + one.long_batch, {"long_batch": 2048}),
        (lambda one: 3000.0 - one.long_batch, {"long_batch": 256}),
        (lambda one: 1000.0 + one.long_batch / 100, {}),  # faster, but not clearly
        (
            lambda one: {"flash f16": 1000.0, "plain f16": 700.0, "plain bf16": 1200.0}[one.long_attention],
            {"long_flash_attention": False, "long_kv_type": "bf16"},
        ),
    ],
)
def test_long_texts_have_settings_of_their_own(long: Speed, changed: dict[str, Any]) -> None:
    assert best(tuned(lambda one: 1000.0, long=long)[0]) == DEFAULT | changed


def test_long_texts_take_what_batches_take_unless_they_do_better_without() -> None:
    for long, long_batch in ((lambda one: 1000.0, 1024), (lambda one: 3000.0 - one.long_batch, 256)):
        found, _ = tuned(lambda one: 1000.0 + one.n_batch, long=long)
        assert best(found) == DEFAULT | {"n_batch": 1024, "long_batch": long_batch}


def test_the_table_has_every_value_with_the_speeds_of_each_size() -> None:
    found, _ = tuned(lambda one: 1000.0 * one.n_threads)
    assert [(row.setting, row.value) for row in found.rows] == [
        ("repack", False), ("repack", True), ("n_threads", 4), ("n_threads", 8), ("n_threads", 2),
        ("flash_attention", True), ("flash_attention", False),
        ("n_batch", 512), ("n_batch", 256), ("n_batch", 768), ("n_batch", 1024),
        ("long_attention", "flash f16"), ("long_attention", "plain f16"), ("long_attention", "plain bf16"),
        ("long_batch", 512), ("long_batch", 256), ("long_batch", 1024), ("long_batch", 2048),
    ]  # fmt: skip
    threads = found.rows[3]
    assert (threads.ratio, threads.n_rounds, threads.is_best) == (pytest.approx(2.0), 5, True)
    assert threads.speeds == {"short": pytest.approx(8000.0), "medium": pytest.approx(8000.0)}
    assert found.rows[4].n_rounds == 1  # half as fast: hopeless
    assert list(found.rows[5].speeds) == ["short", "medium", "long"]
    assert list(found.rows[7].speeds) == ["mixed"]
    assert list(found.rows[11].speeds) == list(found.rows[14].speeds) == ["4,096", "2,048"]
    of_defaults = [row for row in found.rows if row.value == (DEFAULT | {"long_attention": "flash f16"})[row.setting]]
    assert [row.ratio for row in of_defaults] == [None] * 6


def test_a_winner_is_the_one_to_beat_for_what_comes_next() -> None:
    found, (original, repacked) = tuned(lambda one: 2000.0 if one.repack else 1000.0 * one.n_threads)
    assert best(found) == DEFAULT | {"repack": False, "n_threads": 8}
    assert (original.closed, repacked.closed) == (False, True)  # the caller closes its own
    found, (original, repacked) = tuned(lambda one: 9000.0 if one.repack else 1000.0)
    assert best(found) == DEFAULT | {"repack": True}
    assert {one.n_batch for one in repacked.used} == {512, 256, 768, 1024}
    assert {one.n_batch for one in original.used} == {512}
    assert repacked.closed


def test_all_values_do_the_same_work_in_a_round_and_new_work_in_the_next() -> None:
    _, (original, repacked) = tuned(lambda one: 1000.0)
    warming_up, raced = repacked.texts[:2], repacked.texts[2:]
    assert raced
    assert len(set(raced)) == len(raced)
    assert set(raced) < set(original.texts)
    assert not set(warming_up) & set(original.texts)


def test_without_time_nothing_is_measured_and_all_is_said() -> None:
    found, engines = tuned(lambda one: 100.0, budget_s=0)
    assert found.best == Tuned(None, None, None, None, found.best.day)
    assert found.rows == []
    assert [what.partition(":")[0] for what in found.left_out] == [
        "repack",
        "n_threads",
        "flash_attention",
        "n_batch",
        "long_attention",
        "long_batch",
    ]
    assert found.left_out[1].startswith("n_threads: no time to tell 4, 8, 2 apart; it takes about ")
    assert all(not engine.closed for engine in engines[:1])


@pytest.mark.parametrize("speed", [3.0, 110.0, 700.0, 100_000.0])
@pytest.mark.parametrize("budget_s", [0.0, 4.0])
def test_what_is_said_to_be_enough_is_enough(speed: float, budget_s: float) -> None:
    found, _ = tuned(lambda one: speed, budget_s)
    assert found.left_out
    assert tuned(lambda one: speed, found.enough_s)[0].left_out == []


@pytest.mark.parametrize("speed", [3.0, 30.0, 110.0, 700.0, 100_000.0])
@pytest.mark.parametrize("budget_s", [10.0, 50.0])
def test_it_ends_in_time_on_machines_of_any_speed(speed: float, budget_s: float) -> None:
    found, _ = tuned(lambda one: speed, budget_s)
    warming_up = 4 * 128 / speed
    assert found.seconds <= budget_s + warming_up
    assert best(found) == DEFAULT


def test_what_does_not_fit_into_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 2_000_000_000)
    found, engines = tuned(lambda one: 2000.0 if one.repack else 1000.0, n_bytes=2_500_000_000)
    assert found.left_out == ["repack: 2.5 GB are needed, 2.0 are free"]
    assert (best(found), len(engines)) == (DEFAULT, 1)

    def refused() -> TunedEngine:
        raise NotEnoughMemoryError("no room")

    found, _ = tuned(lambda one: 1000.0, open_repacked=refused)
    assert found.left_out == ["repack: no room"]


def test_on_a_gpu_neither_threads_nor_repacking_are_tried() -> None:
    found, engines = tuned(lambda one: 50_000.0 + one.n_batch * 10, host=Host(4, on_gpu=True))
    # Texts of 4,096 tokens are no longer than the batch that wins, so that there are no long ones to try.
    assert {row.setting for row in found.rows} == {"flash_attention", "n_batch"}
    assert {row.value for row in found.rows if row.setting == "n_batch"} == {512, 1024, 2048, 4096}
    assert (found.best.n_batch, len(engines)) == (4096, 1)


def test_long_texts_are_tried_as_long_as_time_allows() -> None:
    sizes = {}
    for budget_s in (50, 100, 500):
        found, _ = tuned(lambda one: 700.0, budget_s)
        sizes[budget_s] = [list(row.speeds) for row in found.rows if row.setting.startswith("long")]
    assert sizes == {50: [], 100: [["2,048"]] * 7, 500: [["4,096", "2,048"]] * 7}


@pytest.mark.parametrize("host", [Host(4), Host(4, on_gpu=True, features=HOST.features)])
def test_bf16_is_tried_only_where_it_may_be_fast(host: Host) -> None:
    found, _ = tuned(lambda one: 1000.0, host=host)
    attentions = [row.value for row in found.rows if row.setting == "long_attention"]
    assert attentions == ["flash f16", "plain f16"]


def test_where_there_is_no_memory_for_long_texts_the_rest_counts() -> None:
    def speed(one: Settings) -> float:
        if not one.long_flash_attention and one.flash_attention:
            raise NotEnoughMemoryError("no room")
        return 1000.0 + one.n_batch

    found, _ = tuned(speed)
    assert found.left_out == ["long texts: no room"]
    assert best(found) == DEFAULT | {"n_batch": 1024, "long_batch": 1024}


def test_where_flash_attention_cannot_be_left_out_for_want_of_memory_the_rest_counts() -> None:
    def speed(one: Settings) -> float:
        if not one.flash_attention:
            raise NotEnoughMemoryError("no room")
        return 1000.0 + one.n_batch

    found, _ = tuned(speed)
    assert found.left_out == ["flash_attention: no room"]
    assert (found.best.flash_attention, found.best.n_batch) == (None, 1024)


def test_what_is_measured_is_not_replaced_for_want_of_memory() -> None:
    """A sparing engine would compute with flash attention in pieces of 512 tokens what is called plain, or 2048."""
    replaced = set()

    def speed(one: Settings) -> float:
        if any(reason.text == "being measured" for reason in one.reasons.values()):
            less = sparing(one)
            replaced.update(n for n in LONG if one.reasons[n].text == "being measured" != less.reasons[n].text)
        return 1000.0

    tuned(speed, 500)
    assert replaced == set()


def test_an_interruption_closes_the_second_engine() -> None:
    n_calls = itertools.count()

    def speed(one: Settings) -> float:
        if next(n_calls) > 10:
            raise KeyboardInterrupt
        return 1000.0

    opened: list[TunedEngine] = []

    def repacked() -> TunedEngine:
        opened.append(TunedEngine(Time(), lambda one: 1000.0, repack=True))
        return opened[0]

    with pytest.raises(KeyboardInterrupt):
        tuned(speed, open_repacked=repacked)
    assert opened[0].closed


# The command


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 768 tokens win, whatever the demo model does."""

    found, _ = tuned(lambda one: 2000.0 if one.n_batch == 768 else 1000.0)

    def run(self: Tuning, budget_s: float) -> Found:
        best = replace(found.best, day="2026-11-20")
        if budget_s < 5:  # enough for threads
            best = Tuned(best.n_threads, None, None, None, best.day)
        return Found(best, found.rows, ["repack: no room"], budget_s)

    monkeypatch.setattr(Tuning, "run", run)


def explained() -> list[str]:
    return run("embed", "-m", "demo", "--text", "one", "-q", "--explain").stderr.splitlines()


@pytest.mark.usefixtures("fast")
def test_what_was_found_is_shown_kept_used_and_forgotten() -> None:
    result = run("tune", "-m", "demo", "--seconds", 7)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"demo on {machine.cpu_name()}, ")
    rows = [line for line in lines if line.startswith("│")]
    assert any("n_batch" in row and "768" in row and "2.00" in row and "best" in row for row in rows)
    assert lines[-2:] == [
        "left out: repack: no room",
        "kept after 7 s: n_threads 4, n_batch 768, flash_attention on, repack off, long_flash_attention on, "
        "long_kv_type f16, long_batch 768",
    ]
    assert explained()[1] == "demo: n_batch 768 (tuned on 2026-11-20)"
    assert run("tune", "-m", "demo", "--reset").stderr == "demo: defaults from now on\n"
    assert explained()[1] == "demo: n_batch 512 (default)"
    assert run("tune", "-m", "demo", "--reset").stderr == "demo: nothing was tuned\n"


@pytest.mark.usefixtures("fast")
def test_a_shorter_one_leaves_what_a_longer_one_found_and_says_so() -> None:
    run("tune", "-m", "demo", "--seconds", 7)
    assert run("tune", "-m", "demo", "--seconds", 3).stdout.splitlines()[-2:] == [
        "kept after 3 s: n_threads 4",
        "kept from before: n_batch 768, flash_attention on, repack off, long_flash_attention on, "
        "long_kv_type f16, long_batch 768",
    ]
    assert explained()[1] == "demo: n_batch 768 (tuned on 2026-11-20)"
    found = json.loads(run("tune", "-m", "demo", "--seconds", 3, "--json").stdout)
    assert found["from_before"] | {"n_threads": 4} == DEFAULT | {"n_batch": 768, "long_batch": 768}


@pytest.mark.usefixtures("fast")
def test_json_has_all_of_it() -> None:
    found = json.loads(run("tune", "-m", "demo", "--json").stdout)
    assert list(found) == [
        "model", "digest", "place", "kept_in", "best", "from_before", "rows", "left_out", "seconds",
    ]  # fmt: skip
    assert found["best"]["n_batch"] == 768
    kept = json.loads(Path(found["kept_in"]).read_text())
    assert (kept["tuned"], kept["place"], kept["measured"]) == (found["best"], found["place"], found["rows"])


def test_a_real_model_is_tuned_in_no_time() -> None:
    result = run("tune", "-m", "demo", "--seconds", 0, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["rows"] == []
    assert (found["best"]["n_batch"], found["kept_in"]) == (None, None)
    assert not (state_folder() / "tuned").exists()
    last = run("tune", "-m", "demo", "--seconds", 0).stdout.splitlines()[-1]
    assert re.fullmatch(r"nothing new is kept: --seconds is too few, about --seconds [1-9]\d*0 is enough", last)
    assert explained()[1] == "demo: n_batch 512 (default)"


def test_ctrl_c_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: LlamaEngine, settings: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LlamaEngine, "use", interrupted)
    assert run("tune", "-m", "demo").exit_code == 130
    assert not (state_folder() / "tuned").exists()
