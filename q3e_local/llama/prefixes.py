"""The keys and values of beginnings that come again, such as an instruction's: `KeptPrefixes`.

Knows ids and blocks of bytes; nothing of contexts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from q3e_local.embedding.batching import N_PREFIX_MIN, common
from q3e_local.llama.settings.memory import KEPT_BYTES_MAX

State = NDArray[np.uint8]

_N_MAX = 16


class KeptPrefixes:
    """The states of a few prefixes, the least recently used dropped first."""

    def __init__(self, n_max: int = _N_MAX, n_bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._n_max, self._n_bytes_max = n_max, n_bytes_max // 2
        self._states: dict[tuple[int, ...], State] = {}  # the most recently used last
        # A large state, as of documents that begin alike, lies apart, so that it does not push instructions out.
        self._large: tuple[tuple[int, ...], State] | None = None

    def find(self, ids: Sequence[int], n_cells: int) -> tuple[int, State | None]:
        """How many of `ids` the best kept state has, and the state, of those that fit into `n_cells`."""
        states = self._states if self._large is None else self._states | dict([self._large])
        fitting = [kept for kept in states if len(kept) <= n_cells]
        # With one id more, as `common` leaves the last id out.
        best = max(fitting, key=lambda kept: common((*kept, -1), (*ids, -1)), default=())
        n_common = common((*best, -1), (*ids, -1))
        if n_common < N_PREFIX_MIN:
            return 0, None
        if best in self._states:
            self._states[best] = self._states.pop(best)
        return n_common, states[best]

    def room_for(self, n_bytes: int) -> bool:
        """Whether a state of this size is kept at all."""
        return n_bytes <= self._n_bytes_max

    def keep(self, ids: Sequence[int], state: State) -> None:
        """Keep the state that holds these ids."""
        if state.nbytes > self._n_bytes_max // 4:
            self._large = (tuple(ids), state)
            return
        self._states.pop(tuple(ids), None)
        self._states[tuple(ids)] = state
        n_bytes = sum(kept.nbytes for kept in self._states.values())
        while len(self._states) > self._n_max or n_bytes > self._n_bytes_max:
            n_bytes -= self._states.pop(next(iter(self._states))).nbytes

    def clear(self) -> None:
        """Forget all."""
        self._states.clear()
        self._large = None
