"""Matrix products, the bound of what any contender can reach. No contender: it answers operations a second by type.

Imports PyTorch where it starts; without it NumPy's float32 is all that is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from comparison.kind import Started

_FEW_ROWS = 8
# A product of few rows that takes this long has instructions that this CPU lacks: all rows would take minutes.
_HOPELESS_S = 0.5


def peak(n_threads: int) -> Started:
    """Products of one shape, in every type that this build has."""
    products: dict[str, Callable[[int], Any]] = {}  # of the first rows
    shape = (512, 4096, 4096)  # a pack of tokens against a weight matrix
    n_rows, n_inner, n_columns = shape
    try:
        import torch
    except ImportError:
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal(size, np.float32) for size in ((n_rows, n_inner), (n_inner, n_columns)))
        products["f32"] = lambda n: a[:n] @ b
        versions = {"numpy": np.__version__}
    else:
        torch.set_num_threads(n_threads)
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            x, w = torch.randn(n_rows, n_inner).to(dtype), torch.randn(n_columns, n_inner).to(dtype)
            products[name] = lambda n, x=x, w=w: torch.nn.functional.linear(x[:n], w)
        x8 = torch.randint(-127, 127, (n_rows, n_inner), dtype=torch.int8)
        w8 = torch.randint(-127, 127, (n_inner, n_columns), dtype=torch.int8)
        products["int8"] = lambda n: torch._int_mm(x8[:n], w8)
        products["int8 (packed weights)"] = packed_int8(torch, n_rows, n_inner, n_columns)
        versions = {"torch": torch.__version__}

    def measure(request: dict[str, Any]) -> tuple[Any, int]:
        seconds = fastest(products, n_rows, request.get("times", 15))
        return {name: 2 * n_rows * n_inner * n_columns / best for name, best in seconds.items()}, 0

    return measure, {**versions, "shape": shape}


def fastest(products: dict[str, Callable[[int], Any]], n_rows: int, n_times: int) -> dict[str, float]:
    """The best time of each product in seconds, without those that this build or this CPU cannot compute."""
    found = {}
    for name, product in products.items():
        try:
            product(_FEW_ROWS)  # the first run may prepare what later ones use
            if timed(product, _FEW_ROWS) < _HOPELESS_S:
                product(n_rows)
                found[name] = min(timed(product, n_rows) for _ in range(n_times))
        except Exception:  # a build without this product
            continue
    return found


def packed_int8(torch: Any, n_rows: int, n_inner: int, n_columns: int) -> Callable[[int], Any]:
    """oneDNN's u8 times s8 with the weights laid out beforehand, as a runtime would keep them."""
    torch.backends.quantized.engine = "onednn"
    linear = torch.ao.nn.quantized.Linear(n_inner, n_columns)
    weight = torch.quantize_per_tensor(torch.randn(n_columns, n_inner), 0.02, 0, torch.qint8)
    linear.set_weight_bias(weight, None)
    x = torch.quantize_per_tensor(torch.rand(n_rows, n_inner), 0.02, 0, torch.quint8)
    return lambda n: linear(x[:n])


def timed(product: Callable[[int], Any], n_rows: int) -> float:
    began = time.perf_counter()
    product(n_rows)
    return time.perf_counter() - began
