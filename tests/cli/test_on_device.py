"""Commands on a device that is not in their process: llama.cpp's RPC server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import orjson
import pytest
import rpc
from command import run
from paths import TESTS

from q3e_local.llama.settings.placement import Device

pytestmark = pytest.mark.skipif(
    not rpc.is_built_in(), reason="this llama.cpp was built without its RPC backend; make gpu builds one with it"
)

TEXTS = ("--text", "what we decided about the budget", "--text", "another text")
EMBED = ("embed", "-m", "demo", *TEXTS, "--no-cache", "--format", "jsonl")


@pytest.fixture(scope="module")
def here() -> Iterator[Device]:
    with rpc.server() as device:
        yield device


def on(device: Device, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`q3e-local ARGUMENTS` where this device is."""
    program = [sys.executable, str(TESTS / "rpc_command.py"), device.description, *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=300, env=os.environ)


def vectors(output: str) -> np.ndarray:
    return np.array([orjson.loads(line)["embedding"] for line in output.splitlines()])


def test_a_command_computes_on_the_device_and_explains_it(here):
    on_cpu = run(*EMBED, "-q", "--device", "none")
    result = on(here, *EMBED, "--explain")
    assert result.returncode == 0, result.stderr
    assert f"demo: 1 of 1 layers on {here.description}, 0.03 of " in result.stderr
    assert "demo: n_batch 1024 (default on a GPU)" in result.stderr
    assert (vectors(result.stdout) * vectors(on_cpu.stdout)).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("options", [("--device", "none"), ("--gpu-layers", "0")])
def test_a_command_that_shall_not_computes_where_it_runs(here, options):
    on_cpu = run(*EMBED, "-q", *options)
    result = on(here, *EMBED, "--explain", *options)
    assert result.returncode == 0, result.stderr
    assert "demo: all 1 layers on the CPU (as asked)" in result.stderr
    np.testing.assert_array_equal(vectors(result.stdout), vectors(on_cpu.stdout))


def test_a_device_that_is_not_here_is_refused_with_those_that_are(here):
    result = on(here, *EMBED, "--device", "CUDA0")
    assert (result.returncode, result.stdout) == (2, "")
    said = " ".join(result.stderr.split())
    assert "--device must be one that llama.cpp sees here, got 'CUDA0'; there is RPC" in said
    assert here.description in said


def test_bench_measures_the_process_that_computes(here):
    result = on(here, "bench", "-m", "demo", "--seconds", "1", "-q", "--json")
    assert result.returncode == 0, result.stderr
    measured = orjson.loads(result.stdout)
    assert (measured["settings"]["n_gpu_layers"], measured["settings"]["n_batch"]) == (1, 1024)
    # The device computes, and not our kernels; the weights are not in this process either.
    assert {cell["kernels"]["products"] for cell in measured["cells"]} == {0}


def test_what_is_tuned_there_counts_there(here):
    result = on(here, "tune", "-m", "demo", "--seconds", "60", "-q")
    assert result.returncode == 0, result.stderr
    assert f"layers: {here.description} (RPC), all layers" in result.stdout
    assert "(tuned on " in on(here, *EMBED, "--explain").stderr
    assert "(tuned on " not in on(here, *EMBED, "--explain", "--gpu-layers", "0").stderr
