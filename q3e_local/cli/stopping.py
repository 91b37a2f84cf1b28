"""Ctrl-C, being ended and losing the terminal: all three stop a command in the same clean way, between records.

Knows signals and threads, nothing of what is being stopped.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from q3e_local.cli import terminal

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_FINISHING = "finishing this batch; Ctrl-C again ends at once"

_MOMENT_S = 0.3
_POLL_S = 0.2
_NATIVE = "q3e-native"  # the name of threads with work that nothing can stop

T = TypeVar("T")

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Being ended or losing the terminal is like Ctrl-C: half of a file does not stay behind."""
    # Leave an ignored signal ignored, as under `nohup`.
    with _handled(_NUMBERS, lambda before: before == signal.SIG_DFL, signal.default_int_handler):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold what stops the command back until the block is done; a second signal comes through at once."""
    held: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            raise KeyboardInterrupt
        held.append((number, frame))

    with _handled(_NUMBERS, callable, hold):
        yield
    for number, frame in held:
        handler = signal.getsignal(number)
        if callable(handler):
            handler(number, frame)


class Batches:
    """Work that is stopped between two batches, so that what is computed is kept.

    Ctrl-C is held back while a batch is at work, once, and a line says so; while input is read it stops at once. So
    does a second one.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_reading = False

    def check(self) -> None:
        """Stop here if that was asked for. Raises KeyboardInterrupt."""
        if self.is_asked:
            raise KeyboardInterrupt

    def reading(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; while one is waited for, nothing is at work."""
        iterator = iter(items)
        while True:
            self._is_reading = True
            try:
                self.check()
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._is_reading = False
            yield item

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked or self._is_reading:
            raise KeyboardInterrupt
        self.is_asked = True
        terminal.answer(_FINISHING)


@contextmanager
def between_batches(has_to_keep: bool = True) -> Iterator[Batches]:
    """Stop this block between batches where it keeps what is computed, else at once.

    Only Ctrl-C waits for a batch: who ends a program by other means does not wait.
    """
    batches = Batches()
    with _handled([signal.SIGINT] if has_to_keep else [], callable, batches._handle):
        yield batches


def abandonable(work: Callable[[], T]) -> T:
    """What `work` returns, or raises. Ctrl-C does not wait for it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, name=_NATIVE, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)  # on Windows no wait without an end is interrupted
    return future.result()


def abandon(close: Callable[[], object]) -> None:
    """Close what may be at work, but wait for a moment only."""
    thread = threading.Thread(target=close, name=_NATIVE, daemon=True)
    thread.start()
    thread.join(_MOMENT_S)


def is_work_left() -> bool:
    """Whether there is work that was abandoned and goes on: Python would wait for its end before it exits."""
    return any(thread.name == _NATIVE for thread in threading.enumerate())


@contextmanager
def _handled(
    numbers: Sequence[int],
    is_to_replace: Callable[[object], bool],
    handler: _Handler,
) -> Iterator[None]:
    """Replace the handlers for which `is_to_replace`, until the block ends.

    Outside the main thread nothing is replaced, because Python lets only the main thread set handlers.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
    replaced = {number: old for number, old in before.items() if is_to_replace(old)}
    for number in replaced:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in replaced.items():
            signal.signal(number, old)
