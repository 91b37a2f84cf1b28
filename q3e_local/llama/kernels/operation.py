"""One operation of a graph, computed by llama.cpp's CPU backend: for holding kernels to it.

Knows ggml's functions; nothing of models, and nothing of who computes the operation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from ctypes import c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p

import numpy as np
from numpy.typing import NDArray

from q3e_local.llama.binding import function
from q3e_local.llama.native_log import NativeError

F32, F16 = 0, 1  # of ggml_type in ggml.h
ON_TRIAL = "q3e on trial"  # the name of an operation that a variant on trial computes: see kernels/door.cpp

Watch = AbstractContextManager[object]  # entered before a computation, left after it: a stopwatch, for instance
_NOBODY: Watch = nullcontext()

_ROOM = 1 << 16  # bytes for what a graph of a few tensors needs beside their data


class _Parameters(ctypes.Structure):  # ggml_init_params
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


_init = function("ggml_init", c_void_p, _Parameters)
_free = function("ggml_free", None, c_void_p)
_set_name = function("ggml_set_name", c_void_p, c_void_p, c_char_p)
_tensor = function("ggml_new_tensor_4d", c_void_p, c_void_p, c_int, c_int64, c_int64, c_int64, c_int64)
_data = function("ggml_get_data", c_void_p, c_void_p)
_row_bytes = function("ggml_row_size", c_size_t, c_int, c_int64)
_n_bytes = function("ggml_nbytes", c_size_t, c_void_p)
_overhead = function("ggml_graph_overhead", c_size_t)
_view = function("ggml_view_2d", c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_size_t, c_size_t)
_permute = function("ggml_permute", c_void_p, c_void_p, c_void_p, c_int, c_int, c_int, c_int)
_mul_mat = function("ggml_mul_mat", c_void_p, c_void_p, c_void_p, c_void_p)
_attend = function(
    "ggml_flash_attn_ext", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_float, c_float
)
_new_graph = function("ggml_new_graph", c_void_p, c_void_p)
_expand = function("ggml_build_forward_expand", None, c_void_p, c_void_p)
_compute = function("ggml_graph_compute_with_ctx", c_int, c_void_p, c_void_p, c_int)
_quantize = function("ggml_quantize_chunk", c_size_t, c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)


def quantized(weights: NDArray[np.float32], kind: int) -> NDArray[np.uint8]:
    """The rows (n_rows, depth) as ggml's type of this number: (n_rows, bytes of a row)."""
    n_rows, depth = weights.shape
    rows = np.zeros((n_rows, _row_bytes(kind, depth)), np.uint8)
    plain = np.ascontiguousarray(weights, np.float32)
    _quantize(kind, plain.ctypes.data, rows.ctypes.data, 0, n_rows, depth, None)
    return rows


def product(
    weights: NDArray[np.uint8],
    kind: int,
    tokens: NDArray[np.float32],
    n_threads: int = 1,
    name: str = "",
    watch: Watch = _NOBODY,
) -> NDArray[np.float32]:
    """The tokens (n_tokens, depth) times each row of the weights (n_rows, bytes of a row): (n_tokens, n_rows).

    Tokens that lie apart in memory do so in the graph too.
    """
    n_tokens, depth = tokens.shape
    step = max(depth, tokens.strides[0] // tokens.itemsize)
    apart = np.zeros((n_tokens, step), np.float32)
    apart[:, :depth] = tokens

    def build(graph: int) -> int:
        rows = _filled(graph, kind, (depth, len(weights)), weights)
        seen = _view(graph, _filled(graph, F32, (step, n_tokens), apart), depth, n_tokens, 4 * step, 0)
        return int(_mul_mat(graph, rows, seen))

    n_bytes = weights.nbytes + apart.nbytes + 4 * n_tokens * len(weights)
    return _computed(build, n_bytes, (n_tokens, len(weights)), n_threads, name, watch)


def attention(
    query: NDArray[np.float32],
    key: NDArray[np.uint8],
    value: NDArray[np.uint8],
    kind: int,
    mask: NDArray[np.float16] | None,
    scale: float,
    n_threads: int = 1,
    name: str = "",
    watch: Watch = _NOBODY,
) -> NDArray[np.float32]:
    """softmax(scale * query . key + mask) . value, as llama.cpp asks it of flash attention.

    The query is (n_queries, n_heads, width); keys and values are (n_keys, n_key_heads, bytes of a head of this type);
    the mask is (n_queries, n_keys). The result is (n_queries, n_heads, width).
    """
    n_queries, n_heads, width = query.shape
    n_keys, n_key_heads, _ = key.shape

    def build(graph: int) -> int:
        tensors = (
            _filled(graph, F32, (width, n_heads, n_queries), query),
            _filled(graph, kind, (width, n_key_heads, n_keys), key),
            _filled(graph, kind, (width, n_key_heads, n_keys), value),
        )
        # Heads lie beside each other in memory, and are the third dimension of the operation.
        by_head = [_permute(graph, tensor, 0, 2, 1, 3) for tensor in tensors]
        hidden = None if mask is None else _filled(graph, F16, (n_keys, n_queries), mask)
        return int(_attend(graph, *by_head, hidden, scale, 0.0, 0.0))

    n_bytes = 2 * query.nbytes + key.nbytes + value.nbytes + (0 if mask is None else mask.nbytes)
    return _computed(build, n_bytes, query.shape, n_threads, name, watch)


@contextmanager
def _graph(n_bytes: int) -> Iterator[int]:
    """Memory for the tensors of a graph, and for what computing it takes beside them."""
    # The operation takes its scratch memory from the same pool; ggml itself needs less than a few rows for each.
    graph = _init(_Parameters(n_bytes + _ROOM + _overhead(), None, False))
    if not graph:
        raise NativeError(f"ggml gives no {n_bytes} bytes")
    try:
        yield graph
    finally:
        _free(graph)


def _filled(graph: int, kind: int, shape: tuple[int, ...], data: NDArray[np.generic]) -> int:
    """A tensor of this type with this content. ggml names the innermost dimension first."""
    tensor = int(_tensor(graph, kind, *shape, *[1] * (4 - len(shape))))
    content = np.ascontiguousarray(data)
    if _n_bytes(tensor) != content.nbytes:
        raise NativeError(f"{content.nbytes} bytes do not fill a tensor of {_n_bytes(tensor)}")
    ctypes.memmove(_data(tensor), content.ctypes.data, content.nbytes)
    return tensor


def _computed(
    build: Callable[[int], int], n_bytes: int, shape: tuple[int, ...], n_threads: int, name: str, watch: Watch
) -> NDArray[np.float32]:
    with _graph(2 * n_bytes + (64 << 20)) as graph:
        result = build(graph)
        _set_name(result, name.encode())
        nodes = _new_graph(graph)
        _expand(nodes, result)
        with watch:
            status = _compute(graph, nodes, n_threads)
        if status != 0:
            raise NativeError(f"ggml_graph_compute_with_ctx answered {status}")
        numbers = np.empty(shape, np.float32)
        ctypes.memmove(numbers.ctypes.data, _data(result), numbers.nbytes)
        return numbers
