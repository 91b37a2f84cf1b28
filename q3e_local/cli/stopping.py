"""Ctrl-C, being ended and losing the terminal: all three stop a command in the same clean way, between records.

Knows signals, nothing of what is being stopped.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Being ended or losing the terminal is like Ctrl-C: half of a file does not stay behind."""
    # One that is ignored stays so: `nohup` means it.
    with _handled(signal.SIG_DFL, signal.default_int_handler):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold what stops the command back until the block is done; a second one comes through at once."""
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            raise KeyboardInterrupt
        held.append(number)

    with _handled(signal.default_int_handler, hold):
        yield
    if held:
        raise KeyboardInterrupt


@contextmanager
def _handled(before: signal._HANDLER, handler: signal._HANDLER) -> Iterator[None]:
    """Put `handler` in the place of `before`. Only the main thread may, and only it is interrupted."""
    numbers: list[int] = []
    if threading.current_thread() is threading.main_thread():
        numbers = [number for number in _NUMBERS if signal.getsignal(number) == before]
    for number in numbers:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before)
