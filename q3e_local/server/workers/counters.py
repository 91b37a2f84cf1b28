"""What one model did so far, and how fast: for metrics, and for requests that have to come again later."""

from __future__ import annotations

import math
from dataclasses import dataclass

RETRY_MAX_S = 60
_NEWEST = 0.2  # weight of the newest batch in the rate


@dataclass
class Counters:
    """Counts since the server's start. A model that is loaded again goes on with the counters it had."""

    texts: int = 0
    tokens: int = 0
    batches: int = 0
    seconds: float = 0.0  # spent decoding
    failed: int = 0  # texts the model had no vector for; deaths of its process are counted by the worker
    shared: int = 0  # texts that had the vector of an identical one in flight
    refused: int = 0  # requests
    waiting: int = 0  # texts, now
    waiting_tokens: int = 0
    tokens_per_s: float | None = None

    def count_batch(self, n_tokens: int, seconds: float) -> None:
        """Count a batch that is done, and bring the rate up to date."""
        self.batches += 1
        self.seconds += seconds
        rate = n_tokens / max(seconds, 1e-6)
        known = rate if self.tokens_per_s is None else self.tokens_per_s
        self.tokens_per_s = (1 - _NEWEST) * known + _NEWEST * rate

    def retry_after_s(self) -> int:
        """When the texts that wait now will be done, in whole seconds."""
        if self.tokens_per_s is None:
            return 1
        return max(1, min(RETRY_MAX_S, math.ceil(self.waiting_tokens / self.tokens_per_s)))
