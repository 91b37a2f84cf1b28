"""The first batches of a model on a GPU, computed before anybody waits for them.

A driver compiles its programs when they are first needed, for batches and for a single text apart: seconds, and on
some drivers minutes. Knows a worker; nothing of when a server is ready.
"""

from __future__ import annotations

import logging
import time
from itertools import cycle, islice

from q3e_local.errors import Q3EError
from q3e_local.server.workers.worker import WorkerEngine

logger = logging.getLogger(__name__)

_TEXT = "A driver compiles its programs when they are first needed."
_TEXTS = 8  # that share the batch
_SINGLE = 16  # tokens of a short query


def warm_up(worker: WorkerEngine, name: str) -> None:
    """Compute a full batch and a single text where a GPU computes; on the CPU it would cost time for nothing.

    What fails here is a warning: a request would find the same, and the worker may do better in a new process.
    """
    if not worker.on_gpu:
        return
    logger.info("warming %s up: a GPU's driver may compile its programs now", name)
    began = time.monotonic()
    try:
        ids = worker.tokenize(_TEXT)
        for batch in _batches(ids, worker.eos_id, worker.n_batch, worker.n_seq_max):
            worker.decode(batch)
    except Q3EError as error:
        logger.warning("%s is not warmed up: %s", name, error)
    else:
        logger.info("warmed %s up in %.2f s", name, time.monotonic() - began)


def _batches(ids: list[int], eos_id: int, n_batch: int, n_seq_max: int) -> list[list[list[int]]]:
    """A batch as full as it can be, and one with a short text alone."""
    n_texts = max(1, min(_TEXTS, n_seq_max, n_batch // 2))

    def text(n_tokens: int) -> list[int]:
        return [*islice(cycle(ids), n_tokens - 1), eos_id]

    return [[text(n_batch // n_texts)] * n_texts, [text(min(_SINGLE, n_batch))]]
