"""How often a call is made to be timed. Imports the standard library alone: another runtime's Python has no more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_ENOUGH_S = 1.0
_ROUNDS = (2, 12)
T = TypeVar("T")


def timed(
    call: Callable[[T], object], make: Callable[[], T], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of each call, after one that is not counted: drivers compile programs then.

    Each call gets what `make` gives: an engine knows a text that it computed a moment ago. Two rounds at least, and
    as many more as a second has room for.
    """
    call(make())
    seconds: list[float] = []
    while len(seconds) < _ROUNDS[0] or (len(seconds) < _ROUNDS[1] and sum(seconds) < _ENOUGH_S):
        given = make()
        began = clock()
        call(given)
        seconds.append(clock() - began)
    return seconds
