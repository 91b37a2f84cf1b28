"""Loads that failed a moment ago, and are not tried again at once: `FailedLoads`. Knows files and a clock."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from q3e_local.errors import Q3EError

# A load that failed is not tried again for this long, unless the file has changed.
RETRY_S = 5.0


class FailedLoads:
    """Loads that failed, so that not every request starts a process only to see it fail again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Path, tuple[Q3EError, object, float]] = {}

    def remember(self, path: Path, error: Q3EError) -> None:
        self._known[path] = (error, _stamp(path), self._clock() + RETRY_S)

    def check(self, path: Path) -> None:
        """Raise the error with which this file failed a moment ago, and when it is tried again."""
        error, stamp, until = self._known.get(path, (None, None, 0.0))
        left_s = until - self._clock()
        if error is not None and stamp == _stamp(path) and left_s > 0:
            known = copy.copy(error)
            known.args = (f"{error}; this was {RETRY_S - left_s:.0f} s ago, and is tried again in {left_s:.0f} s",)
            raise known
        self._known.pop(path, None)


def _stamp(path: Path) -> object:
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino
    return None
