"""Sequences in, pooled vectors out: `Decoding`, which computes batches, and has long texts computed beside them.

Where a GPU is refused memory, a batch is computed with fewer layers there. Knows batches and turns; leaves what is in
memory to loading.py, and texts longer than a batch to long_texts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from q3e_local.embedding.batching import pack
from q3e_local.errors import BadVectorError, GpuMemoryError
from q3e_local.llama.contexts import Contexts, explaining, refusals
from q3e_local.llama.loading import LoadedModel
from q3e_local.llama.long_texts import LoadedAnewError, LongTexts
from q3e_local.llama.owner import Owner
from q3e_local.llama.settings.defaults import Reason, Settings
from q3e_local.llama.thread_trials import ThreadTrials

Compute = Callable[[Sequence[Sequence[int]], Sequence[int] | None], NDArray[np.float32]]


class Decoding:
    """Vectors of sequences that were checked. Safe to call from several threads."""

    def __init__(
        self, loaded: LoadedModel, owner: Owner, trials: ThreadTrials, n_ctx_max: int, n_batch_asked: int
    ) -> None:
        """`n_batch_asked`: the tokens of a batch that were asked for; 0: none."""
        self._loaded, self._owner, self._trials = loaded, owner, trials
        # Callers know it, and fill such batches, whatever a GPU has memory for later.
        self._n_batch_told = max(n_batch_asked, loaded.settings.n_batch)
        self._long = LongTexts(loaded, owner, n_ctx_max)

    @property
    def n_batch(self) -> int:
        """Tokens of a batch."""
        return self._loaded.settings.n_batch

    @property
    def n_seq_max(self) -> int:
        """Sequences of a batch."""
        # A sequence is at least one token; llama.cpp asserts when it pools more sequences than a batch has tokens.
        return min(self._loaded.n_seq_max, self.n_batch)

    def decode(
        self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None, on_piece: Callable[[int], None]
    ) -> NDArray[np.float32]:
        """Vectors (n, n_embd) of what is one batch or one text, in order. `on_piece`: for a text in pieces."""
        while True:
            n_batch = self.n_batch
            compute = partial(self._at_once, n_batch=n_batch, on_piece=on_piece)
            try:
                if len(sequences) > 1 and n_batch < self._n_batch_told:
                    return self._apart(sequences, n_prefix or [0] * len(sequences), compute)
                return compute(sequences, n_prefix)
            except LoadedAnewError:  # with smaller batches
                continue

    def use(self, settings: Settings) -> None:
        """Go on with other threads or batches."""
        with self._long.turn:  # whose context may go
            self._owner.do(self._loaded.use, settings)

    def _at_once(
        self,
        sequences: Sequence[Sequence[int]],
        n_prefix: Sequence[int] | None,
        n_batch: int,
        on_piece: Callable[[int], None],
    ) -> NDArray[np.float32]:
        """The vectors of a batch of `n_batch` tokens at most, or of one text that is longer."""
        if len(sequences) == 1 and len(sequences[0]) > n_batch:
            return self._long.decode(sequences[0], on_piece)
        try:
            return self._owner.batch(self._batch, sequences, n_prefix, n_batch)
        except GpuMemoryError:  # between two layers of a long text, where the model cannot be loaded anew
            return self._owner.do(self._batch, sequences, n_prefix, n_batch)

    def _apart(
        self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int], compute: Compute
    ) -> NDArray[np.float32]:
        """Sequences that do not fit one batch, in several."""
        pooled = np.empty((len(sequences), self._loaded.info.n_embd), np.float32)
        for rows, _ in pack(sequences, n_prefix, self.n_batch, self.n_seq_max):
            try:
                pooled[rows] = compute([sequences[row] for row in rows], [n_prefix[row] for row in rows])
            except BadVectorError as error:
                raise BadVectorError(error.message, rows[error.index]) from None
        return pooled

    # On the owner's thread from here on.

    def _batch(
        self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None, n_batch: int
    ) -> NDArray[np.float32]:
        """Raises LoadedAnewError where batches are smaller than `n_batch` by now, and this one may not fit."""
        while True:
            self._owner.go_on()
            try:
                contexts = self._loaded.ready()
                if self.n_batch < n_batch:
                    raise LoadedAnewError
                return self._batch_once(contexts, sequences, n_prefix)
            except GpuMemoryError as error:
                if self._owner.is_letting_in:
                    raise
                self._loaded.fewer_layers(error)

    def _batch_once(
        self, contexts: Contexts, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None
    ) -> NDArray[np.float32]:
        loaded = self._loaded
        n_tokens = sum(map(len, sequences))
        if not loaded.tap and n_tokens > self.n_batch:
            # From shared prefixes llama.cpp's pooling would not gain.
            return self._apart(sequences, [0] * len(sequences), partial(self._batch, n_batch=self.n_batch))
        # subtle: Ctrl-C gives up the lock of a long text, while its piece is computed to the end.
        contexts.passed(long_at_work=self._long.turn.is_taken or self._owner.is_letting_in)
        compute = partial(contexts.batch.decode, sequences, n_prefix, self._owner.go_on)
        race, race_was_over = self._trials.race, self._trials.race.is_over
        with refusals("compute this batch", on_gpu=loaded.placement.on_gpu):
            vectors = self._trials.computed(contexts.batch, loaded.settings, n_tokens - sum(n_prefix or ()), compute)
        if race.is_over and not race_was_over and race.winner != loaded.settings.n_threads:
            settings = loaded.settings.changed("n_threads", race.winner, Reason("tried", "fastest in this work"))
            loaded.use(settings)
            explaining.info("%s: %s", loaded.info.path.stem, settings.explained("n_threads"))
        return contexts.sounded(contexts.batch, vectors, sequences, self._owner.go_on)
