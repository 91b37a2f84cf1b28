"""A job on a device that is not in this process, through the process in which the model is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import rpc

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama import binding
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.settings.placement import Device
from q3e_local.server.workers.steady import SteadyEngine
from q3e_local.server.workers.warming import warm_up
from q3e_local.server.workers.worker import WorkerEngine

pytestmark = pytest.mark.skipif(
    not rpc.is_built_in(), reason="this llama.cpp was built without its RPC backend; make gpu builds one with it"
)

TEXTS = [f"text {place} of a job on a device" for place in range(12)]


@pytest.fixture(scope="module")
def here() -> Iterator[Device]:
    with rpc.server() as device:
        yield device


@pytest.fixture(scope="module")
def on_cpu(tiny_gguf) -> np.ndarray:
    with LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1, n_gpu_layers=0)) as engine:
        return Embedder(engine, "tiny").embed_documents(TEXTS).vectors


def opened(path: Path, device: Device, **options: object) -> SteadyEngine:
    opens = partial(rpc.open_on, device.description)
    return SteadyEngine(path, EngineConfig(n_threads=1, n_batch=64, **options), open_engine=opens)


def test_vectors_are_those_of_the_cpu_and_this_process_asks_no_device(tiny_gguf, here, on_cpu, monkeypatch):
    monkeypatch.setattr(binding.lib, "llama_model_load_from_file", lambda *_: pytest.fail("loaded here"))
    with closing(opened(tiny_gguf("f32"), here)) as engine:
        assert engine.placement.explained.startswith(f"3 of 3 layers on {here.description}, ")
        vectors = Embedder(engine, "tiny").embed_documents(TEXTS).vectors
    np.testing.assert_allclose(vectors, on_cpu, atol=2e-3)


def test_a_worker_that_is_killed_in_the_middle_costs_no_text(tiny_gguf, here, on_cpu, caplog):
    with closing(opened(tiny_gguf("f32"), here)) as engine:
        embedder, n_killed = Embedder(engine, "tiny"), 0

        def kill(n_texts: int, n_tokens: int) -> None:
            nonlocal n_killed
            if n_texts and not n_killed:
                n_killed += 1
                psutil.Process(engine._worker.pid).kill()

        vectors = embedder.embed_documents(TEXTS, progress=kill).vectors
        assert engine.placement.all_on_gpu
    assert n_killed == 1
    np.testing.assert_allclose(vectors, on_cpu, atol=2e-3)


def test_a_device_that_is_gone_ends_the_process_and_the_cpu_goes_on(tiny_gguf, on_cpu, caplog):
    """llama.cpp aborts where a server does not answer, as a driver does where a card falls off the bus."""
    with rpc.server() as device:
        engine = opened(tiny_gguf("f32"), device)
        embedder = Embedder(engine, "tiny")
        embedder.embed_documents(TEXTS[:2])
    with closing(engine), caplog.at_level(logging.WARNING):
        vectors = embedder.embed_documents(TEXTS).vectors
        assert not engine.placement.on_gpu
    np.testing.assert_allclose(vectors, on_cpu, atol=2e-3)
    assert any("going on with all layers on the CPU" in record.getMessage() for record in caplog.records)


def test_a_device_with_too_little_memory_for_the_weights_costs_nothing(tiny_gguf, on_cpu, caplog):
    """The limit is real: the server gets no more memory. It may refuse, or end, and with it the worker's process."""
    long = " ".join(["a long text that needs a context of its own"] * 30)
    with LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1, n_gpu_layers=0)) as engine:
        expected = Embedder(engine, "tiny").embed_documents([long]).vectors
    with (
        caplog.at_level(logging.WARNING),
        rpc.server(memory_bytes=3_000_000) as tight,
        closing(opened(tiny_gguf("f32"), tight)) as engine,
    ):
        embedder = Embedder(engine, "tiny")
        np.testing.assert_allclose(embedder.embed_documents(TEXTS).vectors, on_cpu, atol=2e-3)
        np.testing.assert_allclose(embedder.embed_documents([long]).vectors, expected, atol=5e-3)
        assert not engine.placement.all_on_gpu
    assert caplog.records  # what was given up, and why


def test_a_worker_is_warmed_up_and_tells_what_its_device_holds_and_has_free(tiny_gguf, here, caplog):
    opens = partial(rpc.open_on, here.description)
    with closing(WorkerEngine(tiny_gguf("f32"), EngineConfig(n_threads=1, n_batch=64), open_engine=opens)) as worker:
        worker.load()
        with caplog.at_level(logging.INFO, "q3e_local"):
            warm_up(worker, "tiny")
        assert "warmed tiny up in " in caplog.text
        before = worker.placement
        worker.look()
        ((device, share),) = worker.placement.takes
        assert (device.description, device.total_bytes) == (here.description, here.total_bytes)
        assert (share, worker.placement.split) == (before.shares[0], (4,))  # 3 layers, and the projection
        assert 0 < share < worker.n_bytes
