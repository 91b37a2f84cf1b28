"""Whether there is memory for one model more, of the machine and of its GPUs. Arithmetic: asks nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from q3e_local.llama.settings.placement import Device

T = TypeVar("T")

Take = tuple[Device, int]
"""A GPU, and bytes of its memory."""


@dataclass(frozen=True)
class Needed:
    """What a model takes. `is_short`: memory of GPUs is free for `n_on_gpu` of its layers only."""

    ram_bytes: int
    n_on_gpu: int = 0
    is_short: bool = False


class Forecast(Protocol):
    """What a model would take, by what GPUs had free when they were asked for it."""

    @property
    def leaves_gpus(self) -> bool:
        """Whether the GPUs must be left alone, as they did not answer."""

    def needed(self, given_back: Iterable[Take]) -> Needed:
        """Once these were given back. Raises OptionError for options that cannot be had."""


def in_the_way(
    forecast: Forecast, given_back: Sequence[Take], unused: Sequence[T], takes: Callable[[T], Iterable[Take]]
) -> list[T]:
    """Which of these models must go so that as many layers as can be come to GPUs: the fewest, rather the first.

    None where it would not help.
    """

    def n_without(some: Sequence[T]) -> int:
        return forecast.needed([*given_back, *(take for each in some for take in takes(each))]).n_on_gpu

    n_most = n_without(unused)
    if n_most <= n_without(()):
        return []
    leaving = list(unused)
    for each in reversed(unused):
        rest = [other for other in leaving if other is not each]
        if n_without(rest) == n_most:
            leaving = rest
    return leaving


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
