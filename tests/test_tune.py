"""`q3e-local tune` takes what is clearly faster, and nothing else. Speeds are a fake's; no test looks at a time."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import demo, run

from q3e_local import child, machine, tune_child
from q3e_local.catalog import models_folder
from q3e_local.engine import EngineConfig
from q3e_local.errors import CrashError, NotEnoughMemoryError
from q3e_local.folders import state_folder
from q3e_local.tune import Found, Tuning
from q3e_local.tune_child import MeasuredModel, ModelInChild
from q3e_local.tuning import LONG, TUNABLE, Host, Reason, Settings, Tuned, defaults, settle, shown, sparing

HOST = Host(n_cores=4, features=frozenset({"AVX512_BF16"}))
N_CPUS = 8

Speed = Callable[[Settings], float]


class Time:
    """A clock that only computing moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeModel:
    """A model as fast as `speed` says of its settings, in tokens a second; a text is as many tokens as bytes."""

    n_ctx_max = 4096

    def __init__(self, time: Time, speed: Speed, long: Speed | None = None) -> None:
        self._time, self._speed, self._long = time, speed, long or speed
        self._numbers = itertools.count()
        self.settings = defaults(HOST)
        self.worked: list[tuple[Settings, list[str]]] = []

    def use(self, settings: Settings) -> None:
        self.settings = settings

    def make(self, n_texts: int, n_tokens: int) -> list[str]:
        return [f"{next(self._numbers):0{n_tokens}d}" for _ in range(n_texts)]

    def speed(self, texts: list[str]) -> float:
        self.worked.append((self.settings, texts))
        is_long = len(texts[0]) > self.settings.n_batch
        speed = (self._long if is_long else self._speed)(self.settings)
        self._time.now += sum(map(len, texts)) / speed
        return speed


def tuned(
    speed: Speed, budget_s: float = 1000.0, host: Host = HOST, long: Speed | None = None
) -> tuple[Found, FakeModel]:
    """What is found, and the model. `long`: the speed with texts longer than a batch."""
    time = Time()
    model = FakeModel(time, speed, long)
    return Tuning(model, host, n_cpus=N_CPUS, clock=time).run(budget_s), model


def best(found: Found) -> dict[str, Any]:
    """The settings there will be."""
    settings = settle(EngineConfig(), HOST, found.best)
    return {name: getattr(settings, name) for name in TUNABLE}


DEFAULT = {
    "n_threads": 4, "n_batch": 512, "flash_attention": True,
    "long_flash_attention": True, "long_kv_type": "f16", "long_batch": 512,
}  # fmt: skip


@pytest.mark.parametrize(
    ("speed", "changed"),
    [
        (lambda one: 1000.0, {}),
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
            lambda one: 1000 * (2 - one.flash_attention) * one.n_threads * one.n_batch,
            {
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
        ("n_threads", 4), ("n_threads", 8), ("n_threads", 2),
        ("flash_attention", True), ("flash_attention", False),
        ("n_batch", 512), ("n_batch", 256), ("n_batch", 768), ("n_batch", 1024),
        ("long_attention", "flash f16"), ("long_attention", "plain f16"), ("long_attention", "plain bf16"),
        ("long_batch", 512), ("long_batch", 256), ("long_batch", 1024), ("long_batch", 2048),
    ]  # fmt: skip
    threads = found.rows[1]
    assert (threads.ratio, threads.n_rounds, threads.is_best) == (pytest.approx(2.0), 5, True)
    assert threads.speeds == {"short": pytest.approx(8000.0), "medium": pytest.approx(8000.0)}
    assert found.rows[2].n_rounds == 1  # half as fast: hopeless
    assert list(found.rows[3].speeds) == ["short", "medium", "long"]
    assert list(found.rows[5].speeds) == ["mixed"]
    assert list(found.rows[9].speeds) == list(found.rows[12].speeds) == ["4,096", "2,048"]
    of_defaults = [row for row in found.rows if row.value == (DEFAULT | {"long_attention": "flash f16"})[row.setting]]
    assert [row.ratio for row in of_defaults] == [None] * 5


def test_a_winner_is_the_one_to_beat_for_what_comes_next() -> None:
    found, model = tuned(lambda one: 1000.0 * one.n_threads)
    assert best(found) == DEFAULT | {"n_threads": 8}
    after = [one.n_threads for one, _ in model.worked if not one.flash_attention or one.n_batch != 512]
    assert set(after) == {8}


def test_all_values_do_the_same_work_in_a_round_and_new_work_in_the_next() -> None:
    _, model = tuned(lambda one: 1000.0)
    seen: dict[int, list[str]] = {}
    for settings, texts in model.worked:
        if settings.reasons["n_batch"].text == "being measured":
            seen.setdefault(settings.n_batch, []).extend(texts)
    assert set(seen) == {256, 512, 768, 1024}
    first = seen[512]
    assert len(set(first)) == len(first)
    assert all(set(texts) <= set(first) for texts in seen.values())


def test_without_time_nothing_is_measured_and_all_is_said() -> None:
    found, _ = tuned(lambda one: 100.0, budget_s=0)
    assert found.best == Tuned(None, None, None, found.best.day)
    assert found.rows == []
    assert [what.partition(":")[0] for what in found.left_out] == [
        "n_threads",
        "flash_attention",
        "n_batch",
        "long_attention",
        "long_batch",
    ]
    assert found.left_out[0].startswith("n_threads: no time to tell 4, 8, 2 apart; it takes about ")


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
    warming_up = 2 * 128 / speed
    assert found.seconds <= budget_s + warming_up
    assert best(found) == DEFAULT


def test_on_a_gpu_threads_are_not_tried() -> None:
    found, _ = tuned(lambda one: 50_000.0 + one.n_batch * 10, host=Host(4, on_gpu=True))
    # Texts of 4,096 tokens are no longer than the batch that wins, so that there are no long ones to try.
    assert {row.setting for row in found.rows} == {"flash_attention", "n_batch"}
    assert {row.value for row in found.rows if row.setting == "n_batch"} == {512, 1024, 2048, 4096}
    assert found.best.n_batch == 4096


def test_long_texts_are_tried_as_long_as_time_allows() -> None:
    sizes = {}
    for budget_s in (25, 50, 500):
        found, _ = tuned(lambda one: 700.0, budget_s)
        sizes[budget_s] = [list(row.speeds) for row in found.rows if row.setting.startswith("long")]
    assert sizes == {25: [], 50: [["2,048"]] * 7, 500: [["4,096", "2,048"]] * 7}


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


# A value that ends the process


class CrashingModel(FakeModel):
    """The fake, which ends its process with some settings. It is closed then, and cold, as one in a child is."""

    def __init__(self, time: Time, speed: Speed, crashes: Callable[[Settings, bool], bool]) -> None:
        super().__init__(time, speed)
        self._crashes = crashes
        self.n_crashes, self.is_warm = 0, False

    def speed(self, texts: list[str]) -> float:
        if self._crashes(self.settings, len(texts[0]) > self.settings.n_batch):
            self.n_crashes, self.is_warm = self.n_crashes + 1, False
            raise CrashError("was ended by SIGABRT", -6, "GGML_ASSERT(false) failed")
        if not self.is_warm:
            self.is_warm = True
            self._time.now += 1000
            return 1.0  # nothing is fast at first
        return super().speed(texts)


SAID = "SIGABRT (llama.cpp stopped itself); its last words: GGML_ASSERT(false) failed"


def crashing(
    crashes: Callable[[Settings, bool], bool], speed: Speed = lambda one: 1000.0
) -> tuple[Found, CrashingModel]:
    time = Time()
    model = CrashingModel(time, speed, crashes)
    return Tuning(model, HOST, n_cpus=N_CPUS, clock=time).run(100_000), model


def faster_with_768(one: Settings) -> float:
    return 1500.0 if one.n_batch == 768 else 1000.0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("crashes", "setting", "value"),
    [
        (lambda one, long: one.n_threads == 8, "n_threads", "8"),
        (lambda one, long: not one.flash_attention, "flash_attention", "off"),
        (lambda one, long: one.n_batch == 256, "n_batch", "256"),
        (lambda one, long: one.n_batch == 1024, "n_batch", "1024"),
        (lambda one, long: long and one.long_kv_type == "bf16", "long_attention", "plain bf16"),
        (lambda one, long: long and one.long_batch == 2048, "long_batch", "2048"),
    ],
)
def test_a_value_that_ends_the_process_is_left_out_and_the_rest_is_found(
    crashes: Callable[[Settings, bool], bool], setting: str, value: str
) -> None:
    found, model = crashing(crashes, faster_with_768)
    assert best(found) == DEFAULT | {"n_batch": 768, "long_batch": 768}
    assert found.left_out == [f"{setting}: {value} ends the process here, by {SAID}"]
    assert model.n_crashes == 1  # what ended the process once is not tried again
    (row,) = [row for row in found.rows if row.crash]
    assert (row.setting, shown(row.value), row.speeds, row.ratio) == (setting, value, {}, None)
    assert (row.crash, row.is_best) == ("SIGABRT (llama.cpp stopped itself)", False)
    usual, _ = tuned(faster_with_768, 100_000)
    assert {(row.setting, row.value) for row in found.rows} == {(row.setting, row.value) for row in usual.rows}


def test_after_a_crash_the_next_is_measured_once_its_process_is_warm() -> None:
    """The first call of a new process makes buffers and reads the weights in: it would lose any race."""
    found, _ = crashing(lambda one, long: one.n_batch == 256, faster_with_768)
    (row,) = [row for row in found.rows if (row.setting, row.value) == ("n_batch", 768)]
    assert row.ratio == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("crashes", "changed"),
    [
        (lambda one, long: one.flash_attention, {"flash_attention": False, "long_flash_attention": False}),
        # A text of 1,024 tokens is longer than a batch, and part of what flash attention is tried on.
        (
            lambda one, long: long and one.long_flash_attention,
            {"flash_attention": False, "long_flash_attention": False},
        ),
        (
            lambda one, long: long and one.long_attention != "plain bf16",
            {"long_flash_attention": False, "long_kv_type": "bf16"},
        ),
        (lambda one, long: long and one.long_batch == 512, {"long_batch": 256}),
    ],
)
def test_where_a_default_ends_the_process_another_takes_its_place_though_it_is_slower(
    crashes: Callable[[Settings, bool], bool], changed: dict[str, Any]
) -> None:
    n_calls = itertools.count()

    def later(one: Settings, long: bool) -> bool:
        return next(n_calls) > 2 and crashes(one, long)  # warming up goes well

    found, _ = crashing(later, lambda one: 1000.0 if one.flash_attention else 100.0)
    assert best(found) == DEFAULT | changed
    assert found.left_out
    assert all("ends the process here" in what for what in found.left_out)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_where_all_long_texts_end_the_process_the_rest_counts() -> None:
    found, _ = crashing(lambda one, long: long and len(one.reasons) > 0, lambda one: 1000.0 + one.n_batch)
    assert (found.best.n_batch, found.best.long_batch, found.best.long_kv_type) == (1024, None, None)
    assert f"long_attention: flash f16 ends the process here, by {SAID}" in found.left_out
    assert f"long_batch: 256 ends the process here, by {SAID}" in found.left_out


def test_where_the_defaults_end_the_process_so_does_the_tuning() -> None:
    with pytest.raises(CrashError, match="was ended by SIGABRT; its last words: GGML_ASSERT"):
        crashing(lambda one, long: True)


# In a child process


class Cursed(MeasuredModel):
    """The demo model, whose process ends with batches of some sizes."""

    def use(self, settings: Settings) -> None:
        if settings.n_batch == 256:
            os.write(2, b"ggml.c:1: GGML_ASSERT(n_tokens > 0) failed\n")
            os.abort()
        if settings.n_batch == 768:
            os.kill(os.getpid(), signal.SIGILL)
        super().use(settings)


class CursedAtOnce(MeasuredModel):
    def use(self, settings: Settings) -> None:
        os.kill(os.getpid(), signal.SIGILL)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[psutil.Process]]:
    """The processes that were started; at the end none may be left."""
    before, found = set(psutil.Process().children()), []
    start = child.start_unsignalled

    def started(process: Any) -> None:
        start(process)
        found.append(psutil.Process(process.pid))

    monkeypatch.setattr(child, "start_unsignalled", started)
    yield found
    assert found
    assert [one for one in found if one.is_running()] == []
    left = [one for one in psutil.Process().children() if "resource_tracker" not in " ".join(one.cmdline())]
    assert set(left) <= before


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_model_in_a_child_survives_what_ends_its_process(
    monkeypatch: pytest.MonkeyPatch, children: list[psutil.Process]
) -> None:
    monkeypatch.setattr(tune_child, "MeasuredModel", Cursed)
    path = models_folder() / "demo.gguf"
    with closing(ModelInChild(path)) as model:
        usual = defaults(model.facts.host)
        model.use(usual)
        texts = model.make(3, 16)
        assert [len(demo().engine.tokenize(text)) + 1 for text in texts] == [16] * 3
        assert model.speed(texts) > 0
        reason = Reason("given", "being measured")
        for n_batch, cause in ((256, r"SIGABRT .*last words: ggml\.c:1: GGML_ASSERT"), (768, r"SIGILL \(this build")):
            with pytest.raises(CrashError, match=cause):
                model.use(usual.changed("n_batch", n_batch, reason))
            model.use(usual)
            assert not set(model.make(5, 16)) & set(texts)
            assert model.speed(texts) > 0
    assert len(children) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_command_shows_what_ends_the_process_and_keeps_the_rest(
    monkeypatch: pytest.MonkeyPatch, children: list[psutil.Process]
) -> None:
    monkeypatch.setattr(tune_child, "MeasuredModel", Cursed)
    monkeypatch.setattr(Tuning, "_try_long", lambda self: None)
    monkeypatch.setattr(machine, "logical_cpus", lambda: 1)
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    result = run("tune", "-m", "demo", "--seconds", 600)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [" ".join(line.split()) for line in lines if line.strip().endswith(" ends the process here")] == [
        "n_batch 256 ends the process here",
        "n_batch 768 ends the process here",
    ]
    for n_batch, n_rounds in ((256, 0), (768, 0), (1024, r"[1-5]")):
        assert any(re.search(rf"n_batch +│ +{n_batch} *│.*│ +{n_rounds} *│", line) for line in lines)
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert left_out[0].startswith(
        "left out: n_batch: 256 ends the process here, by SIGABRT (llama.cpp stopped itself)"
    )
    assert left_out[1].startswith("left out: n_batch: 768 ends the process here, by SIGILL (this build of llama.cpp ")
    assert len(left_out) == 2
    assert lines[-1].startswith("kept after ")
    assert re.search(r"n_batch (512|1024)", lines[-1])


# The command


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_where_the_defaults_end_the_process_the_command_says_so_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, children: list[psutil.Process]
) -> None:
    monkeypatch.setattr(tune_child, "MeasuredModel", CursedAtOnce)
    result = run("tune", "-m", "demo")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the process of llama.cpp was ended by SIGILL (this build of llama.cpp ")
    assert result.stderr.endswith("; q3e-local doctor says what to do about it\n")
    assert not (state_folder() / "tuned").exists()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 768 tokens win, whatever the demo model does."""

    found, _ = tuned(lambda one: 2000.0 if one.n_batch == 768 else 1000.0)

    def run(self: Tuning, budget_s: float) -> Found:
        best = replace(found.best, day="2026-11-20")
        if budget_s < 5:  # enough for threads
            best = Tuned(best.n_threads, None, None, best.day)
        return Found(best, found.rows, ["long texts: no room"], budget_s)

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
        "left out: long texts: no room",
        "kept after 7 s: n_threads 4, n_batch 768, flash_attention on, long_flash_attention on, "
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
        "kept from before: n_batch 768, flash_attention on, long_flash_attention on, "
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


def test_ctrl_c_keeps_nothing_and_ends_the_child(
    monkeypatch: pytest.MonkeyPatch, children: list[psutil.Process]
) -> None:
    def interrupted(self: Tuning, budget_s: float) -> Found:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tuning, "run", interrupted)
    assert run("tune", "-m", "demo").exit_code == 130
    assert not (state_folder() / "tuned").exists()
