"""What one model did so far, for metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """What was done so far, for metrics. Outlives the queue when handed to the next one."""

    texts: int = 0
    tokens: int = 0
    batches: int = 0
    seconds: float = 0.0  # spent decoding
    failed: int = 0  # texts the model had no vector for; deaths of its process are counted by the worker
    shared: int = 0  # texts that had the vector of an identical one in flight
    refused: int = 0  # requests
    waiting: int = 0  # texts, now
