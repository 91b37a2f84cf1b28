"""The one thread that all native work runs on, and whose turn it is there.

Knows threads and turns; nothing of models.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from q3e_local.errors import EngineError

T = TypeVar("T")

_POLL_S = 0.2  # the longest that Ctrl-C goes unnoticed
_LATELY_S = 60.0  # after a batch, within which another is likely to come


class Owner:
    """Runs work in the order of the calls, and batches in the middle of a long text too.

    A long text calls `let_in` between two of its steps. A batch that waits is computed there, if the long text has
    computed for as long as the batch before took: so neither holds up the other for long.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.stopping = False
        self.is_letting_in = False  # a batch is computed between two steps of a long text
        self._clock = clock
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="q3e-llama")
        self._batches: deque[Callable[[], None]] = deque()
        self._latest_s = 0.0  # how long the latest batch took
        self._ended: float | None = None  # when it was done
        self._resumed = 0.0  # when the long text went on after it

    @property
    def n_waiting(self) -> int:
        """Batches that wait."""
        return len(self._batches)

    @property
    def is_shared(self) -> bool:
        """Whether batches wait, or came lately."""
        return bool(self._batches) or (self._ended is not None and self._clock() - self._ended < _LATELY_S)

    def do(self, work: Callable[..., T], *arguments: object) -> T:
        """Run this when all earlier work is done. Raises what the work raises, or EngineError once closed."""
        return _result(self._submit(work, *arguments))

    def batch(self, work: Callable[..., T], *arguments: object) -> T:
        """As `do`, but also between two steps of a long text."""
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(work(*arguments))
            except BaseException as error:
                answer.set_exception(error)

        self._batches.append(run)
        try:
            self._submit(self._through, run)
        except EngineError:
            with suppress(ValueError):
                self._batches.remove(run)
                raise
        return _result(answer)

    def long(self, work: Callable[..., T], *arguments: object) -> T:
        """As `do`, for work that calls `let_in`."""

        def run() -> T:
            self._resumed = self._clock()
            return work(*arguments)

        return self.do(run)

    def let_in(self) -> None:
        """Between two steps of a long text, compute a batch that waits, if it is its turn. Raises as `go_on`."""
        self.go_on()
        if self._batches and self._clock() - self._resumed >= self._latest_s:
            self.is_letting_in = True
            try:
                self._next_batch()
            finally:
                self.is_letting_in = False
            self._resumed = self._clock()

    def go_on(self) -> None:
        """Raise EngineError where the work must stop."""
        if self.stopping:
            raise EngineError("the engine was closed while it worked")

    def close(self, last: Callable[[], None]) -> None:
        """Stop what runs, then run `last` on the thread. Closing twice is fine, and runs it once.

        Python ends the threads of all pools before it calls what `atexit` has: from there, `last` runs here.
        """
        self.stopping = True
        if self._is_closed:
            return
        try:
            ended = self._submit(last)
        except EngineError:  # the thread is gone, and with it all that could be at work
            last()
        else:
            with suppress(EngineError):
                _result(ended)
        self._is_closed = True
        self._thread.shutdown()

    def abandon(self) -> None:
        """Let the thread end, without waiting for it."""
        self._is_closed = True
        self._thread.shutdown(wait=False)

    def _submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        try:
            return self._thread.submit(work, *arguments)
        except RuntimeError:
            raise EngineError("the engine is closed") from None

    # On the thread from here on.

    def _through(self, batch: Callable[[], None]) -> None:
        """Compute the batches that wait, up to this batch, unless it was let in before.

        Ctrl-C may leave a batch in the queue whose caller is gone, so this batch need not be the first there.
        """
        while batch in self._batches:
            self._next_batch()

    def _next_batch(self) -> None:
        batch = self._batches.popleft()
        began = self._clock()
        batch()
        self._ended = self._clock()
        self._latest_s = self._ended - began


def _result(answer: Future[T]) -> T:
    """The result of the work, or its error. Ctrl-C interrupts the wait.

    Python interrupts no wait without an end on Windows, nor elsewhere a wait that begins just after the signal.
    """
    while True:
        try:
            return answer.result(_POLL_S)
        except TimeoutError:
            if answer.done():
                return answer.result()


class InTurn:
    """A lock that threads get in the order in which they ask for it.

    Python's lock may go again to the thread that releases it, while other threads wait.
    """

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._line: list[object] = []  # the thread whose turn it is, then those that wait

    @property
    def is_taken(self) -> bool:
        return bool(self._line)

    def __enter__(self) -> None:
        mine = object()
        with self._moved:
            try:
                self._line.append(mine)
                while self._line[0] is not mine:
                    self._moved.wait(_POLL_S)  # Ctrl-C does not interrupt a wait without an end on Windows
            except BaseException:  # Ctrl-C
                self._leave(mine)
                raise

    def __exit__(self, *error: object) -> None:
        with self._moved:
            self._leave(self._line[0])

    def _leave(self, mine: object) -> None:
        with suppress(ValueError):
            self._line.remove(mine)
        self._moved.notify_all()
