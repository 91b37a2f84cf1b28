"""The keys and values of beginnings that come again, such as an instruction's: `KeptPrefixes`.

Knows ids and blocks of bytes; nothing of contexts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from q3e_local.batching import N_PREFIX_MIN, common

State = NDArray[np.uint8]

_N_MAX = 16
_N_BYTES_MAX = 64 << 20  # the instruction of a query is 2 to 3 MB


class KeptPrefixes:
    """The states of a few prefixes, the least recently used dropped first."""

    def __init__(self, n_max: int = _N_MAX, n_bytes_max: int = _N_BYTES_MAX) -> None:
        self._n_max, self._n_bytes_max = n_max, n_bytes_max
        self._states: dict[tuple[int, ...], State] = {}  # the most recently used last

    @property
    def n_bytes(self) -> int:
        return sum(state.nbytes for state in self._states.values())

    def find(self, ids: Sequence[int]) -> tuple[int, State | None]:
        """The state that holds most of a prefix, and how many of `ids` it holds."""
        # One id more, as `common` leaves the last one out.
        best = max(self._states, key=lambda kept: common((*kept, -1), (*ids, -1)), default=())
        n_common = common((*best, -1), (*ids, -1))
        if n_common < N_PREFIX_MIN:
            return 0, None
        self._states[best] = self._states.pop(best)
        return n_common, self._states[best]

    def room_for(self, n_bytes: int) -> bool:
        """Whether a state of this size is kept at all."""
        return n_bytes <= self._n_bytes_max

    def keep(self, ids: Sequence[int], state: State) -> None:
        self._states.pop(tuple(ids), None)
        self._states[tuple(ids)] = state
        while len(self._states) > self._n_max or self.n_bytes > self._n_bytes_max:
            del self._states[next(iter(self._states))]

    def clear(self) -> None:
        self._states.clear()
