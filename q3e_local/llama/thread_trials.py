"""Numbers of threads that are tried in real work, until one is clearly the fastest: `ThreadTrials`.

Knows which batches can be compared, and a clock; leaves to Race who wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from q3e_local.llama.pooling_context import PoolingContext
from q3e_local.llama.settings.defaults import Settings
from q3e_local.llama.settings.trials import Race

# A batch this full shows how fast it is computed, once so many of them have gone before: the first ones also make
# buffers and page the weights in.
_FULL, _N_WARM = 0.75, 2


class ThreadTrials:
    """A `race` in the course of other work."""

    def __init__(self, n_threads: int, others: Sequence[int], clock: Callable[[], float]) -> None:
        self.race = Race(n_threads, others)
        self._order = self.race.order()  # the number whose turn it is, then those that follow in this round
        self._speeds: dict[int, float] = {}
        self._clock = clock
        self._n_full = 0

    def computed(
        self, context: PoolingContext, settings: Settings, n_tokens: int, compute: Callable[[], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """What `compute` answers. While the race goes on, a full batch is computed by the number to be tried."""
        is_full = n_tokens >= _FULL * settings.n_batch
        self._n_full += is_full
        if self.race.is_over or not is_full or self._n_full <= _N_WARM:
            return compute()
        context.set_threads(self._order[0])
        try:
            began = self._clock()
            vectors = compute()
            self._speeds[self._order.pop(0)] = n_tokens / max(self._clock() - began, 1e-9)
        finally:
            context.set_threads(settings.n_threads)
        if not self._order:
            self.race.add(self._speeds)
            self._speeds, self._order = {}, self.race.order()
        return vectors
