"""Memory for contexts: little at first, more for long texts while they come, and never more than there is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engines import N_BATCH, N_CTX, hold, small
from gpus import device

from q3e_local import machine
from q3e_local.embedding.batching import N_UNSPLIT
from q3e_local.errors import NotEnoughMemoryError
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import binding, devices
from q3e_local.llama.context_memory import ContextMemory
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.settings.memory import ContextPlan
from q3e_local.llama.settings.placement import Placement
from q3e_local.models import names


def test_memory_for_logits_grows_with_the_texts_of_a_batch_and_not_with_its_tokens(f32):
    info = inspect(f32)
    row = info.n_vocab * 4

    def per_token(tap: bool) -> int:
        small, large = (ContextPlan(256, n_batch, 8, tap).n_bytes(info) for n_batch in (100, 1100))
        return (large - small) // 1000

    assert per_token(tap=False) - per_token(tap=True) == 2 * row
    plans = [ContextPlan(256, 100, n_seq_max, tap=True).n_bytes(info) for n_seq_max in (1, 2)]
    assert plans[1] - plans[0] == 2 * row


def test_a_context_must_fit_each_of_several_gpus_and_not_their_sum(f32, monkeypatch):
    """What one had too much counted for the other, so that llama.cpp was asked in vain."""
    info = inspect(f32)
    plan = ContextPlan(4096, N_BATCH, 1, tap=True)
    cells = plan.n_ctx * info.kv_bytes_per_token // info.n_layer  # of a layer
    buffers = replace(plan, kv_on_gpu=False).device_bytes(info, 1)
    # Of 3 layers and the projection, the first device has two.
    first, second = device("CUDA0"), device("CUDA1", description="Tesla P4")
    placement = Placement(3, 3, (first, second), split=(2, 2), shares=(0, 0))
    margin = 1 << 30
    enough = replace(second, free_bytes=margin + buffers + cells)
    here = [replace(first, free_bytes=margin + buffers + 2 * cells), enough]
    memory = ContextMemory(info, placement)
    monkeypatch.setattr(devices, "devices", lambda: here)
    assert memory.lack(plan) is None
    here[:] = [first, replace(enough, free_bytes=enough.free_bytes - 1)]
    lack = memory.lack(plan)
    assert lack is not None
    assert (lack.of_gpu, " beside the model on Tesla P4, where " in lack.text) == (True, True)
    assert memory.lack(plan, replace(plan, n_ctx=256)) is None  # which is freed before


def test_the_context_starts_small_grows_on_demand_and_not_above_the_files_length(
    f32, sequences, expected, monkeypatch
):
    made: list[int] = []
    context = binding.Context

    def record(*arguments: object, n_ctx: int, **options: object) -> binding.Context:
        made.append(n_ctx)
        return context(*arguments, n_ctx=n_ctx, **options)

    monkeypatch.setattr(binding, "Context", record)
    with LlamaEngine(f32, small(tap=False)) as engine:
        assert (engine.n_ctx_max, made) == (N_CTX, [256])
        # A long text has a context of its own.
        for n, contexts_made in (
            (9, [256]),
            (2 * N_BATCH, [256] * 2),
            (N_CTX, [256, 256, 512]),
            (9, [256, 256, 512]),
        ):
            vectors = engine.decode([sequences[n]])
            assert made == contexts_made
            hold(vectors, expected[n])


def test_a_text_there_is_no_memory_for_is_computed_in_smaller_pieces(tiny_gguf, eos_id, truth, monkeypatch, caplog):
    path, text = tiny_gguf("f32"), [*range(1000), *range(100), eos_id]
    enough = ContextPlan(1280, 512, 1, tap=True).n_bytes(inspect(path))
    with LlamaEngine(path, small(n_batch=1024)) as engine, caplog.at_level(logging.INFO, "q3e_local.settings"):
        monkeypatch.setattr(machine, "available_memory", lambda: enough)
        hold(engine.decode([text]), truth([text]), 0.9995)
    # The logger that --explain shows.
    said = [record.getMessage() for record in caplog.records if record.name == "q3e_local.settings"]
    assert said[-1:] == ["a text of 1101 tokens: pieces of 512 tokens (for want of memory)"]


def test_a_text_that_fits_only_without_room_to_grow_is_embedded(tiny_gguf, eos_id, truth, monkeypatch):
    path = tiny_gguf("f32")
    with LlamaEngine(path, small()) as engine:
        engine.decode([[*range(1000), *range(100), eos_id]])  # 1280 cells; a quarter more would be 1600
        info = inspect(path)
        just = ContextPlan(1536, N_UNSPLIT, 64, tap=True).n_bytes(info)
        there = ContextPlan(1280, N_UNSPLIT, 64, tap=True).n_bytes(info)
        monkeypatch.setattr(machine, "available_memory", lambda: just - there)
        longer = [*range(1000), *range(300), eos_id]
        hold(engine.decode([longer]), truth([longer]), 0.9995)


def test_too_little_memory_is_told_in_numbers_before_anything_is_allocated(f32, sequences, expected, monkeypatch):
    with LlamaEngine(f32, small()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(machine, "available_memory", lambda: 10_000)
            patch.setattr(binding, "Context", lambda *_, **__: pytest.fail("a context was made"))
            with pytest.raises(NotEnoughMemoryError, match=r"512 tokens needs \d+\.\d MB .* 0\.0 MB are free"):
                engine.decode([sequences[N_CTX]])
            hold(engine.decode([sequences[9]]), expected[9])
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX])


def test_a_context_that_was_made_for_a_long_text_is_given_up_after_many_short_ones(f32):
    with LlamaEngine(f32, small()) as engine:
        short, long = [5, engine.eos_id], [5] * 400 + [engine.eos_id]
        before = engine.decode([short])
        assert engine._loaded.contexts._long is None  # its memory is too small to be measured
        engine.decode([long])
        for _ in range(16):
            engine.decode([short])
            assert engine._loaded.contexts._long is not None
        np.testing.assert_array_equal(engine.decode([short]), before)
        assert engine._loaded.contexts._long is None


def test_a_long_text_keeps_its_context_while_many_batches_go_between_its_pieces(f32, eos_id, monkeypatch):
    long = [*range(5, 300), eos_id]
    with ThreadPoolExecutor(1) as pool, LlamaEngine(f32, small()) as engine:
        begun, go_on = threading.Event(), threading.Event()
        do = engine._owner.do  # between two pieces nothing can be seen from outside

        def slow(work: Callable[..., Any], *arguments: Any) -> Any:
            if work == engine._decoding._long._end:
                begun.set()
                assert go_on.wait(20)
            return do(work, *arguments)

        monkeypatch.setattr(engine._owner, "do", slow)
        answer = pool.submit(engine.decode, [long])
        assert begun.wait(20)
        for place in range(40):
            engine.decode([[100 + place, eos_id]])
        go_on.set()
        answer.result(20)
        engine.decode([[5, eos_id]])
        before = engine.counts.n_tokens
        engine.decode([[*long[:-1], 7, eos_id]])
        assert engine.counts.n_tokens - before == 64  # its context is still there


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("n_batch", [64, 512])
def test_a_plan_is_an_upper_bound_of_what_llama_cpp_says_it_takes(caplog, kv_type, n_batch):
    """On the demo model, whose vocabulary and heads are of real sizes, as those of the tiny models are not."""
    path = names.resolve("demo").located.path
    info, plan = inspect(path), ContextPlan(2048, n_batch, 8, tap=True, kv_type=kv_type)
    weights = binding.Weights(str(path).encode())
    with caplog.at_level(logging.DEBUG, "q3e_local.llama"):
        context = binding.Context(
            weights, n_ctx=plan.n_ctx, n_batch=plan.n_batch, n_seq_max=plan.n_seq_max, n_threads=1,
            pooling=binding.POOLING_NONE, kv_type=kv_type, eval_callback=lambda tensor, ask: False,
        )  # fmt: skip
    context.free()
    weights.free()
    lines = [record.getMessage() for record in caplog.records]
    # Of keys and values, of the graph and of logits.
    found = {
        kind: [line for line in lines if f"{kind} buffer size =" in line] for kind in ("KV", "compute", "output")
    }
    taken = {kind: sum(float(line.split("=")[1].split()[0]) for line in of) * 2**20 for kind, of in found.items()}
    kv = plan.n_ctx * info.kv_bytes_per_token * (34 / 64 if kv_type == "q8_0" else 1)
    assert taken["KV"] == pytest.approx(kv, rel=0.01)
    assert sum(taken.values()) <= plan.n_bytes(info) <= 2.5 * sum(taken.values())
