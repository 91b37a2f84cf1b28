"""The proof of a variant of our kernels: small operations, once by llama.cpp's own kernels and once by the variant.

Knows what a kernel may be asked for, and how near rounding leaves two results; nothing of where the library is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from q3e_local.llama.kernels import operation
from q3e_local.llama.kernels.compiled import Library
from q3e_local.llama.native_log import NativeError

# Types of weights, and of keys and values: a kernel has code for each. Two threads compute only the first of each, as
# threads that wait for each other are slow on a busy machine.
WEIGHTS = {"Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "Q8_0": 8, "F16": 1, "BF16": 30, "F32": 0}
KV = {"F16": 1, "BF16": 30, "Q8_0": 8, "F32": 0}
WIDTHS = (128, 64)  # of a head: of Qwen3-Embedding, and of the demo model

# Of the norm of an output row. Where llama.cpp rounds to 8 bits and a variant does not, products differ by up to 5e-3
# and attention by up to 1.3e-2. A wrong number in a row of 72 makes a difference of more than 0.1.
TOLERANCE = 4e-2


class DisagreementError(Exception):
    """A variant's result is not llama.cpp's; the text says of what and by how much."""


@dataclass(frozen=True)
class _Operation:
    name: str
    compute: Callable[[int, str], NDArray[np.float32]]  # by this many threads, under this name
    n_threads: int


def n_held(library: Library, variant: str) -> int:
    """How many operations of the proof this variant took. Raises DisagreementError where it computed one wrong.

    No variant of the library may be in use yet.
    """
    try:
        library.attempt(variant)
        return sum(_is_taken(library, each) for each in (*_products(), *_attentions()))
    except NativeError as error:
        raise DisagreementError(str(error)) from None
    finally:
        library.attempt(None)


def _is_taken(library: Library, each: _Operation) -> bool:
    """Whether the variant takes this operation, or else leaves it to llama.cpp."""
    before = library.counts()
    ours = each.compute(each.n_threads, operation.ON_TRIAL)
    if library.counts() == before:
        return False
    expected = each.compute(1, "")
    errors = np.linalg.norm(ours - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    error = float(errors.max())  # of the row that is farthest off, relative to its norm
    if not error <= TOLERANCE:  # NaN too
        raise DisagreementError(
            f"{each.name} differs from llama.cpp's by {error:.2g} of its norm, where rounding leaves {TOLERANCE}"
        )
    return True


# The numbers of tokens, rows, queries and keys fill no register and no block.


def _products() -> list[_Operation]:
    random = np.random.default_rng(0)
    weights = random.standard_normal((72, 512)).astype(np.float32)
    tokens = random.standard_normal((35, 512)).astype(np.float32)
    return [
        _Operation(
            f"the product with {name} weights",
            partial(operation.product, operation.quantized(weights, kind), kind, tokens),
            1 if n else 2,
        )
        for n, (name, kind) in enumerate(WEIGHTS.items())
    ]


def _attentions() -> list[_Operation]:
    random = np.random.default_rng(0)
    n_queries, n_keys, n_heads, n_key_heads = 70, 96, 4, 2
    mask = np.where(np.tri(n_queries, n_keys, n_keys - n_queries, dtype=bool), 0, -np.inf).astype(np.float16)
    operations: list[_Operation] = []
    for width in WIDTHS:
        query = random.standard_normal((n_queries, n_heads, width)).astype(np.float32)
        stored = random.standard_normal((2, n_keys * n_key_heads, width)).astype(np.float32)
        for name, kind in KV.items():
            key, value = (operation.quantized(rows, kind).reshape(n_keys, n_key_heads, -1) for rows in stored)
            compute = partial(operation.attention, query, key, value, kind, mask, width**-0.5)
            called = f"attention with heads of {width} and {name} keys"
            operations.append(_Operation(called, compute, 1 if operations else 2))
    return operations
