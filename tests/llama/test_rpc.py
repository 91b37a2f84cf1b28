"""The engine on devices whose memory is not in this process: llama.cpp's RPC servers on loopback."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rpc
from engines import N_CTX, hold, small

from q3e_local.embedding.engine import EngineConfig
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import binding, devices, tensors
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.settings.memory import for_batches, for_long
from q3e_local.llama.settings.placement import Device
from q3e_local.llama.settings.planning import device_bytes
from q3e_local.models import names

pytestmark = pytest.mark.skipif(
    not rpc.is_built_in(), reason="this llama.cpp was built without its RPC backend; make gpu builds one with it"
)


@pytest.fixture(scope="module")
def here() -> Iterator[list[Device]]:
    """Two devices."""
    with rpc.server() as first, rpc.server() as second:
        yield [first, second]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, here: list[Device]) -> Any:
    """`only(a, b)`: llama.cpp has these devices alone. It never forgets one that it was told of."""

    def install(*some: Device) -> None:
        monkeypatch.setattr(devices, "devices", lambda: list(some))

    install(*here)
    return install


def test_devices_have_names_a_driver_and_memory(here):
    assert [each.backend for each in here] == ["RPC", "RPC"]
    assert len({each.name for each in here}) == 2
    assert all(each.kind == "discrete" and 0 < each.free_bytes <= each.total_bytes for each in here)
    assert devices.are_there()
    assert all(devices.pointers(here))


@pytest.mark.parametrize("options", [{}, {"n_gpu_layers": 1}, {"kv_type": "q8_0"}, {"tap": False}])
def test_vectors_are_right_on_a_device(f32, sequences, expected, only, options, caplog):
    with LlamaEngine(f32, small(**options)) as engine:
        assert engine.placement.n_on_gpu == options.get("n_gpu_layers", 3)
        assert engine.tap == options.get("tap", True)
        least = 0.999 if "kv_type" in options else 0.9999
        for n in (9, 2, N_CTX):
            hold(engine.decode([sequences[n]]), expected[n], least)
        assert engine.counts.after_tap == ()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def with_weights(caplog: pytest.LogCaptureFixture, here: list[Device]) -> list[str]:
    """The names of the devices that llama.cpp says it put weights on."""
    lines = [record.getMessage() for record in caplog.records if "model buffer size" in record.getMessage()]
    return [each.name for each in here if any(each.description in line for line in lines)]


def test_one_device_has_a_model_that_fits(f32, only, here, caplog):
    with caplog.at_level(logging.DEBUG, "q3e_local.llama"), LlamaEngine(f32, small()) as engine:
        (of,) = engine.placement.devices
    assert with_weights(caplog, here) == [of.name]


def test_two_devices_share_a_model_that_fits_neither(f32, sequences, expected, only, here, caplog):
    info = inspect(f32)
    room = device_bytes(info, for_batches(32, 64, tap=True), info.n_layer, 2) * 3 // 5
    only(*(replace(each, free_bytes=room * 8 // 7, total_bytes=room * 8 // 7) for each in here))
    with caplog.at_level(logging.DEBUG, "q3e_local.llama"), LlamaEngine(f32, small()) as engine:
        assert (len(engine.placement.devices), engine.placement.all_on_gpu) == (2, True)
        for n in (9, N_CTX):
            hold(engine.decode([sequences[n]]), expected[n])
        assert engine.counts.after_tap == ()
    assert with_weights(caplog, here) == [each.name for each in here]


def test_what_each_of_two_devices_holds_is_what_llama_cpp_says_of_its_weights(f32, only, here, caplog):
    """The rest of a share is keys, values and buffers, whose arithmetic has a test of its own."""
    info = inspect(f32)
    room = device_bytes(info, for_batches(32, 64, tap=True), info.n_layer, 2) * 3 // 5
    only(*(replace(each, free_bytes=room * 8 // 7, total_bytes=room * 8 // 7) for each in here))
    with caplog.at_level(logging.DEBUG, "q3e_local.llama"), LlamaEngine(f32, small()) as engine:
        placement, context = engine.placement, engine._loaded.contexts.batch.plan
        before = [each.free_bytes for each in placement.devices]
        only(*(replace(each, free_bytes=each.free_bytes - 1000) for each in placement.devices))
        assert [each.name for each in engine.look().devices] == [each.name for each in placement.devices]
        assert [each.free_bytes for each in engine.placement.devices] == [free - 1000 for free in before]
        assert engine.placement.shares == placement.shares
    said = {
        of[1]: float(of[2]) * 2**20
        for record in caplog.records
        if (of := re.search(r"\bRPC\d+\[(\S+)\] +model buffer size = +([\d.]+) MiB", record.getMessage()))
    }
    compute = replace(context, kv_on_gpu=False).device_bytes(info, 1)
    in_cells = (context.device_bytes(info, info.n_layer) - compute) / info.n_layer
    for (device, share), fields in zip(placement.takes, placement.fields()["devices"], strict=True):
        assert share - compute - fields["layers"] * in_cells == pytest.approx(said[device.description], rel=0.02)


def test_without_layers_there_nothing_is_sent_to_a_device(tiny_gguf, eos_id, only, monkeypatch, caplog):
    """llama.cpp sends products of 32 rows and more there by itself, with their weights."""
    caplog.set_level(logging.DEBUG, "q3e_local.llama")
    asked: list[bytes] = []
    name_of = tensors.name_of
    monkeypatch.setattr(tensors, "name_of", lambda tensor: asked.append(name_of(tensor)) or asked[-1])
    with LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1, n_gpu_layers=0)) as engine:
        engine.decode([[*range(100), eos_id]])
    assert asked[-1] == b"result_norm"
    assert not [record for record in caplog.records if "RPC" in record.getMessage()]


def test_a_projection_that_stayed_on_the_cpu_is_left_out(f32, sequences, expected, only, monkeypatch):
    """As on devices with small buffers: llama.cpp keeps the vocabulary's matrix on the CPU, with the layers there."""

    class Override(ctypes.Structure):
        _fields_ = (("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p))

    on_cpu = binding.function("ggml_backend_cpu_buffer_type", ctypes.c_void_p)()
    overrides = (Override * 2)(Override(b"token_embd", on_cpu))
    load = binding.lib.llama_model_load_from_file

    def overridden(path: bytes, params: Any) -> Any:
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        return load(path, params)

    monkeypatch.setattr(binding.lib, "llama_model_load_from_file", overridden)
    asked: list[bytes] = []
    name_of = tensors.name_of
    monkeypatch.setattr(tensors, "name_of", lambda tensor: asked.append(name_of(tensor)) or asked[-1])
    with LlamaEngine(f32, small()) as engine:
        for n in (9, N_CTX, 9):
            asked.clear()
            hold(engine.decode([sequences[n]]), expected[n])
            assert asked[-1] == b"result_output"  # asked about, and not computed:
            assert engine.counts.after_tap == ()


def test_a_prefix_is_shared_in_a_batch_and_not_copied_between_batches(tiny_gguf, eos_id, truth, only, monkeypatch):
    monkeypatch.setattr(binding.Context, "state", lambda *_: pytest.fail("a state was copied"))
    head = list(range(20))
    texts = [[*head, 7, eos_id], [*head, 8, 9, eos_id]]
    with LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1)) as engine:
        for _ in range(2):
            hold(engine.decode(texts, [20, 20]), truth(texts), 0.9995)
        assert engine.counts.n_reused == 2 * 20


def test_a_long_text_and_batches_beside_it_are_right_while_layers_are_taken_from_a_device(
    f32, sequences, expected, only, monkeypatch
):
    make = binding.Context
    refused = threading.Event()

    def made(model: binding.Weights, **options: Any) -> binding.Context:
        if model.on_gpu and options["n_ctx"] > 256:
            refused.set()
            raise binding.NativeError("failed to allocate RPC0 buffer of size 9")
        return make(model, **options)

    monkeypatch.setattr(binding, "Context", made)
    with LlamaEngine(f32, small()) as engine:
        vectors: list[np.ndarray] = []

        def work() -> None:
            while not refused.is_set() or len(vectors) < 5:
                vectors.append(engine.decode([sequences[9]]))
                assert engine.tokenize("some text")

        beside = threading.Thread(target=work)
        beside.start()
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX])
        beside.join()
        assert not engine.on_gpu
        for vector in vectors:
            hold(vector, expected[9])


def test_context_arithmetic_is_an_upper_bound_of_what_llama_cpp_takes_on_a_device(here, caplog):
    """llama.cpp's own figures by `no_alloc`, where it says in the log what it would allocate."""
    path = names.resolve("demo").located.path
    info = inspect(path)
    for plan in (for_batches(1024, 64, tap=True), for_batches(512, 8, tap=True), for_long(1024, 8192, tap=True)):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "q3e_local.llama"):
            weights = binding.Weights(str(path).encode(), info.n_layer + 1, devices.pointers(here[:1]), no_alloc=True)
            context = binding.Context(
                weights, n_ctx=plan.n_ctx, n_batch=plan.n_batch, n_seq_max=plan.n_seq_max, n_threads=1,
                pooling=binding.POOLING_NONE, eval_callback=lambda tensor, ask: False,
            )  # fmt: skip
            context.free()
            weights.free()
        (compute,) = (
            float(line.split("=")[1].split()[0]) * 2**20
            for line in (record.getMessage() for record in caplog.records)
            if re.search(rf"{here[0].description}.* compute buffer size", line)
        )
        kv = plan.n_ctx * info.kv_bytes_per_token
        assert compute <= plan.device_bytes(info, info.n_layer) - kv <= 2.5 * compute
