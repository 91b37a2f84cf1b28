"""Ask several servers the same question at once, before any of them computes: `roll_call`.

Knows members and patience; nothing of what is asked.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from q3e_local.errors import Q3EError
from q3e_local.remote.connection import Cancellation, ServerRefusedError, ServerUnreachableError
from q3e_local.remote.member import FAILURES_MAX, PATIENCE_S, Member, is_busy

T = TypeVar("T")

LATE_S = 30.0  # after the first answer
_PAUSE_S = 0.5  # between two attempts
_ATTEMPTS_S = 10.0  # for all attempts: a machine that is switched off takes that long to fail once
_POLL_S = 0.2  # on Windows, Ctrl-C does not interrupt a wait without a timeout


def roll_call(
    members: Sequence[Member], ask: Callable[[Member, Cancellation], T]
) -> list[tuple[Member, T | Q3EError | None]]:
    """What each member answers, or the error of one that cannot, in the order of the members.

    One that fails is asked three times. All are waited for, but not for ever where one has answered: None stands for
    the answer of one that is late, which may still load its model.
    """
    cancellation = Cancellation()
    came: queue.SimpleQueue[tuple[Member, T | Q3EError | BaseException]] = queue.SimpleQueue()
    found: dict[Member, T | Q3EError] = {}

    def call(member: Member) -> None:
        try:
            came.put((member, _answer(lambda: ask(member, cancellation), cancellation)))
        except BaseException as error:  # a fault of ours must not leave the caller waiting
            came.put((member, error))

    until = float("inf")
    try:
        for member in members:
            threading.Thread(target=call, args=(member,), name="q3e-server", daemon=True).start()
        while len(found) < len(members) and time.monotonic() < until:
            try:
                member, answer = came.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(answer, BaseException) and not isinstance(answer, Q3EError):
                raise answer
            found[member] = answer
            if not isinstance(answer, Q3EError):
                until = min(until, time.monotonic() + LATE_S)
    finally:
        cancellation.cancel()
    return [(member, found.get(member)) for member in members]


def _answer(ask: Callable[[], T], cancellation: Cancellation) -> T | Q3EError:
    """The answer, or the error that is left after all attempts. A refusal that would be the same again is at once."""
    began, n_failures = time.monotonic(), 0
    while True:
        try:
            return ask()
        except (ServerUnreachableError, ServerRefusedError) as error:
            waited = time.monotonic() - began
            pause = _PAUSE_S
            if is_busy(error):
                is_over, pause = waited >= PATIENCE_S, error.retry_after_s
            elif isinstance(error, ServerRefusedError) and error.status < 500:
                is_over = True
            else:
                n_failures += 1
                is_over = n_failures >= FAILURES_MAX or waited >= _ATTEMPTS_S
            if is_over or cancellation.wait(pause):
                return error
        except Q3EError as error:
            return error
