"""The tap where llama.cpp would go on behind it, because the projection is on another device than the last layer."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from engines import N_CTX, hold, small

from q3e_local.llama import binding, pooling_context, tensors
from q3e_local.llama.engine import LlamaEngine


@pytest.fixture
def goes_on(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """llama.cpp does not end the graph at the tap. Returns the names of what it then asks about, as it does."""
    asked: list[bytes] = []
    make = pooling_context.binding.Context

    def made(*arguments: Any, eval_callback: Any = None, **options: Any) -> binding.Context:
        def go_on(tensor: int, ask: bool) -> bool:
            if ask:
                asked.append(tensors.name_of(tensor))
            wanted = bool(eval_callback(tensor, ask))
            return wanted if ask else True

        callback = None if eval_callback is None else go_on
        return make(*arguments, eval_callback=callback, **options)

    monkeypatch.setattr(binding, "Context", made)
    return asked


def test_a_projection_on_another_device_is_left_out(f32, sequences, expected, goes_on, monkeypatch, caplog):
    left_out: list[bytes] = []
    leave_out = tensors.leave_out

    def noted(tensor: int) -> bool:
        left_out.append(tensors.name_of(tensor))
        return leave_out(tensor)

    monkeypatch.setattr(tensors, "leave_out", noted)
    with LlamaEngine(f32, small()) as engine:
        assert engine.tap
        goes_on.clear()
        for n in (9, 9, N_CTX, 2, 9):  # llama.cpp uses the graph of a batch again for the next of the same shape
            hold(engine.decode([sequences[n]]), expected[n])
            assert engine.counts.after_tap == ()
    assert goes_on.count(b"result_output") >= 4
    assert set(left_out) == {b"result_output"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_is_computed_behind_the_tap_is_counted_and_said_once(
    f32, sequences, expected, goes_on, monkeypatch, caplog
):
    monkeypatch.setattr(tensors, "leave_out", lambda tensor: False)  # as on a llama.cpp of another layout
    with LlamaEngine(f32, small()) as engine:
        for n in (9, 2):
            hold(engine.decode([sequences[n]]), expected[n])
            assert engine.counts.after_tap == (b"result_output",)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "computes on behind the hidden-state tap (result_output)" in said


# ggml's tensors


@contextmanager
def graph() -> Iterator[Any]:
    """A function that makes tensors of ggml's by the name of its function, in memory of their own."""

    class Params(ctypes.Structure):
        _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))

    context = binding.function("ggml_init", ctypes.c_void_p, Params)(Params(1 << 20, None, False))
    new = binding.function(
        "ggml_new_tensor_2d", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
    )

    def made(name: str) -> int:
        of = binding.function(name, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        f32 = binding.lib.GGML_TYPE_F32
        return int(of(context, new(context, f32, 4, 3), new(context, f32, 4, 3)))

    yield made
    binding.function("ggml_free", None, ctypes.c_void_p)(context)


def test_a_product_becomes_nothing_and_no_other_operation_does():
    operation = binding.function("ggml_op_desc", ctypes.c_char_p, ctypes.c_void_p)
    with graph() as made:
        product, total = made("ggml_mul_mat"), made("ggml_add")
        size = ctypes.string_at(total, 200)
        assert (tensors.leave_out(total), operation(total), ctypes.string_at(total, 200)) == (False, b"ADD", size)
        before = ctypes.string_at(product, 336)
        assert tensors.leave_out(product)
        assert operation(product) == b"NONE"
        pairs = zip(before, ctypes.string_at(product, 336), strict=True)
        assert [place for place, (old, new) in enumerate(pairs) if old != new] == [80]
        assert tensors.leave_out(product)  # it is left out already


@pytest.mark.parametrize("offset", [0, 16, 76, 84])
def test_a_tensor_of_another_layout_stays_as_it_is(monkeypatch, offset):
    monkeypatch.setattr(tensors, "_OP_OFFSET", offset)
    with graph() as made:
        product = made("ggml_mul_mat")
        before = ctypes.string_at(product, 336)
        assert not tensors.leave_out(product)
        assert ctypes.string_at(product, 336) == before
