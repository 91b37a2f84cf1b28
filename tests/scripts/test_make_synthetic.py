"""The script that writes full-size models with random weights, here with a small model."""

from __future__ import annotations

import runpy
from dataclasses import replace
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from gguf.quants import dequantize
from paths import ROOT

from q3e_local.gguf.model_file import inspect

SCRIPT = ROOT / "scripts" / "convert" / "make_synthetic.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_it_writes_a_model_of_the_family(script, tmp_path):
    sizes = script["SIZES"]
    sizes["0.6b"] = replace(sizes["0.6b"], n_layer=2, n_embd=256, n_ff=256, n_head=2, n_head_kv=1)
    out = tmp_path / "synth.gguf"
    result = CliRunner().invoke(script["main"], ["--size", "0.6b", "-o", str(out)])
    assert result.exit_code == 0, result.output
    info = inspect(out)
    assert (info.quantization, info.n_layer, info.n_embd, info.n_vocab) == ("q4_k_m", 2, 256, 151669)
    again = CliRunner().invoke(script["main"], ["--size", "0.6b", "-o", str(out)])
    assert (again.exit_code, "exists; remove it" in again.output) == (1, True)
    assert list(tmp_path.glob("synth*")) == [out]


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
def test_random_blocks_are_weights_around_zero(script, kind):
    kind_ = gguf.GGMLQuantizationType[kind]
    blocks = script["random_tensor"]((64, 256), kind_, np.random.default_rng(0))
    weights = dequantize(blocks, kind_)
    assert weights.shape == (64, 256)
    assert abs(weights.mean()) < 0.002
    assert weights.std() == pytest.approx(0.02, rel=0.1)
