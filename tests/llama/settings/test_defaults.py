"""Settings: what is given stands before what was tuned, and that before defaults; each with its reason."""

from __future__ import annotations

import pytest

from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.settings.defaults import TUNABLE, Host, Tuned, other_threads, settle

HERE = Host(4)
TUNED = Tuned(n_threads=8, n_batch=768, day="2026-11-20")


def explained(config: EngineConfig, tuned: Tuned | None, host: Host = HERE) -> list[str]:
    settings = settle(config, host, tuned)
    return [settings.explained(name) for name in TUNABLE]


def test_defaults():
    assert explained(EngineConfig(), None) == ["n_threads 4 (physical cores)", "n_batch 512 (default)"]


def test_a_gpu_gets_larger_batches():
    assert explained(EngineConfig(), None, Host(4, on_gpu=True))[1] == "n_batch 1024 (default on a GPU)"


def test_what_was_tuned_stands_before_defaults_and_what_is_given_before_both():
    tuned = ["n_threads 8 (tuned on 2026-11-20)", "n_batch 768 (tuned on 2026-11-20)"]
    assert explained(EngineConfig(), TUNED) == tuned
    assert explained(EngineConfig(n_threads=1), TUNED) == ["n_threads 1 (given)", tuned[1]]
    assert explained(EngineConfig(n_batch=96), TUNED) == [tuned[0], "n_batch 96 (given)"]
    sources = [one.source for one in settle(EngineConfig(n_batch=96), HERE, TUNED).reasons.values()]
    assert sources == ["tuned", "given"]


def test_what_was_not_measured_is_a_default():
    assert explained(EngineConfig(), Tuned(None, 1024, "2026-11-20")) == [
        "n_threads 4 (physical cores)",
        "n_batch 1024 (tuned on 2026-11-20)",
    ]


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
def test_threads_to_try(n_cores, n_cpus, expected):
    assert other_threads(n_cores, n_cpus) == expected
