"""Sequences in, pooled vectors out, on one context: through the tap, or through llama.cpp's own pooling.

Knows the two ways of reading a vector and nothing of model files, memory or threads. Counts are checked here,
because llama.cpp asserts, which would kill the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from q3e_local.llama import native
from q3e_local.model_file import ModelInfo
from q3e_local.plan import ContextPlan

# The final norm's output, before the vocabulary projection: llama.cpp's internal name, hence proved at load.
_TAPPED = b"result_norm"


class PoolingContext:
    """A native context that decodes whole sequences into pooled vectors.

    With the tap only each sequence's last token is an output, its hidden state is read off the running graph,
    and the graph ends there. Without it llama.cpp pools, after projecting every token onto the vocabulary.
    """

    def __init__(self, model: native.Model, info: ModelInfo, plan: ContextPlan, n_threads: int) -> None:
        self.plan = plan
        self._n_embd = info.n_embd
        self._rows: list[NDArray[np.float32]] = []
        self._batch = native.Batch(plan.n_batch)
        try:
            self._context = native.Context(
                model,
                n_ctx=plan.n_ctx,
                n_batch=plan.n_batch,
                n_seq_max=plan.n_seq_max,
                n_threads=n_threads,
                flash_attention=plan.flash_attention,
                kv_type=native.F32 if plan.kv_f32 else native.F16,
                pooling=native.POOLING_NONE if plan.tap else native.POOLING_LAST,
                eval_callback=self._tap if plan.tap else None,
            )
        except BaseException:
            self._batch.free()
            raise

    def _tap(self, tensor: int, ask: bool) -> bool:
        if ask:
            return native.tensor_name(tensor) == _TAPPED
        self._rows.append(native.read_tensor(tensor, self._n_embd))
        return False  # ends the graph: the projection is never computed

    def decode(
        self, sequences: Sequence[Sequence[int]], go_on: Callable[[], None] = lambda: None
    ) -> NDArray[np.float32]:
        """Vectors (n, n_embd), in order. Several sequences must fit one batch; a single one goes in pieces.

        `go_on` is called before each native decode and may raise to stop a long text.
        """
        lengths = [len(ids) for ids in sequences]
        n_tokens, n_batch = sum(lengths), self.plan.n_batch
        if not all(lengths) or len(sequences) > self.plan.n_seq_max or n_tokens > self._context.n_ctx:
            raise native.NativeError(f"{len(sequences)} sequences of {lengths} tokens do not fit {self.plan}")
        if len(sequences) > 1 and n_tokens > n_batch:
            raise native.NativeError(
                f"{n_tokens} tokens in {len(sequences)} sequences do not fit a batch of {n_batch}"
            )
        if n_tokens > n_batch:
            (ids,) = sequences
            self.begin()
            for start in range(0, n_tokens, n_batch):
                go_on()
                self.piece(ids, start)
            return self.taken(1)
        self.begin()
        at = 0
        for seq_id, ids in enumerate(sequences):
            at = self._batch.put(at, ids, 0, seq_id, output_last=True)
        go_on()
        self._context.decode(self._batch.filled(at))
        return self.taken(len(sequences))

    def begin(self) -> None:
        """Forget what was decoded before."""
        self._context.clear()
        self._rows.clear()

    def piece(self, ids: Sequence[int], start: int) -> None:
        """Decode the next `n_batch` ids of a sequence that is longer than that, from `start` on."""
        n_batch = self.plan.n_batch
        is_last = start + n_batch >= len(ids)
        at = self._batch.put(0, ids[start : start + n_batch], start, 0, output_last=is_last)
        self._context.decode(self._batch.filled(at))

    def taken(self, n_sequences: int) -> NDArray[np.float32]:
        """The vectors (n_sequences, n_embd) of what was decoded since it began."""
        if not self.plan.tap:
            return np.stack([self._context.pooled(seq_id, self._n_embd) for seq_id in range(n_sequences)])
        vectors = np.concatenate(self._rows) if self._rows else np.empty((0, self._n_embd), np.float32)
        if len(vectors) != n_sequences:
            raise native.NativeError(f"the tap read {len(vectors)} vectors for {n_sequences} sequences")
        return vectors

    def wipe(self) -> None:
        """Zero the cache: a NaN left in a free cell would reach later texts, as 0 times NaN is NaN."""
        self._context.clear(zero=True)

    def free(self) -> None:
        self._context.free()
        self._batch.free()


def tap_agrees(
    model: native.Model, info: ModelInfo, flash_attention: bool, n_threads: int, sequences: Sequence[Sequence[int]]
) -> str | None:
    """Whether the tap gives the vectors of llama.cpp's own pooling; None when it does, else what is wrong.

    Several short sequences in one batch, so that a wrong order of rows shows too.
    """
    n_batch = sum(len(ids) for ids in sequences)
    vectors = []
    for tap in (True, False):
        plan = ContextPlan(256, n_batch, len(sequences), tap, flash_attention)
        try:
            context = PoolingContext(model, info, plan, n_threads)
        except native.NativeError as error:
            return f"no {'tapped' if tap else 'pooled'} context: {error}"
        try:
            vectors.append(context.decode(sequences).astype(np.float64))
        except native.NativeError as error:
            return str(error)
        finally:
            context.free()
    tapped, pooled = vectors
    norms = np.linalg.norm(tapped, axis=1) * np.linalg.norm(pooled, axis=1)
    cosines = (tapped * pooled).sum(axis=1) / np.maximum(norms, 1e-30)
    worst = float(cosines.min())
    return None if worst >= 0.9999 else f"cosine {worst:.5f} to the pooled path"
