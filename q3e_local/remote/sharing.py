"""Texts shared out among several servers: `Sharing`, the queue of one call, whose results come in the texts' order.

Texts wait in one stock. A server that is free takes as many as its speed suggests, so that a faster one does more;
what a server fails on, another takes. A server that has nothing to take, because all texts are out or those that are
done wait for an earlier one, takes over what another is long at; the first answer counts.

Knows texts, threads and members; leaves requests to the function that a member's texts go through.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from q3e_local.errors import Q3EError, SpaceMismatchError
from q3e_local.remote.connection import Cancellation, ServerUnreachableError
from q3e_local.remote.member import FAILURES_MAX, Member, is_busy
from q3e_local.remote.window_size import SMALLEST_BYTES, WindowSize, size_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Of texts that are read and not handed back yet there are at most so many windows of each server: enough that a
# server always finds some, few enough that memory does not grow with the number of texts.
_WINDOWS_AHEAD = 4
# A batch that is out is taken over after so many times what the free server needs for it, and a second.
_OVERDUE = 2.0
_SILENT_S = 60.0  # without an answer, while another server has done the same texts; then a line says so
_POLL_S = 0.2  # on Windows, Ctrl-C does not interrupt a wait without a timeout
_MOMENT_S = 1.0  # for threads to end; one that opens a connection may take longer, and nobody waits for it


@dataclass(eq=False)
class _Batch:
    """Texts that one request carries, from their place in the call on."""

    first: int
    texts: list[str]
    n_bytes: int
    began: dict[Member, float] = field(default_factory=dict)  # when members took it that are at work on it
    n_failures: int = 0


class Sharing(Generic[T]):
    """The texts of one call on their way through several members.

    `ask(member, texts, first, cancellation)` answers one result for each of these texts, the first of which has that
    place in the call. `size` is the member's window for this work, `texts_max` the most texts of a request. `lock`
    guards the records of the members.
    """

    def __init__(
        self,
        members: Sequence[Member],
        ask: Callable[[Member, list[str], int, Cancellation], list[T]],
        size: Callable[[Member], WindowSize],
        texts_max: int,
        lock: threading.RLock,
    ) -> None:
        self._members, self._ask, self._size, self._texts_max = list(members), ask, size, texts_max
        self._changed = threading.Condition(lock)
        self._cancellation = Cancellation()
        self._stock: deque[tuple[str, int]] = deque()  # texts and their bytes
        self._n_stock_bytes = self._n_cut = 0
        self._batches: dict[int, _Batch] = {}  # without an answer, by their first place
        self._done: dict[int, tuple[list[T], int]] = {}  # results not handed back, and the bytes of their texts
        self._n_back = self._n_ahead = self._n_ahead_bytes = 0
        self._is_read = False
        self._failure: BaseException | None = None
        self._at_work: dict[Member, _Batch] = {}
        self._silent: set[Member] = set()  # of which a line says so
        self._failing: set[Member] = set()  # whose latest request failed
        self._notices: deque[str] = deque()
        self.n_done: Counter[Member] = Counter()  # texts whose results came first from this member

    def run(self, texts: Iterable[str]) -> Iterator[list[T]]:
        """The results of the texts in their order, some at a time. Reads texts on the thread of the caller.

        Raises what reading raises, once the results of all texts before are handed back; and where no member is left,
        the error of the last.
        """
        threads = [
            threading.Thread(target=self._work, args=(member,), name="q3e-server", daemon=True)
            for member in self._members
        ]
        source, unreadable = iter(texts), None
        try:
            for thread in threads:
                thread.start()
            while True:
                self._tell()
                if (results := self._next_results()) is not None:
                    self._look_for_silent()
                    yield results
                elif self._failure is not None:
                    raise self._failure
                elif self._is_all_back():
                    break
                elif self._cancellation.is_cancelled:
                    raise ServerUnreachableError("the connection to the servers was closed before all was done")
                elif self._may_read():
                    try:
                        self._put(next(source))
                    except StopIteration:
                        self._end()
                    except Exception as error:  # raised when its turn comes
                        unreadable = error
                        self._end()
                else:
                    self._look_for_silent()
                    self._wait()
            if unreadable is not None:
                raise unreadable
        finally:
            self.stop()
            until = time.monotonic() + _MOMENT_S
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
        self._tell_failing()
        self._tell()

    def stop(self) -> None:
        """End the work, and hang up where an answer is waited for."""
        self._cancellation.cancel()
        with self._changed:
            self._changed.notify_all()

    # The thread of the caller.

    def _next_results(self) -> list[T] | None:
        with self._changed:
            if self._n_back not in self._done:
                return None
            results, n_bytes = self._done.pop(self._n_back)
            self._n_back += len(results)
            self._n_ahead -= len(results)
            self._n_ahead_bytes -= n_bytes
            self._changed.notify_all()
            return results

    def _is_all_back(self) -> bool:
        return self._is_read and not self._n_ahead

    def _may_read(self) -> bool:
        with self._changed:
            return not self._is_read and not self._is_full

    def _put(self, text: str) -> None:
        n_bytes = size_of(text)
        with self._changed:
            self._stock.append((text, n_bytes))
            self._n_stock_bytes += n_bytes
            self._n_ahead += 1
            self._n_ahead_bytes += n_bytes
            if self._is_full or len(self._stock) >= self._texts_max or self._n_stock_bytes >= SMALLEST_BYTES:
                self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._is_read = True
            self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            if self._n_back not in self._done and self._failure is None:
                self._changed.wait(_POLL_S)

    def _tell(self) -> None:
        while self._notices:
            logger.warning("%s", self._notices.popleft())

    def _tell_failing(self) -> None:
        """Say which servers failed last, and might have been left out if there were more to do."""
        for member in self._members:
            if member in self._failing:
                self._notices.append(f"{member.name} failed, and others did its texts: {member.failure}")

    def _look_for_silent(self) -> None:
        now = time.monotonic()
        with self._changed:
            for member, batch in self._at_work.items():
                seconds = now - batch.began[member]
                if batch.first not in self._batches and seconds > _SILENT_S and member not in self._silent:
                    self._silent.add(member)
                    said = f"{member.name} has not answered for {seconds:.0f} s: the others do its texts"
                    self._notices.append(said)

    @property
    def _is_full(self) -> bool:
        n_texts = _WINDOWS_AHEAD * self._texts_max * len(self._members)
        n_bytes = _WINDOWS_AHEAD * sum(self._size(member).n_bytes for member in self._members)
        return self._n_ahead >= n_texts or self._n_ahead_bytes >= n_bytes

    # The threads of the members.

    def _work(self, member: Member) -> None:
        try:
            while (batch := self._taken(member)) is not None:
                try:
                    results = self._ask(member, batch.texts, batch.first, self._cancellation)
                except Q3EError as error:
                    pause = self._failed(member, batch, error)
                    if pause is None or self._cancellation.wait(pause):
                        return
                else:
                    self._answered(member, batch, results)
        except BaseException as error:  # a fault of ours must not leave the caller waiting
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _taken(self, member: Member) -> _Batch | None:
        """What the member does next. Waits for it; None once there is nothing left to do."""
        with self._changed:
            while not self._cancellation.is_cancelled:
                batch = self._waiting() or self._cut(member) or self._overdue(member)
                if batch is not None:
                    batch.began[member] = time.monotonic()
                    self._at_work[member] = batch
                    return batch
                self._changed.wait(_POLL_S)
            return None

    def _waiting(self) -> _Batch | None:
        """A batch on which a member failed."""
        return next((batch for batch in self._batches.values() if not batch.began), None)

    def _cut(self, member: Member) -> _Batch | None:
        """A batch from the stock: as much as the member's window takes."""
        enough = self._size(member).n_bytes
        if self._is_read:  # nothing comes after the stock: all get a part of it
            enough = max(SMALLEST_BYTES, min(enough, self._n_stock_bytes // len(self._members)))
        is_enough = self._n_stock_bytes >= enough or len(self._stock) >= self._texts_max
        if not self._stock or not (is_enough or self._is_read or self._is_full):
            return None
        batch = _Batch(self._n_cut, [], 0)
        while self._stock and batch.n_bytes < enough and len(batch.texts) < self._texts_max:
            text, n_bytes = self._stock.popleft()
            batch.texts.append(text)
            batch.n_bytes += n_bytes
        self._n_stock_bytes -= batch.n_bytes
        self._n_cut += len(batch.texts)
        self._batches[batch.first] = batch
        return batch

    def _overdue(self, member: Member) -> _Batch | None:
        """A batch that another member is long at."""
        now, size = time.monotonic(), self._size(member)
        for batch in self._batches.values():
            latest, wait_s = max(batch.began.values()), _OVERDUE * size.expected_s(batch.n_bytes) + 1
            if member not in batch.began and now - latest > wait_s:
                return batch
        return None

    def _answered(self, member: Member, batch: _Batch, results: list[T]) -> None:
        with self._changed:
            seconds = self._let_go(member, batch)
            member.answered()
            self._failing.discard(member)
            self._size(member).answered(batch.n_bytes, seconds)
            if self._batches.pop(batch.first, None) is not None:
                self._done[batch.first] = results, batch.n_bytes
                self.n_done[member] += len(results)
            self._changed.notify_all()

    def _failed(self, member: Member, batch: _Batch, error: Q3EError) -> float | None:
        """How long the member has to wait before it takes something again; None where it is left out."""
        with self._changed:
            self._let_go(member, batch)
            if self._cancellation.is_cancelled:  # nobody waits for an answer any more
                return None
            if not is_busy(error):
                self._failing.add(member)
                batch.n_failures += 1
            # A batch that every server fails on would go round for ever among servers that do all others well.
            is_hopeless = batch.first in self._batches and batch.n_failures >= FAILURES_MAX * len(self._members)
            pause = member.failed(error)
            if pause is None:
                self._members.remove(member)
                if self._members:
                    self._notices.append(member.failure)
            if isinstance(error, SpaceMismatchError) or is_hopeless or not self._members:
                self._failure = error
            self._changed.notify_all()
            return pause

    def _let_go(self, member: Member, batch: _Batch) -> float:
        """The member is no longer at work on the batch: for how many seconds it was."""
        del self._at_work[member]
        self._silent.discard(member)
        return time.monotonic() - batch.began.pop(member)
