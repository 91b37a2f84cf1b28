"""How many tokens the next piece of a long text has: as many as possible while each step of it is short.

Arithmetic on measured times: knows nothing of llama.cpp.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from q3e_local.embedding.batching import N_TILE

# How long a step may take: batches can be computed only between two steps.
STEP_S = 0.5


class Stride:
    """The size of a long text's pieces, between N_TILE and `n_max` tokens.

    A step cannot be interrupted: it is a layer of a piece, or a whole piece where layers are not seen. Late pieces
    attend over more tokens and are slower, so they get smaller: after 8,192 tokens that costs 5 % at most.
    """

    def __init__(self, n_max: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.n_tokens = n_max
        self._n_max, self._clock = n_max, clock
        self._n_piece = self._n_steps = 0
        self._seconds = self._began = 0.0

    def begin(self, n_tokens: int) -> None:
        """A piece of this many tokens is computed from now on."""
        self._n_piece, self._n_steps, self._seconds = n_tokens, 0, 0.0
        self._began = self._clock()

    def stepped(self) -> None:
        """A layer is done. The time until `go_on` is not the piece's."""
        self._seconds += self._clock() - self._began
        self._n_steps += 1

    def go_on(self) -> None:
        """The next layer begins."""
        self._began = self._clock()

    def end(self) -> None:
        """The piece is done: set `n_tokens` for the next piece."""
        self._seconds += self._clock() - self._began
        step_s = max(self._seconds / max(1, self._n_steps), 1e-9)
        n_wanted = min(self._n_max, self._n_piece * STEP_S / step_s)
        self.n_tokens = self._n_max if n_wanted >= self._n_max else max(1, int(n_wanted) // N_TILE) * N_TILE
