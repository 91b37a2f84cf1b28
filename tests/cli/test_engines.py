"""A command computes in its own process, or in another where a GPU may compute."""

from __future__ import annotations

import pytest

from q3e_local.cli.computing import engines
from q3e_local.llama import forecast
from q3e_local.server.workers.steady import SteadyEngine


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({}, SteadyEngine),
        ({"n_gpu_layers": None, "device": "CUDA0"}, SteadyEngine),
        ({"n_gpu_layers": 3}, SteadyEngine),
        ({"n_gpu_layers": 0}, None),
        ({"device": "none"}, None),
        ({"device": "CPU"}, None),
    ],
)
def test_where_llama_cpp_was_built_for_a_gpu(monkeypatch, options, made):
    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    assert engines.apart(options) is made


def test_where_it_was_not(monkeypatch):
    monkeypatch.setattr(forecast, "may_offload", lambda: False)
    assert engines.apart({}) is None
