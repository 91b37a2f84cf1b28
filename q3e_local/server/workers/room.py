"""Whether there is memory for one model more, of the machine and of its GPUs. Arithmetic: asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Needed:
    """What a model takes. `is_short`: memory of a GPU is free for a part of its layers only."""

    ram_bytes: int
    is_short: bool = False


def lack(needed: Needed, others: Sequence[int], n_max: int, available_bytes: int) -> str | None:
    """Why there is no room beside `others`, which take so many bytes each; None where there is.

    `n_max` is how many models may be in memory. A model without others may always try: its engine raises the error
    where memory is too small.
    """
    if not others:
        return None
    if len(others) >= n_max:
        return f"{len(others)} models are in memory, and --max-loaded is {n_max}"
    # Mapped weights count as available to the system, although their owners need them.
    free = available_bytes - sum(others)
    if needed.ram_bytes > free:
        return f"{needed.ram_bytes / 1e9:.2f} GB are needed, {max(0, free) / 1e9:.2f} GB are free"
    return None
