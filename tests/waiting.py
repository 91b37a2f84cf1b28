"""Wait in a test for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(true: Callable[[], object], why: Callable[[], str] = lambda: "it did not happen") -> None:
    """Wait for something that must happen, however busy the machine is; else fail, and say `why`."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, why()
        time.sleep(0.002)
