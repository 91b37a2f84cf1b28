"""How llama.cpp shares the layers of a model out among several GPUs: by the memory that each has free.

As `load_tensors` in its llama-model.cpp does where no other shares are asked for. Arithmetic: knows no device.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


def shared_out(free_bytes: Sequence[int | None], n_layers: int) -> list[int]:
    """How many of `n_layers` consecutive layers each GPU gets, in their order.

    None: a GPU that hides its memory. llama.cpp takes the machine's in its place; here every GPU counts alike then.
    """
    known = [free for free in free_bytes if free is not None]
    is_told = len(known) == len(free_bytes) and any(known)
    weights = known if is_told else [1] * len(free_bytes)
    total = sum(weights)
    ends = [end / total for end in accumulate(weights)]
    counts = [0] * len(ends)
    for layer in range(n_layers):
        counts[min(bisect_right(ends, layer / n_layers), len(ends) - 1)] += 1
    return counts
