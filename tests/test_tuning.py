"""Settings: what is given stands before what was tuned, and that before defaults; each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from q3e_local.engine import EngineConfig
from q3e_local.tuning import TUNABLE, Host, Tuned, other_threads, settle

HERE = Host(4, features=frozenset({"AVX2", "AVX512"}))
TUNED = Tuned(n_threads=8, n_batch=768, flash_attention=False, repack=True, day="2026-11-20")


def values(config: EngineConfig, host: Host = HERE, tuned: Tuned | None = None) -> dict[str, Any]:
    settings = settle(config, host, tuned)
    return {name: getattr(settings, name) for name in TUNABLE}


def test_defaults() -> None:
    settings = settle(EngineConfig(), HERE)
    assert [settings.explained(name) for name in TUNABLE] == [
        "n_threads 4 (physical cores)",
        "n_batch 512 (default)",
        "flash_attention on (default)",
        "repack off (AVX-512: repacked Q4_K is slower)",
    ]


@pytest.mark.parametrize(
    ("features", "why"),
    [
        ({"AVX2"}, "AVX2: repacked Q4_K takes twice the memory and is no faster"),
        ({"AVX2", "AVX512", "AMX_INT8"}, "default: not measured with AMX; q3e-local tune does"),
        ({"NEON", "DOTPROD"}, "default: not measured on such a CPU; q3e-local tune does"),
    ],
)
def test_weights_are_not_repacked_unless_that_is_known_to_help(features: set[str], why: str) -> None:
    settings = settle(EngineConfig(), Host(4, features=frozenset(features)))
    assert settings.explained("repack") == f"repack off ({why})"


def test_a_gpu_gets_larger_batches() -> None:
    settings = settle(EngineConfig(), Host(4, on_gpu=True))
    assert settings.n_batch == 1024
    assert settings.explained("repack") == "repack off (the weights are on the GPU)"


def test_what_was_tuned_stands_before_defaults_and_what_is_given_before_both() -> None:
    tuned = {"n_threads": 8, "n_batch": 768, "flash_attention": False, "repack": True}
    assert values(EngineConfig(), tuned=TUNED) == tuned
    given = {"n_threads": 1, "n_batch": 64, "flash_attention": True, "repack": False}
    for name, value in given.items():
        config = EngineConfig(**{name: value})
        assert values(config, tuned=TUNED) == tuned | {name: value}
        settings = settle(config, HERE, TUNED)
        assert {one: settings.reasons[one].source for one in TUNABLE} == dict.fromkeys(TUNABLE, "tuned") | {
            name: "given"
        }
    assert settle(EngineConfig(), HERE, TUNED).explained("n_batch") == "n_batch 768 (tuned on 2026-11-20)"


def test_what_was_not_measured_is_a_default() -> None:
    settings = settle(EngineConfig(), HERE, Tuned(None, None, None, True, "2026-11-20"))
    assert [settings.reasons[name].source for name in TUNABLE] == ["default", "default", "default", "tuned"]
    assert (settings.n_threads, settings.repack) == (4, True)


@pytest.mark.parametrize(
    ("n_expected", "repack", "expected"),
    [(None, None, True), (9_999, None, False), (10_000, None, True), (5, True, True), (5, False, False)],
)
def test_a_small_job_does_not_pay_for_repacking(n_expected: int | None, repack: bool | None, expected: bool) -> None:
    config = EngineConfig(n_expected=n_expected, repack=repack)
    settings = settle(config, HERE, TUNED)
    assert settings.repack is expected
    if expected is False and repack is None:
        assert settings.explained("repack") == "repack off (too little work to earn it back)"


@pytest.mark.parametrize(
    ("n_cores", "n_cpus", "expected"),
    [
        (1, 1, []),
        (2, 2, []),
        (2, 4, [4]),
        (3, 3, []),
        (4, 4, [2]),
        (4, 8, [8, 4 // 2]),
        (14, 20, [20, 7]),
        (4, 2, [2]),
    ],
)
def test_threads_to_try(n_cores: int, n_cpus: int, expected: list[int]) -> None:
    assert other_threads(n_cores, n_cpus) == expected
