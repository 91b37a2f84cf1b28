"""Settings, each with its reason: an option of the user comes first, then what was tuned, then the default."""

from __future__ import annotations

import pytest

from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.kernels.choice import VARIANTS
from q3e_local.llama.settings.defaults import TUNABLE, Host, Tuned, other_threads, settle

HERE = Host(4)
TUNED = Tuned(n_threads=8, n_batch=768, day="2026-11-20")


def explained(config: EngineConfig, tuned: Tuned | None, host: Host = HERE) -> list[str]:
    settings = settle(config, host, tuned)
    return [settings.explained(name) for name in TUNABLE]


def test_a_gpu_gets_larger_batches():
    assert explained(EngineConfig(), None, Host(4, on_gpu=True))[1] == "n_batch 1024 (default on a GPU)"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (Host(16, on_gpu=True, all_on_gpu=True), "n_threads 4 (enough beside a GPU that has all layers)"),
        (Host(16, on_gpu=True), "n_threads 16 (physical cores)"),  # the other layers are the CPU's
        (Host(2, on_gpu=True, all_on_gpu=True), "n_threads 2 (physical cores)"),
    ],
)
def test_beside_a_gpu_that_has_all_layers_few_threads_look_up_tokens(host, expected):
    assert explained(EngineConfig(), None, host)[0] == expected
    assert explained(EngineConfig(n_threads=9), None, host)[0] == "n_threads 9 (given)"
    assert explained(EngineConfig(), TUNED, host)[0] == "n_threads 8 (tuned on 2026-11-20)"


def test_amx_gets_larger_batches_where_the_cpu_computes():
    batches = {name: explained(EngineConfig(), None, Host(4, kernels=name))[1] for name in (None, *VARIANTS)}
    assert batches.pop("amx") == "n_batch 1024 (default with AMX)"
    assert set(batches.values()) == {"n_batch 512 (default)"}
    assert (
        explained(EngineConfig(), None, Host(4, on_gpu=True, kernels="amx"))[1] == "n_batch 1024 (default on a GPU)"
    )


def test_what_was_tuned_replaces_a_default_and_an_option_replaces_both():
    tuned = ["n_threads 8 (tuned on 2026-11-20)", "n_batch 768 (tuned on 2026-11-20)"]
    assert explained(EngineConfig(), TUNED) == tuned
    assert explained(EngineConfig(n_threads=1), TUNED) == ["n_threads 1 (given)", tuned[1]]
    assert explained(EngineConfig(n_batch=96), TUNED) == [tuned[0], "n_batch 96 (given)"]
    sources = [reason.source for reason in settle(EngineConfig(n_batch=96), HERE, TUNED).reasons.values()]
    assert sources == ["tuned", "given"]


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
