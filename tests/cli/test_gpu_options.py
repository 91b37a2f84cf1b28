"""Options for GPUs, as far as a command can be held to them without one."""

from __future__ import annotations

from typing import get_args

import numpy as np
import orjson
import pytest
from command import run
from gpus import device

from q3e_local.cli import main
from q3e_local.embedding.engine import EngineConfig, KvType
from q3e_local.llama import binding, forecast
from q3e_local.llama.settings.placement import Device

pytestmark = pytest.mark.skipif(binding.can_offload(), reason="what a build of llama.cpp without GPUs answers")
ONE = ("embed", "-m", "demo", "--text", "the budget of the year is decided", "-q", "--no-cache")


def vector(*options: str) -> np.ndarray:
    result = run(*ONE, "--format", "jsonl", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    return np.array(orjson.loads(result.stdout)["embedding"])


@pytest.mark.parametrize(
    "options",
    [
        ("--gpu-layers", "auto"), ("--gpu-layers", "0"), ("--kv-type", "f16"),
        *(("--device", spelled) for spelled in ("none", "None", "cpu", "CPU", " cpu ")),
    ],
)  # fmt: skip
def test_what_asks_for_nothing_else_changes_nothing(options):
    np.testing.assert_array_equal(vector(*options), vector())


def test_every_type_of_keys_and_values_can_be_chosen():
    (option,) = [each for each in main.get_command(None, "embed").params if each.name == "kv_type"]
    assert tuple(option.type.choices) == get_args(KvType)


def test_keys_and_values_in_q8_0_give_nearly_the_same_vector():
    exact, near = vector(), vector("--kv-type", "q8_0")
    assert 0.995 < exact @ near < 0.99999


def test_vectors_of_q8_0_neither_come_from_the_cache_nor_go_there():
    def cached(*options: str) -> np.ndarray:
        result = run(*ONE[:-1], "--cache", "--format", "jsonl", *options)
        assert result.exit_code == 0, result.stderr
        return np.array(orjson.loads(result.stdout)["embedding"])

    near = vector("--kv-type", "q8_0")
    np.testing.assert_array_equal(cached("--kv-type", "q8_0"), near)
    np.testing.assert_array_equal(cached(), vector())
    np.testing.assert_array_equal(cached("--kv-type", "q8_0"), near)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpu-layers", "3"), "--gpu-layers must be 0, got 3: this llama.cpp was built without a GPU"),
        (("--device", "CUDA0"), "--device must be none, got CUDA0: this llama.cpp was built without a GPU"),
        (("--gpu-layers", "some"), "'some' is neither a number from 0 on nor auto"),
        (("--gpu-layers", "-1"), "'-1' is neither a number from 0 on nor auto"),
        (("--device", "A,,B"), "--device must be names with commas between them, or none, got 'A,,B'"),
        (("--device", "none", "--gpu-layers", "2"), "--gpu-layers must be 0 where device is none, got 2"),
        (("--device", "CPU", "--gpu-layers", "2"), "--gpu-layers must be 0 where device is CPU, got 2"),
        (("--kv-type", "q4_0"), "'q4_0' is not one of 'f16', 'q8_0'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_option_as_it_was_typed(options, said):
    result = run(*ONE, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), []),
        (("--device", "cpu"), ["all 1 layers on the CPU (as asked)"]),
        (("--gpu-layers", "0"), ["all 1 layers on the CPU (as asked)"]),
        (
            ("--kv-type", "q8_0"),
            ["all 1 layers on the CPU (this llama.cpp was built without a GPU)", "kv_type q8_0 (given)"],
        ),
    ],
)
def test_who_asks_for_a_place_is_told_of_it(options, said):
    """--explain said nothing of it on a CPU, nor of --kv-type anywhere."""
    lines = run(*ONE, "--explain", *options).stderr.splitlines()
    assert [line.removeprefix("demo: ") for line in lines if "layers" in line or "kv_type" in line] == said


def test_a_server_that_was_started_for_a_gpu_in_vain_is_refused_before_it_listens(monkeypatch):
    """It opened its port, and then said that a driver may be missing; without a model, only its clients were told."""
    monkeypatch.setattr("q3e_local.server.run.serve", lambda *_: pytest.fail("it was started"))
    for options, said in (
        (("--gpu-layers", "3"), "--gpu-layers must be 0, got 3: this llama.cpp was built without a GPU; "),
        (("--device", "CUDA0"), "--device must be none, got CUDA0: this llama.cpp was built without a GPU; "),
    ):
        result = run("serve", *options)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert result.stderr.startswith(f"Error: {said}")
    pretend_gpus(monkeypatch, device())
    result = run("serve", "--device", "CUDA0,CUDA1")
    assert (result.exit_code, result.stderr.startswith("Error: --device must be one that")) == (2, True)
    assert "got 'CUDA1'; there is CUDA0: NVIDIA GeForce RTX 3060" in result.stderr


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, *here: Device) -> None:
    """Have a llama.cpp for these GPUs, as far as a process knows that has not loaded it."""
    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    monkeypatch.setattr(forecast, "ask", lambda: list(here))


def test_what_a_server_gets_of_them(monkeypatch):
    pretend_gpus(monkeypatch, device(), device("CUDA1"))
    configs: list[EngineConfig] = []
    from q3e_local.server.local import local_service

    class Stop(Exception):
        pass

    def service(settings: object, config: EngineConfig) -> None:
        configs.append(config)
        raise Stop

    monkeypatch.setattr(local_service, "LocalService", service)
    monkeypatch.setattr("q3e_local.server.run.serve", lambda settings, make: make(settings))
    with pytest.raises(Stop):
        run("serve", "--device", "CUDA0,CUDA1", "--gpu-layers", "12", "--kv-type", "q8_0")
    (config,) = configs
    assert (config.devices, config.n_gpu_layers, config.kv_type) == (("CUDA0", "CUDA1"), 12, "q8_0")
