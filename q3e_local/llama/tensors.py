"""The tensors of a graph that llama.cpp computes: their names, what is in them, and leaving one out.

Knows pointers to ggml's tensors, which are valid while the graph is; nothing of models.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from q3e_local.llama import binding

name_of: Callable[[int], bytes] = binding.function("ggml_get_name", ctypes.c_char_p, ctypes.c_void_p)
_n_bytes = binding.function("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)
_get = binding.function(
    "ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)
_op_desc = binding.function("ggml_op_desc", ctypes.c_char_p, ctypes.c_void_p)
_op_name = binding.function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)

# struct ggml_tensor of ggml.h: type, buffer, four sizes and four strides stand before the operation.
_OP_OFFSET = 80
_NONE = 0  # GGML_OP_NONE
_N_OPS = 101  # GGML_OP_COUNT, above which ggml_op_name reads behind its table


def rows_of(tensor: int, n_columns: int) -> NDArray[np.float32]:
    """A copy of a float32 tensor as rows (n, n_columns), wherever it lives; possibly no rows."""
    rows = np.empty((_n_bytes(tensor) // (4 * n_columns), n_columns), np.float32)
    if rows.size:
        _get(tensor, rows.ctypes.data, 0, rows.nbytes)
    return rows


def leave_out(tensor: int) -> bool:
    """Have a matrix product of the graph, which is about to be computed, not computed. Returns whether that worked.

    ggml has no call for it. This writes into its structure: the operation becomes GGML_OP_NONE, which every backend
    passes over. Where the operation stands is checked on the tensor itself, by the words that ggml has for it; a
    tensor of another layout stays as it is. llama.cpp uses a graph again for a batch of the same shape, without the
    product then.
    """
    if _op_desc(tensor) == b"NONE":
        return True
    operation = ctypes.c_int32.from_address(tensor + _OP_OFFSET)
    before = operation.value
    if _op_desc(tensor) != b"MUL_MAT" or not 0 < before < _N_OPS or _op_name(before) != b"MUL_MAT":
        return False
    operation.value = _NONE
    if _op_desc(tensor) != b"NONE":
        operation.value = before
        return False
    return True
