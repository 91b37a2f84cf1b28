"""How much text one request takes to a server: `WindowSize`, which learns from the answers.

Arithmetic on bytes and seconds; knows nothing of requests.
"""

from __future__ import annotations

# What an answer should take at least, so that batches are full, and at most, so that answers keep coming.
_ANSWER_S = (1.0, 4.0)
SMALLEST_BYTES = 4_096
_LARGEST_BYTES = 1 << 20
TEXTS_MAX = 256


class WindowSize:
    """The bytes of text of a window, which is the texts of one request. It has `TEXTS_MAX` texts at most."""

    def __init__(self) -> None:
        self.n_bytes = 4 * SMALLEST_BYTES
        self._bytes_per_s = 0.0

    def answered(self, n_bytes: int, seconds: float) -> None:
        """Learn from the answer to a window of `n_bytes`, for which `seconds` were waited."""
        if seconds < _ANSWER_S[0] and n_bytes >= self.n_bytes // 2:  # a smaller one says little of large ones
            self.n_bytes = min(self.n_bytes * 2, _LARGEST_BYTES)
        elif seconds > _ANSWER_S[1]:
            self.n_bytes = max(min(self.n_bytes, n_bytes) // 2, SMALLEST_BYTES)
        # A short window spends its time on the way: it must not make a fast server look slow.
        self._bytes_per_s = max(n_bytes / max(seconds, 1e-3), 0.8 * self._bytes_per_s)

    def expected_s(self, n_bytes: int) -> float:
        """How long an answer to so many bytes takes, by the answers so far."""
        return n_bytes / self._bytes_per_s if self._bytes_per_s else _ANSWER_S[1]


def size_of(text: str) -> int:
    """The bytes of a text in a request; 0 for what is no text, which no request takes."""
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0
