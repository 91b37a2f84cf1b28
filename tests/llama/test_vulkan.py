"""The demo model on a Vulkan device: in `make gpu` Mesa's lavapipe, whose kernels are its own and not the CPU's."""

from __future__ import annotations

import numpy as np
import pytest
from engines import Ids

from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama import devices, tensors
from q3e_local.llama.engine import LlamaEngine
from q3e_local.models import names

HERE = [each for each in devices.devices() if each.backend == "Vulkan"]
pytestmark = pytest.mark.skipif(
    not HERE,
    reason="llama.cpp sees no Vulkan device; make gpu builds for one, and GGML_VK_VISIBLE_DEVICES=0 shows lavapipe",
)

PATH = names.resolve("demo").located.path
TEXTS = [f"text {place}: what we decided about the budget of the year {2000 + place}" for place in range(40)]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ids_of(engine: LlamaEngine) -> list[Ids]:
    return [[*engine.tokenize(text), engine.eos_id] for text in TEXTS]


@pytest.fixture(scope="module")
def on_cpu() -> np.ndarray:
    with LlamaEngine(PATH, EngineConfig(n_gpu_layers=0)) as engine:
        sequences = ids_of(engine)
        return unit(np.concatenate([engine.decode(sequences[n : n + 10]) for n in range(0, 40, 10)]))


def test_vectors_are_near_those_of_the_cpu_and_the_graph_ends_at_the_tap(on_cpu):
    with LlamaEngine(PATH, EngineConfig()) as engine:
        assert engine.placement.all_on_gpu
        assert engine.placement.place == f"{HERE[0].description} (Vulkan), all layers"
        assert engine.tap
        sequences = ids_of(engine)
        vectors = unit(np.concatenate([engine.decode(sequences[n : n + 10]) for n in range(0, 40, 10)]))
        assert engine.counts.after_tap == ()
    # The CPU computes with activations of 8 bits, and this device does not.
    assert (on_cpu * vectors).sum(axis=1).min() > 0.9999


def test_without_layers_there_the_device_is_not_asked_and_the_projection_not_computed(on_cpu, monkeypatch):
    asked: list[bytes] = []
    name_of = tensors.name_of
    monkeypatch.setattr(tensors, "name_of", lambda tensor: asked.append(name_of(tensor)) or asked[-1])
    with LlamaEngine(PATH, EngineConfig(n_gpu_layers=0)) as engine:
        sequences = ids_of(engine)
        asked.clear()
        vectors = unit(engine.decode(sequences[:10]))
        assert engine.counts.after_tap == ()
    assert asked[-1] == b"result_norm"
    np.testing.assert_allclose(vectors, on_cpu[:10], atol=1e-6)


def test_a_text_in_pieces_is_near_that_of_the_cpu():
    with LlamaEngine(PATH, EngineConfig(n_gpu_layers=0, n_batch=128)) as engine:
        text = [*(each for ids in ids_of(engine)[:15] for each in ids[:-1]), engine.eos_id]
        assert len(text) > 256
        expected = unit(engine.decode([text]))
    with LlamaEngine(PATH, EngineConfig(n_batch=128)) as engine:
        assert (unit(engine.decode([text])) * expected).sum() > 0.999
