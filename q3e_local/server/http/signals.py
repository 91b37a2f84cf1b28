"""Ctrl-C and SIGTERM while a server runs: the first asks it to stop, a second insists, a third ends it right here.

Knows signals and exit codes; nothing of what is stopped.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


class Signals:
    """Takes the signals while its block runs; `on_signal` is called at each."""

    def __init__(self) -> None:
        self.on_signal: Callable[[], None] = lambda: None
        self._received: list[int] = []

    @property
    def asked(self) -> bool:
        """Whether the server is to stop."""
        return bool(self._received)

    @property
    def insisted(self) -> bool:
        """Whether the server is to stop at once."""
        return len(self._received) > 1

    @property
    def exit_code(self) -> int:
        """0 for an end in order; else what a shell says of a program that this signal ended: 130, 143."""
        return 128 + self._received[1] if self.insisted else 0

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._receive) for number in _NUMBERS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if len(self._received) > 2:
            os._exit(self.exit_code)  # a worker ends by itself when nobody is at the other end of its pipe
        self.on_signal()
