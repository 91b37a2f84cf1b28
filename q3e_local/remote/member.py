"""A server that computes beside others: `Member`, with what is to be known of it from one call to the next.

Keeps the record; leaves to `sharing` what is done with it.
"""

from __future__ import annotations

import time
from typing import TypeGuard

from q3e_local.errors import Q3EError
from q3e_local.remote.connection import Server, ServerRefusedError
from q3e_local.remote.embedder import RemoteEmbedder
from q3e_local.remote.window_size import WindowSize

FAILURES_MAX = 3  # in a row; then a server is left out
_PAUSES_S = (1.0, 4.0)  # after the first failure and the second: a server may be started again meanwhile
PATIENCE_S = 300.0  # with a server that is busy or starts again
_REST_S = 60.0  # from when it was left out until a call tries it again


class Member:
    """A server of several, and its record. Callers share a lock.

    It has two connections, because texts are counted while others are embedded: the counts must not wait for those.
    """

    def __init__(self, address: str, model: str) -> None:
        self.embedder, self.counter = (RemoteEmbedder(Server(address, patience_s=0), model) for _ in range(2))
        self.name = self.embedder.server_name
        self.embedding, self.counting = WindowSize(), WindowSize()
        self.n_texts = 0  # whose embeddings were the first to come
        self.n_failures = 0  # since the last answer
        self.failure = ""  # what happened, where the latest request failed
        self._busy_since: float | None = None
        self._left_out_at = float("-inf")

    def answered(self) -> None:
        """It did what was asked."""
        self.n_failures, self.failure, self._busy_since = 0, "", None

    def failed(self, error: Q3EError) -> float | None:
        """It failed: for how many seconds it is to be left alone; None where it is left out."""
        if is_busy(error):
            now = time.monotonic()
            self._busy_since = now if self._busy_since is None else self._busy_since
            if now - self._busy_since < PATIENCE_S:
                return error.retry_after_s
            self.leave_out(error, f" after {PATIENCE_S:.0f} s")
            return None
        self.n_failures += 1
        self.failure = str(error)
        if self.n_failures < FAILURES_MAX:
            return _PAUSES_S[self.n_failures - 1]
        self.leave_out(error, f" after {FAILURES_MAX} failures")
        return None

    def leave_out(self, error: Q3EError, after: str = "") -> None:
        """It is of no use for a while."""
        self.failure, self._left_out_at = f"{self.name} is left out{after}: {error}", time.monotonic()
        # Whoever tries it again then tries it once.
        self.n_failures, self._busy_since = FAILURES_MAX - 1, None

    @property
    def is_left_out(self) -> bool:
        """Whether it was left out lately."""
        return time.monotonic() - self._left_out_at < _REST_S

    def close(self) -> None:
        """Hang up."""
        self.embedder.close()
        self.counter.close()


def is_busy(error: Q3EError) -> TypeGuard[ServerRefusedError]:
    """Whether a server says that it may be asked again: that is no failure."""
    return isinstance(error, ServerRefusedError) and error.is_busy
