"""When a cache does not work: one warning, a rest, and another try.

Knows time and the log alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

logger = logging.getLogger("q3e_local.cache")

Work = Literal["read", "write"]


class Outage:
    """Whether reading and writing rest, each for itself: a full disk can still be read."""

    def __init__(self, rest_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rest_s, self._now = rest_s, now
        self._until: dict[Work, float] = {}

    def rests(self, work: Work) -> bool:
        """Whether it is too early to try again."""
        return work in self._until and self._now() < self._until[work]

    def begin(self, reason: str, *works: Work) -> None:
        """Let these rest. Logged once, until they have worked again."""
        if not any(work in self._until for work in works):
            logger.warning("%s; going on without the cache", reason)
        self._until |= dict.fromkeys(works, self._now() + self._rest_s)

    def end(self, work: Work) -> None:
        """It worked."""
        if self._until.pop(work, None) is not None and not self._until:
            logger.info("the cache works again")
