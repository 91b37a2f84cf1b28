"""When a process that has work to do counts as hung: it shows no progress within a bound that follows the work.

Knows seconds, and what a process has used of CPU and disks; nothing of pipes and engines, nor how a process is ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# A batch of fewer tokens takes as long as one of this many, because all weights are read for it too.
_LEAST_TOKENS = 128
# The speed, in tokens a second, that is assumed of a model until its first batch is done.
_UNKNOWN_PACE = 50.0
# Weight of the newest batch where it was faster than those before.
_NEWEST = 0.2
# CPU time since it was last active with which a process still counts as idle: its threads wake up now and then.
_SOME_CPU_S = 0.05

Activity = tuple[float, int]
"""Seconds of CPU time that a process has used so far, and the bytes that it has read and written."""


@dataclass(frozen=True)
class Bounds:
    """How long work may go on without progress: `least_s`, and `factor` times what it is expected to take.

    That is for a process that does nothing. A process that computes, or reads or writes a disk, has `busy_factor`
    times as long, because the machine may be busy; but not for ever, because a driver may wait in a loop for a device
    that never answers.
    """

    least_s: float = 30.0
    factor: float = 10.0
    busy_factor: float = 10.0
    look_s: float = 1.0  # between two looks at the process


@dataclass(frozen=True)
class Task:
    """What a process is asked to do."""

    what: str
    expected_s: float
    took: Callable[[float], None] = lambda seconds: None  # called when it is done


class Pace:
    """How long batches take, by their tokens, as measured. The pace gets slower at once, and faster slowly."""

    def __init__(self) -> None:
        self._token_s = 0.0

    def expected_s(self, n_tokens: int) -> float:
        """Seconds for so many tokens."""
        return max(n_tokens, _LEAST_TOKENS) * (self._token_s or 1 / _UNKNOWN_PACE)

    def measure(self, n_tokens: int, seconds: float) -> None:
        """Take note of a batch that is done."""
        token_s = seconds / max(n_tokens, _LEAST_TOKENS)
        known = self._token_s or token_s
        self._token_s = max(token_s, (1 - _NEWEST) * known + _NEWEST * token_s)


class TaskInProgress:
    """A task that is under way."""

    def __init__(self, task: Task, clock: Callable[[], float]) -> None:
        self.task, self.expected_s = task, task.expected_s
        self.quiet_s = self.busy_s = 0.0  # since the last progress; quiet: since the process did anything
        self._clock, self._began = clock, clock()

    def part_done(self) -> None:
        """A part of it is done, and the next one may take twice as long."""
        now = self._clock()
        self.expected_s = max(self.task.expected_s, 2 * (now - self._began))
        self.quiet_s = self.busy_s = 0.0
        self._began = now


class Liveness:
    """Looks at a process while it has something to do. Safe to use from several threads.

    Time is counted look by look, and a look counts for two at most, however long ago the one before was: while the
    machine sleeps, or all of the program is stopped by Ctrl-Z, nobody looks.
    """

    def __init__(
        self, bounds: Bounds, activity: Callable[[], Activity | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bounds, self._activity, self._clock = bounds, activity, clock
        self._under_way: list[TaskInProgress] = []
        self._seen: Activity | None = None
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def doing(self, task: Task) -> Iterator[TaskInProgress]:
        """While the block runs, the process is asked to do this."""
        progress = TaskInProgress(task, self._clock)
        with self._changed:
            self._under_way.append(progress)
            self._changed.notify()
        try:
            yield progress
        finally:
            with self._changed:
                self._under_way.remove(progress)

    def watch(self) -> str | None:
        """Wait until the process hangs, and return how; None once this is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._under_way)
                before = self._clock()
                self._changed.wait_for(lambda: self._closed, self._bounds.look_s)
                if self._closed:
                    return None
            hung = self.look(min(self._clock() - before, 2 * self._bounds.look_s))
            if hung is not None:
                return hung

    def look(self, seconds: float) -> str | None:
        """How the process hangs, after so many seconds more; None if it does not."""
        is_active = self._is_active()
        with self._changed:
            for progress in self._under_way:
                progress.busy_s += seconds
                progress.quiet_s = 0.0 if is_active else progress.quiet_s + seconds
                bound_s = self._bounds.least_s + self._bounds.factor * progress.expected_s
                busy_bound_s = self._bounds.busy_factor * bound_s
                if progress.quiet_s > bound_s:
                    return f"neither computed nor read for {bound_s:.3g} s, the limit for {progress.task.what}"
                if progress.busy_s > busy_bound_s:
                    return f"worked for {busy_bound_s:.3g} s, the limit for {progress.task.what}, and did not finish"
        return None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_active(self) -> bool:
        """Whether the process did anything since it was last active; true also where the system does not say."""
        now, before = self._activity(), self._seen
        if now is None or before is None or now[0] - before[0] >= _SOME_CPU_S or now[1] != before[1]:
            self._seen = now
            return True
        return False
