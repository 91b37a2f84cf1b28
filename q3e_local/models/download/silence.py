"""Notice that nothing comes from a server, while a thread waits for it.

Knows time and a second thread; nothing of servers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# A person who sees nothing happen wonders after so many seconds, and need not read it often.
FIRST_S, AGAIN_S = 3.0, 15.0


class Silence:
    """Inside the `with` block, call `report` with the seconds since the latest `heard`, when they are many.

    `report` is called in another thread, since the waiting thread is blocked in the system.
    """

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._last = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="q3e-silence", daemon=True)

    def heard(self) -> None:
        """Note that something came."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        reported_s = 0.0
        while True:
            silent_s = time.monotonic() - self._last
            if silent_s < reported_s:  # something came since
                reported_s = 0.0
            due_s = reported_s + AGAIN_S if reported_s else FIRST_S
            if silent_s >= due_s:
                reported_s = silent_s
                self._report(silent_s)
            elif self._is_over.wait(min(due_s - silent_s, FIRST_S)):
                return

    def __enter__(self) -> Silence:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()
