"""Texts longer than a batch: computed in pieces, with batches of other texts between pieces and layers."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from engines import N_BATCH, N_CTX, Ids, hold, small
from waiting import until

from q3e_local.errors import EngineError
from q3e_local.llama import binding, contexts
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.pooling_context import Counts, PoolingContext
from q3e_local.llama.settings.placement import Placement

# Pieces


def test_a_long_text_is_computed_in_pieces_of_a_batch_by_flash_attention_with_f16(f32, sequences, monkeypatch):
    made: list[Any] = []
    make = binding.lib.llama_init_from_model

    def recorded(model: Any, params: Any) -> Any:
        made.append((params.n_batch, params.flash_attn_type, params.type_k, params.type_v))
        return make(model, params)

    monkeypatch.setattr(binding.lib, "llama_init_from_model", recorded)
    monkeypatch.setattr(binding, "can_offload", lambda: False)
    with LlamaEngine(f32, small(n_batch=128)) as engine:
        before = engine.counts
        engine.decode([sequences[N_CTX]])
        assert engine.counts == Counts(before.n_decodes + 4, before.n_tokens + N_CTX, 0)
    on, f16 = binding.lib.LLAMA_FLASH_ATTN_TYPE_ENABLED, binding.lib.GGML_TYPE_F16
    assert made[-2:] == [(128, on, f16, f16)] * 2  # for batches, and for the long text


def test_slow_pieces_get_smaller_and_the_vector_stays(f32, expected, sequences, monkeypatch):
    monkeypatch.setattr("q3e_local.llama.stride.STEP_S", 0.0)
    pieces: list[int] = []
    with LlamaEngine(f32, small(n_batch=128)) as engine:
        engine.decode([sequences[N_CTX]], None, pieces.append)
        assert pieces == [128] * 4  # no other text has come, so that smaller pieces gain nothing
        pieces.clear()
        engine.decode([sequences[9]])
        hold(engine.decode([sequences[N_CTX - 1]], None, pieces.append), expected[N_CTX - 1])
        assert pieces == [128, 64, 64, 64, 64, 127]


def test_long_texts_that_begin_alike_go_on_from_where_they_differ(f32, eos_id, truth):
    rng = np.random.default_rng(7)
    head = rng.integers(0, 1000, 3 * N_BATCH + 5).tolist()
    alike = [[*head, *rng.integers(0, 1000, n).tolist(), eos_id] for n in (5, 90, 3)]
    with LlamaEngine(f32, small()) as engine:
        for place, ids in enumerate(alike):
            before = engine.counts.n_tokens
            hold(engine.decode([ids]), truth([ids]))
            # The last 64 tokens are computed anew in any case.
            assert engine.counts.n_tokens - before == (max(64, len(ids) - len(head)) if place else len(ids))
        other = [*reversed(alike[0][:-1]), eos_id]
        hold(engine.decode([other]), truth([other]))


# Other texts between its pieces and layers


@pytest.fixture
def on_layer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """`on_layer(f)`: call `f` after each layer of a long text, on the thread that computes it."""

    def patch(call: Callable[[], object]) -> None:
        layer_done = PoolingContext._layer_done  # llama.cpp calls it, so that no test can from outside

        def called(self: PoolingContext) -> bool:
            call()
            return layer_done(self)

        monkeypatch.setattr(PoolingContext, "_layer_done", called)

    return patch


def until_a_batch_waits(engine: LlamaEngine) -> None:
    until(lambda: engine._owner.n_waiting > 0)  # the thread that waits shows no sign of it


def test_short_texts_are_decoded_between_the_pieces_of_a_long_text(f32, expected, sequences, monkeypatch):
    with LlamaEngine(f32, small()) as engine, ThreadPoolExecutor(1) as other:
        done: list[int] = []
        short: list[Any] = []
        piece = PoolingContext.piece

        def recorded(self: Any, ids: Ids, start: int, **options: bool) -> int:
            end = piece(self, ids, start, **options)
            done.append(start)
            if len(done) == 2:  # while the long text is computed
                short.append(other.submit(engine.decode, [sequences[9]]))
                until_a_batch_waits(engine)
            elif len(done) == 4:
                assert short[0].done()
            return end

        monkeypatch.setattr(PoolingContext, "piece", recorded)
        long = engine.decode([sequences[N_CTX]])
        assert len(done) > 4
        hold(long, expected[N_CTX])
        hold(short[0].result(), expected[9])


def test_a_short_text_is_computed_between_two_layers_of_a_piece(f32, expected, sequences, monkeypatch, on_layer):
    order, answers = "", list[Any]()
    piece = PoolingContext.piece

    def one_piece(self: Any, ids: Ids, start: int, **options: bool) -> int:
        nonlocal order
        order += "("
        end = piece(self, ids, start, **options)
        order += ")"
        return end

    with LlamaEngine(f32, small(n_batch=2 * N_BATCH)) as engine, ThreadPoolExecutor(1) as other:
        compute = engine._loaded.contexts.batch.decode  # when a batch is computed does not show in its vectors

        def batch(*arguments: Any) -> np.ndarray:
            nonlocal order
            order += "b"
            return compute(*arguments)

        def one_layer() -> None:
            nonlocal order
            order += "l"
            if order == "(l":
                answers.append(other.submit(engine.decode, [sequences[9]]))
                until_a_batch_waits(engine)

        monkeypatch.setattr(engine._loaded.contexts.batch, "decode", batch)
        monkeypatch.setattr(PoolingContext, "piece", one_piece)
        on_layer(one_layer)
        long = engine.decode([sequences[2 * N_BATCH + 1]])
        assert order == "(lb" + "l" * (engine.info.n_layer - 1) + ")"
        hold(answers[0].result(), expected[9])
        hold(long, expected[2 * N_BATCH + 1])


def test_nothing_comes_between_the_layers_on_a_gpu(f32, sequences):
    with LlamaEngine(f32, small(n_batch=2 * N_BATCH)) as engine:
        n_calls = []
        for on_gpu in (True, False):
            calls: list[None] = []
            between = partial(calls.append, None)
            # No GPU is here: contexts as an engine on a GPU makes them, of the model that this engine loaded.
            placement = Placement(engine.info.n_layer, engine.info.n_layer if on_gpu else 0)
            weights = engine._loaded.weights
            made = contexts.Contexts(weights, engine.info, engine.settings, 1, True, placement, between)
            made.long(N_CTX, N_CTX).decode([sequences[2 * N_BATCH + 1]])
            made.free()
            n_calls.append(len(calls))
        assert n_calls == [0, engine.info.n_layer]


# When it is stopped


@pytest.mark.parametrize("step", ["piece", "layer"])
def test_a_long_text_stops_between_two_steps_when_the_engine_is_closed(f32, sequences, monkeypatch, on_layer, step):
    n_steps, working, closing = 0, threading.Event(), threading.Event()

    def one_step() -> None:
        nonlocal n_steps
        n_steps += 1
        working.set()
        assert closing.wait(20)

    engine = LlamaEngine(f32, small())
    if step == "layer":
        on_layer(one_step)
    else:
        decode = binding.Context.decode
        monkeypatch.setattr(binding.Context, "decode", lambda self, batch: (one_step(), decode(self, batch)))
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(engine.decode, [sequences[N_CTX]])
        assert working.wait(20)
        closed = pool.submit(engine.close)
        until(lambda: engine._owner.stopping)  # `close` itself waits for the step
        closing.set()
        with pytest.raises(EngineError, match="closed while it worked"):
            answer.result(20)
        closed.result(20)
    assert n_steps == 1


def test_batches_inside_a_long_text_that_ctrl_c_gave_up_do_not_free_its_context(
    f32, sequences, monkeypatch, on_layer
):
    """The context was freed while llama.cpp computed with it, which ends the process."""
    monkeypatch.setattr(contexts, "_SHORT_BEFORE_FREEING", 0)  # else it takes 16 batches
    order, answers, interrupted = "", list[Any](), threading.Event()

    def one_layer() -> None:
        nonlocal order
        order += "l"
        if order == "l":
            _thread.interrupt_main()
            assert interrupted.wait(20)
            answers.append(other.submit(engine.decode, [sequences[9]]))
            until_a_batch_waits(engine)

    def free(self: PoolingContext) -> None:
        nonlocal order
        order += "f"

    with LlamaEngine(f32, small(n_batch=2 * N_BATCH)) as engine, ThreadPoolExecutor(1) as other:
        on_layer(one_layer)
        with monkeypatch.context() as patch:
            patch.setattr(PoolingContext, "free", free)
            with pytest.raises(KeyboardInterrupt):
                engine.decode([sequences[2 * N_BATCH + 1]])
            interrupted.set()
            engine._owner.do(lambda: None)  # the piece is done
        assert len(answers[0].result(20)) == 1
        assert order == "l" * engine.info.n_layer


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to one process is POSIX")
def test_ctrl_c_interrupts_a_long_text(tiny_gguf):
    script = """
import sys
from pathlib import Path
from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.engine import LlamaEngine
engine = LlamaEngine(Path(sys.argv[1]), EngineConfig(n_batch=1, n_threads=1))
ids = [5] * 2047 + [engine.eos_id]
try:
    print("working", flush=True)
    while True:
        engine.decode([ids])
except KeyboardInterrupt:
    engine.close()
    sys.exit(7)
"""
    command = [sys.executable, "-c", script, tiny_gguf("f32")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, stderr) == (7, "")
