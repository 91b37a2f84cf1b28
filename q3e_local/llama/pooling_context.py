"""Sequences in, pooled vectors out, on one context: through the tap, or through llama.cpp's own pooling.

Knows the two ways of reading a vector and nothing of model files, memory or threads. Counts are checked here,
because llama.cpp asserts, which would kill the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from q3e_local.embedding.batching import N_PREFIX_MIN, common, end_of_piece, first_place
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import binding, tensors
from q3e_local.llama.prefixes import KeptPrefixes
from q3e_local.llama.settings.memory import ContextPlan
from q3e_local.llama.stride import Stride

# The final norm's output, before the vocabulary projection: llama.cpp's internal name, hence proved at load.
TAPPED = b"result_norm"
# The vocabulary projection itself.
_PROJECTED = b"result_output"
# The name of the tensor that ends a layer, before the layer's number. Should llama.cpp rename it, batches go between
# pieces only.
LAYER = b"l_out-"
# A kept prefix is copied to the GPU in two transfers for each layer, its keys and its values: these 60 or so take
# longer than to compute an instruction anew.
_N_KEPT_ON_GPU_MIN = 256


@dataclass
class Counts:
    """What llama.cpp computed so far, and what it was spared."""

    n_decodes: int = 0
    n_tokens: int = 0
    n_reused: int = 0  # tokens of prefixes that were there already
    after_tap: tuple[bytes, ...] = ()  # tensors of the latest decode that were computed behind the tap, in vain

    def add(self, n_tokens: int, n_reused: int) -> None:
        self.n_decodes += n_tokens > 0
        self.n_tokens += n_tokens
        self.n_reused += n_reused


class PoolingContext:
    """A native context that decodes whole sequences into pooled vectors.

    With the tap only each sequence's last token is an output, its hidden state is read off the running graph,
    and the graph ends there. Without it llama.cpp pools, after projecting every token onto the vocabulary.

    llama.cpp ends only the part of the graph that is on one device. A projection on another one is left out when
    llama.cpp asks about it, and `counts.after_tap` names what is computed all the same.
    """

    def __init__(
        self,
        model: binding.Weights,
        info: ModelInfo,
        plan: ContextPlan,
        n_threads: int,
        counts: Counts | None = None,
        between: Callable[[], None] | None = None,
    ) -> None:
        """`between` is called after each layer where there is a tap, and may raise to stop."""
        self.plan = plan
        self._n_embd = info.n_embd
        self._rows: list[NDArray[np.float32]] = []
        self._latest: tuple[int, ...] = ()  # the long text whose keys and values are in the cache
        self._stride = Stride(plan.n_batch)
        self._between = between
        self._stopped_by: BaseException | None = None  # what `between` raised
        self._kept = KeptPrefixes()
        self._is_tapped = False  # in this decode
        self.counts = counts or Counts()
        self._batch = binding.Batch(plan.n_batch, plan.n_seq_max)
        try:
            self._context = binding.Context(
                model,
                n_ctx=plan.n_ctx,
                n_batch=plan.n_batch,
                n_seq_max=plan.n_seq_max,
                n_threads=n_threads,
                pooling=binding.POOLING_NONE if plan.tap else binding.POOLING_LAST,
                exact=plan.exact,
                kv_type=plan.kv_type,
                kv_on_gpu=plan.kv_on_gpu,
                eval_callback=self._tap if plan.tap else None,
            )
        except BaseException:
            self._batch.free()
            raise
        # Without flash attention values lie transposed, and a state is a transfer for each row of each layer.
        on_gpu = model.on_gpu and plan.kv_on_gpu
        self._n_kept_min = (
            0 if not on_gpu else _N_KEPT_ON_GPU_MIN if self._context.flash_attention else self.n_ctx + 1
        )

    @property
    def n_ctx(self) -> int:
        """Cells of the cache, which llama.cpp rounds up."""
        return self._context.n_ctx

    def _tap(self, tensor: int, ask: bool) -> bool:
        if ask:
            name = tensors.name_of(tensor)
            if self._is_tapped and not (name == _PROJECTED and tensors.leave_out(tensor)):
                self.counts.after_tap += (name,)
            return name == TAPPED or (self._between is not None and name.startswith(LAYER))
        if self._between is not None and tensors.name_of(tensor) != TAPPED:
            return self._layer_done()
        self._rows.append(tensors.rows_of(tensor, self._n_embd))
        self._is_tapped = True
        return False  # ends the graph: the projection is never computed

    def _run(self, n_tokens: int) -> None:
        self._is_tapped, self.counts.after_tap = False, ()
        self._context.decode(self._batch.filled(n_tokens))

    def _layer_done(self) -> bool:
        """Whether to go on with the graph."""
        assert self._between is not None
        self._stride.stepped()
        try:
            self._between()
        except BaseException as error:  # which must not reach llama.cpp
            self._stopped_by = error
            return False
        self._stride.go_on()
        return True

    def decode(
        self,
        sequences: Sequence[Sequence[int]],
        n_prefix: Sequence[int] | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> NDArray[np.float32]:
        """Vectors (n, n_embd), in order. Several sequences must fit one batch; a single one goes in pieces.

        The first `n_prefix` ids of each sequence are computed once for all that share them, and kept for later calls.
        `go_on` is called before each native decode, and may raise to stop a long text.
        """
        lengths = [len(ids) for ids in sequences]
        if not all(lengths) or len(sequences) > self.plan.n_seq_max:
            raise binding.NativeError(_too_much(lengths, self.plan))
        if len(sequences) == 1 and lengths[0] > self.plan.n_batch:
            (ids,) = sequences
            at = self.begin(ids)
            while at < len(ids):
                go_on()
                at = self.piece(ids, at)
            return self.taken(1)
        # The pooled path projects each token for each of its sequences, so that sharing would save nothing.
        groups = _groups(sequences, n_prefix if n_prefix is not None and self.plan.tap else [0] * len(sequences))
        n_cells = sum(lengths) - sum(len(head) * (len(rows) - 1) for head, rows in groups.items())
        if n_cells > min(self.plan.n_batch, self.n_ctx):
            raise binding.NativeError(_too_much(lengths, self.plan))
        self.forget()
        go_on()
        unkept = self._compute(sequences, groups)
        vectors = self.taken(len(sequences))
        for head, row in unkept:
            self._keep(head, row)
        return vectors

    def _compute(
        self, sequences: Sequence[Sequence[int]], groups: dict[tuple[int, ...], list[int]]
    ) -> list[tuple[tuple[int, ...], int]]:
        """One native decode of all of them. Returns the prefixes that are new, and a sequence that has each."""
        at, n_reused, n_cells, unkept = 0, 0, self.n_ctx, []
        starts = [0] * len(sequences)
        for head, rows in groups.items():
            if not head:
                continue
            n_kept, state = self._kept.find(head, n_cells) if len(head) >= self._n_kept_min else (0, None)
            n_cells -= n_kept
            if state is not None:
                self._context.set_state(rows[0], state)
                self._context.cut(rows[0], n_kept)
                for row in rows[1:]:
                    self._context.share(rows[0], row, n_kept)
            if n_kept < len(head):
                at = self._batch.put(at, head[n_kept:], n_kept, rows, output_last=False)
                unkept.append((head, rows[0]))
            for row in rows:
                starts[row] = len(head)
            n_reused += len(head) * len(rows) - (len(head) - n_kept)
        for row, (ids, start) in enumerate(zip(sequences, starts, strict=True)):
            at = self._batch.put(at, ids[start:], start, [row], output_last=True)
        self._run(at)
        self.counts.add(at, n_reused)
        return unkept

    def _keep(self, head: tuple[int, ...], row: int) -> None:
        if len(head) < self._n_kept_min:
            return
        self._context.cut(row, len(head))
        if self._kept.room_for(self._context.state_size(row)):
            self._kept.keep(head, self._context.state(row))

    def set_threads(self, n_threads: int) -> None:
        """How many threads compute from now on."""
        self._context.set_threads(n_threads)

    def forget(self) -> None:
        """Forget everything but the kept prefixes."""
        self._context.clear()
        self._rows.clear()
        self._latest = ()

    def begin(self, ids: Sequence[int]) -> int:
        """Where the first `piece` of a sequence begins: behind what it shares with the sequence before it."""
        n_same = common(self._latest, ids) if self.plan.tap else 0
        start = first_place(n_same if n_same >= N_PREFIX_MIN else 0, len(ids))
        self._stride = Stride(self.plan.n_batch)
        if start:
            self._context.cut(0, start)
            self._rows.clear()
        else:
            self.forget()
        # The next sequence can go on only from a sequence that was decoded to its end.
        self._latest = ()
        self.counts.add(0, start)
        return start

    def piece(self, ids: Sequence[int], start: int, *, shared: bool = False) -> int:
        """Decode the next ids of a sequence that is longer than a batch. Returns where the piece after this begins.

        `shared`: batches wait for `between`, so slow pieces get smaller. When it raises what `between` raises, the
        sequence must begin again.
        """
        end = end_of_piece(start, len(ids), self._stride.n_tokens if shared else self.plan.n_batch)
        is_last = end == len(ids)
        at = self._batch.put(0, ids[start:end], start, [0], output_last=is_last)
        self._stride.begin(at)
        self._run(at)
        if self._stopped_by is not None:
            error, self._stopped_by = self._stopped_by, None
            raise error
        self._stride.end()
        self.counts.add(at, 0)
        if is_last:
            self._latest = tuple(ids)
        return end

    def taken(self, n_sequences: int) -> NDArray[np.float32]:
        """The vectors (n_sequences, n_embd) of the batch or long text that was decoded."""
        if not self.plan.tap:
            return np.stack([self._context.pooled(seq_id, self._n_embd) for seq_id in range(n_sequences)])
        vectors = np.concatenate(self._rows) if self._rows else np.empty((0, self._n_embd), np.float32)
        if len(vectors) != n_sequences:
            raise binding.NativeError(f"the tap read {len(vectors)} vectors for {n_sequences} sequences")
        return vectors

    def wipe(self) -> None:
        """Zero the cache: a NaN left in a free cell would reach later texts, as 0 times NaN is NaN."""
        self._context.clear(zero=True)
        self._latest = ()
        self._kept.clear()

    def free(self) -> None:
        self._context.free()
        self._batch.free()


def _too_much(lengths: Sequence[int], plan: ContextPlan) -> str:
    return (
        f"{len(lengths)} sequences of {sum(lengths)} tokens do not fit a batch of {plan.n_batch} tokens and "
        f"{plan.n_seq_max} sequences; give them in several"
    )


def _groups(sequences: Sequence[Sequence[int]], n_prefix: Sequence[int]) -> dict[tuple[int, ...], list[int]]:
    """The rows that have each prefix."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, (ids, n) in enumerate(zip(sequences, n_prefix, strict=True)):
        # Each sequence needs its last id to itself: its vector is read there.
        groups.setdefault(tuple(ids[: min(n, len(ids) - 1)]), []).append(row)
    return groups
