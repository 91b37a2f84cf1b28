"""What is wrong with a cache: said once, then a rest, then another try.

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
    """Whether reading and writing rest. Each rests for itself, because a full disk can still be read."""

    def __init__(self, rest_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rest_s, self._now = rest_s, now
        self._until: dict[Work, float] = {}
        self._has_said_damaged = False

    def rests(self, work: Work) -> bool:
        """Whether it is too early for another try."""
        return work in self._until and self._now() < self._until[work]

    def begin(self, reason: str, *works: Work) -> None:
        """Begin a rest, or another one. The reason is logged unless a rest has begun since it last worked."""
        if not any(work in self._until for work in works):
            logger.warning("%s; going on without the cache", reason)
        self._until |= dict.fromkeys(works, self._now() + self._rest_s)

    def end(self, work: Work) -> None:
        """Reading or writing works again."""
        if self._until.pop(work, None) is not None and not self._until:
            logger.info("the cache works again")

    def say_damaged(self, where: str) -> None:
        """Log, the first time, that a vector is damaged. No reason for a rest: the others are sound."""
        if not self._has_said_damaged:
            self._has_said_damaged = True
            logger.warning("%s has a damaged vector, which is computed anew", where)
