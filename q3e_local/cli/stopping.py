"""Ctrl-C, SIGTERM and the loss of the terminal: all three stop a command in the same clean way, between records.

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
_NATIVE = "q3e-native"  # name of the threads whose work nothing can stop

T = TypeVar("T")

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that no half of a file stays behind."""
    # Leave an ignored signal ignored, as under `nohup`.
    with _handled(_NUMBERS, lambda before: before == signal.SIG_DFL, signal.default_int_handler):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold a signal back until the block is done; a second one comes through at once."""
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
    """Work that stops between two batches, so that what is computed is kept.

    The first Ctrl-C waits for the batch that is being computed, and a line says so. While input is read, Ctrl-C stops
    at once, and so does a second one.
    """

    def __init__(self) -> None:
        self._is_pressed = False
        self._is_reading = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self._is_pressed:
            raise KeyboardInterrupt

    def reading(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items. While it waits for the next one, no batch is at work."""
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
        if self._is_pressed or self._is_reading:
            raise KeyboardInterrupt
        self._is_pressed = True
        terminal.answer(_FINISHING)


@contextmanager
def between_batches(has_to_keep: bool = True) -> Iterator[Batches]:
    """Let Ctrl-C stop this block between batches where it `has_to_keep` what is computed, else at once.

    Other signals do not wait for a batch: whoever sends them does not wait either.
    """
    batches = Batches()
    with _handled([signal.SIGINT] if has_to_keep else [], callable, batches._handle):
        yield batches


def abandonable(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises. Ctrl-C does not wait for it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, name=_NATIVE, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)  # on Windows, Ctrl-C does not interrupt a wait without a timeout
    return future.result()


def abandon(close: Callable[[], object]) -> None:
    """Close what may still compute, but wait only a moment for that."""
    thread = threading.Thread(target=close, name=_NATIVE, daemon=True)
    thread.start()
    thread.join(_MOMENT_S)


def is_work_left() -> bool:
    """Whether abandoned work still goes on: Python would wait for it before it exits."""
    return any(thread.name == _NATIVE for thread in threading.enumerate())


@contextmanager
def _handled(numbers: Sequence[int], is_to_replace: Callable[[object], bool], handler: _Handler) -> Iterator[None]:
    """Replace the handlers for which `is_to_replace`, until the block ends.

    Outside the main thread nothing is replaced, because Python lets only the main thread set handlers.
    """
    numbers = numbers if threading.current_thread() is threading.main_thread() else ()
    replaced = {number: old for number in numbers if is_to_replace(old := signal.getsignal(number))}
    for number in replaced:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in replaced.items():
            signal.signal(number, old)
