"""How much memory weights and contexts take, and how large a context a text needs.

Arithmetic on a ModelInfo: touches neither llama.cpp nor the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from q3e_local.embedding.batching import N_UNSPLIT
from q3e_local.embedding.engine import EngineConfig, KvType
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama.settings.defaults import N_BATCH

# llama.cpp rounds contexts up to this many cells.
N_CTX_STEP = 256
# Of kept prefixes, beside the contexts; an instruction takes 2 to 3 MB.
KEPT_BYTES_MAX = 64 << 20
# Of a q8_0 row: numbers in a block, and its bytes.
Q8_0_BLOCK, Q8_0_BLOCK_BYTES = 32, 34


@dataclass(frozen=True)
class ContextPlan:
    """The sizes a context is made with."""

    n_ctx: int
    n_batch: int
    n_seq_max: int
    tap: bool
    exact: bool = False  # keys and values in f32, and no flash attention
    kv_type: KvType = "f16"  # of keys and values, where not `exact`
    kv_on_gpu: bool = True  # those of layers on a GPU are there too, and not in RAM

    def n_bytes(self, model: ModelInfo) -> int:
        """An upper estimate of what llama.cpp will allocate, checked against its log for all three sizes."""
        # One row of logits an output, on the host and again in the graph.
        return self._kv_bytes(model) + self._compute_bytes(model) + self._logit_bytes(model)

    def device_bytes(self, model: ModelInfo, n_on_gpu: int) -> int:
        """Of these, what a GPU with so many of the layers takes. An upper estimate too."""
        if not n_on_gpu:
            return 0
        kv = self._kv_bytes(model) * n_on_gpu // model.n_layer if self.kv_on_gpu else 0
        return kv + self._compute_bytes(model)

    def host_bytes(self, model: ModelInfo, n_on_gpu: int) -> int:
        """Of these, what the machine's own memory takes beside such a GPU."""
        kv = self._kv_bytes(model) * (model.n_layer - n_on_gpu) // model.n_layer
        if not self.kv_on_gpu:
            kv = self._kv_bytes(model)
        computes = n_on_gpu < model.n_layer or not self.kv_on_gpu
        return kv + self._logit_bytes(model) + (self._compute_bytes(model) if computes else 0)

    def _kv_bytes(self, model: ModelInfo) -> int:
        f16 = self.n_ctx * model.kv_bytes_per_token
        if self.exact:
            return 2 * f16
        return f16 * Q8_0_BLOCK_BYTES // (2 * Q8_0_BLOCK) if self.kv_type == "q8_0" else f16

    def _logit_bytes(self, model: ModelInfo) -> int:
        n_outputs = self.n_seq_max if self.tap else self.n_batch
        return n_outputs * model.n_vocab * 4

    def _compute_bytes(self, model: ModelInfo) -> int:
        activations = self.n_batch * (3 * model.n_ff + 8 * model.n_embd) * 4
        # Without flash attention the mask is f32, and so are the scores.
        per_pair = 4 + 4 * model.n_head if self.exact else 2
        return activations + self.n_batch * self.n_ctx * per_pair + self._logit_bytes(model)


def for_batches(n_batch: int, n_seq_max: int, tap: bool, kv_type: KvType = "f16") -> ContextPlan:
    """The context an engine begins with: for batches, and texts that are no longer than a batch."""
    return ContextPlan(padded(n_batch), n_batch, min(n_seq_max, n_batch), tap, kv_type=kv_type)


def as_asked(config: EngineConfig, n_batch: int) -> ContextPlan:
    """The same, as these options have it."""
    return for_batches(n_batch, config.n_seq_max, config.tap, config.kv_type)


def for_long(n_batch: int, n_ctx: int, tap: bool, *, exact: bool = False, kv_type: KvType = "f16") -> ContextPlan:
    """The context for one text alone, in pieces of `n_batch` tokens, or N_TILE where that is more."""
    return ContextPlan(n_ctx, min(max(n_batch, N_UNSPLIT), n_ctx), 1, tap, exact, kv_type)


def long_plans(wanted: ContextPlan, n_tokens: int, *, on_gpu: bool) -> Iterator[ContextPlan]:
    """The contexts to try for a text of `n_tokens`, the best first.

    With room to grow into, as `wanted`; without; in smaller pieces; and on a GPU as `saving` says.
    """
    tight = replace(wanted, n_ctx=padded(n_tokens), n_batch=min(wanted.n_batch, padded(n_tokens)))
    small = replace(tight, n_batch=min(tight.n_batch, max(N_BATCH, N_UNSPLIT)))
    yield from dict.fromkeys([wanted, tight, small])
    if on_gpu:
        smallest = replace(small, n_batch=min(small.n_batch, N_UNSPLIT))
        yield from (plan for plan in (smallest, *saving(smallest)) if plan != small)


def batch_plans(wanted: ContextPlan, *, on_gpu: bool, may_shrink: bool) -> Iterator[ContextPlan]:
    """The contexts to try for batches, the best first: on a GPU also smaller ones, if those may be, and `saving`."""
    yield wanted
    small = wanted
    while on_gpu and may_shrink and (n_batch := small.n_batch // 2) > N_UNSPLIT:
        small = replace(small, n_ctx=padded(n_batch), n_batch=n_batch, n_seq_max=min(small.n_seq_max, n_batch))
        yield small
    if on_gpu:
        yield from saving(small)


def saving(plan: ContextPlan) -> Iterator[ContextPlan]:
    """What to try where a GPU has no memory for the plan: keys and values in q8_0, then in the machine's memory.

    There as they were wanted, and where the machine has too little for that, in q8_0.
    """
    plans = [plan] if plan.kv_type == "q8_0" or plan.exact else [plan, replace(plan, kv_type="q8_0")]
    yield from plans[1:]
    yield from (replace(each, kv_on_gpu=False) for each in plans)


def given_up(wanted: ContextPlan, made: ContextPlan) -> str:
    """How a context differs from the one that was wanted, in words; empty where it is as good for its text."""
    words = []
    if made.n_batch < min(wanted.n_batch, made.n_ctx):
        words.append(f"pieces of {made.n_batch} tokens")
    if made.kv_type != wanted.kv_type:
        words.append(f"keys and values in {made.kv_type}")
    if made.kv_on_gpu != wanted.kv_on_gpu:
        words.append("keys and values in the machine's memory, where the CPU attends")
    return ", ".join(words)


def needed_bytes(model: ModelInfo, batches: ContextPlan, n_ctx: int = 0) -> int:
    """Memory of an engine: weights, its context for batches, and kept prefixes.

    `n_ctx` is the longest text. A text longer than a batch takes a second context.
    """
    n_bytes = model.size_bytes + batches.n_bytes(model) + (KEPT_BYTES_MAX if batches.tap else 0)
    if n_ctx > batches.n_batch:
        long = for_long(batches.n_batch, padded(n_ctx), batches.tap, kv_type=batches.kv_type)
        n_bytes += long.n_bytes(model)
    return n_bytes


def padded(n_tokens: int) -> int:
    """The context llama.cpp makes for this many tokens."""
    return -(-n_tokens // N_CTX_STEP) * N_CTX_STEP


def grown(n_ctx: int, n_tokens: int, n_ctx_max: int) -> int:
    """The next context for a sequence of `n_tokens` that `n_ctx` cells cannot hold.

    A quarter more than before at least, so that texts of slowly rising length do not each need a new one; KV
    cells cost memory as soon as they are allocated, so not double.
    """
    return padded(min(max(n_tokens, n_ctx + n_ctx // 4), max(n_ctx_max, n_tokens)))
