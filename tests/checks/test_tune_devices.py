"""The CPU takes a model from a GPU only where it is clearly faster. Speeds are a fake's; no test looks at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from gpus import device, pretend

from q3e_local.checks import tune, tune_devices
from q3e_local.checks.tune_devices import Contest, cpu_against_gpu
from q3e_local.embedding.engine import EngineConfig
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import forecast, loading
from q3e_local.llama.kernels import in_use
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.defaults import Settings, Tuned
from q3e_local.llama.settings.placement import Device, Placement

INTEGRATED = device("Vulkan0", kind="integrated", backend="Vulkan", description="AMD Radeon 780M")
ON_GPU, ON_CPU = Placement(28, 28, (INTEGRATED,)), Placement(28)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeModel:
    """A model of a speed, in tokens a second; a text is as many tokens as bytes."""

    def __init__(self, clock: Clock, placement: Placement, speed: float) -> None:
        self._clock, self.placement, self._speed = clock, placement, speed
        self.platform = kept.here("0.3.36", frozenset(), placement.place, "avx2")
        self.texts: list[list[str]] = []
        self._numbers = itertools.count()

    def use(self, settings: Settings) -> None:
        pass

    def make(self, n_texts: int, n_tokens: int) -> list[str]:
        return [f"{next(self._numbers):0{n_tokens}d}" for _ in range(n_texts)]

    def speed(self, texts: list[str]) -> float:
        self.texts.append(texts)
        self._clock.now += sum(map(len, texts)) / self._speed
        return self._speed

    def close(self) -> None:
        pass


def contest(gpu: float, cpu: float, budget_s: float = 1000.0) -> tuple[Contest, FakeModel, FakeModel]:
    clock = Clock()
    on_cpu, on_gpu = FakeModel(clock, ON_CPU, cpu), FakeModel(clock, ON_GPU, gpu)
    return cpu_against_gpu(on_cpu, on_gpu, budget_s, lambda what: None, clock), on_cpu, on_gpu


@pytest.mark.parametrize(
    ("gpu", "cpu", "cpu_is_faster", "n_gpu_layers"),
    [(1000.0, 2000.0, True, 0), (1000.0, 1020.0, False, 28), (1000.0, 300.0, False, 28)],
)
def test_the_cpu_wins_only_clearly(gpu, cpu, cpu_is_faster, n_gpu_layers):
    found, _, _ = contest(gpu, cpu)
    assert found.cpu_is_faster == cpu_is_faster
    assert found.kept is not None
    assert (found.kept.n_gpu_layers, found.kept.n_batch) == (n_gpu_layers, None)
    assert found.platform.place == "AMD Radeon 780M (Vulkan), all layers"
    assert {row.value: row.is_best for row in found.rows} == {28: not cpu_is_faster, 0: cpu_is_faster}
    assert {row.value: row.speeds["short"] for row in found.rows} == {28: gpu, 0: cpu}


def test_both_do_the_same_work_in_a_round():
    _, on_cpu, on_gpu = contest(1000.0, 2000.0)
    assert on_cpu.texts[2:] == on_gpu.texts[2:]  # behind two calls that make buffers
    assert len({text for texts in on_cpu.texts[2:] for text in texts}) == sum(map(len, on_cpu.texts[2:]))


def test_without_time_nothing_is_decided_and_that_is_said():
    found, _, _ = contest(10.0, 20.0, budget_s=1.0)
    assert (found.cpu_is_faster, found.kept, found.rows) == (None, None, [])
    assert "no time to tell 28 and 0 apart" in found.left_out[0]


def tuned_on(
    monkeypatch: pytest.MonkeyPatch, gpu: float, cpu: float, here: Sequence[Device] = (INTEGRATED,)
) -> tuple[tune.TuneResult, kept.Platform, list[dict]]:
    """What `tune` finds on such a machine, where it counts, and the options of the models that were loaded."""
    clock, loaded = Clock(), []

    def model(path: object, **options: object) -> FakeModel:
        loaded.append(options)
        place, speed = (ON_CPU, cpu) if options.get("n_gpu_layers") == 0 else (ON_GPU, gpu)
        return FakeModel(clock, place, speed)

    monkeypatch.setattr(tune, "ModelInChild", model)
    monkeypatch.setattr(forecast, "devices", lambda: list(here))
    monkeypatch.setattr(tune_devices.time, "perf_counter", clock)
    result, platform = tune.tune("model.gguf", 1000.0, lambda what: None)
    return result, platform, loaded


def test_the_winner_is_tuned_and_the_gpu_that_lost_is_left_alone(monkeypatch):
    result, platform, loaded = tuned_on(monkeypatch, gpu=1000.0, cpu=2000.0)
    assert loaded == [{"device": "Vulkan0"}, {"n_gpu_layers": 0}]
    assert platform.place == "CPU"
    assert result.contest is not None
    assert result.contest.kept is not None
    assert result.contest.kept.n_gpu_layers == 0
    assert {row.setting for row in result.rows} >= {"n_gpu_layers", "n_batch"}
    result, platform, _ = tuned_on(monkeypatch, gpu=2000.0, cpu=1000.0)
    assert platform.place == ON_GPU.place
    assert {row.value for row in result.rows if row.setting == "n_batch"} == {1024, 512, 2048, 4096}


def test_where_no_gpu_answers_the_model_that_is_tuned_asks_none(monkeypatch):
    _, platform, loaded = tuned_on(monkeypatch, gpu=1000.0, cpu=2000.0, here=())
    assert (platform.place, loaded) == ("CPU", [{"n_gpu_layers": 0}])


def test_what_was_found_decides_where_an_engine_computes_until_it_is_found_otherwise(f32_demo, monkeypatch):
    pretend(monkeypatch, INTEGRATED)
    info, kernels = inspect(f32_demo), in_use.chosen()

    def place() -> str:
        return loading.placed(info, EngineConfig(), kernels).place

    on_gpu = loading.platform(loading.placed(info, EngineConfig(), kernels), kernels)
    for n_gpu_layers, expected in ((0, "CPU"), (info.n_layer, on_gpu.place)):
        kept.keep(info.digest, on_gpu, Tuned(None, None, "2026-11-30", n_gpu_layers))
        assert place() == expected
        kept.keep(info.digest, on_gpu, Tuned(None, 512, "2026-12-01"))  # one that had no time for it
        assert place() == expected


@pytest.fixture
def f32_demo(tiny_gguf):
    return tiny_gguf("f32")
