"""How much memory weights and contexts take, and how large a context a text needs.

Arithmetic on a ModelInfo: touches neither llama.cpp nor the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from q3e_local.embedding.batching import N_UNSPLIT
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama.settings.defaults import Settings

# llama.cpp rounds contexts up to this many cells.
N_CTX_STEP = 256
# Of kept prefixes, beside the contexts; an instruction takes 2 to 3 MB.
KEPT_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class ContextPlan:
    """The sizes a context is made with."""

    n_ctx: int
    n_batch: int
    n_seq_max: int
    tap: bool
    exact: bool = False  # keys and values in f32, and no flash attention

    def n_bytes(self, model: ModelInfo) -> int:
        """An upper estimate of what llama.cpp will allocate, checked against its log for all three sizes."""
        kv = self.n_ctx * model.kv_bytes_per_token * (2 if self.exact else 1)
        # One row of logits an output, on the host and again in the graph.
        n_outputs = self.n_seq_max if self.tap else self.n_batch
        logits = 2 * n_outputs * model.n_vocab * 4
        activations = self.n_batch * (3 * model.n_ff + 8 * model.n_embd) * 4
        attended = self.n_batch * self.n_ctx
        # Without flash attention the mask is f32, and so are the scores.
        per_pair = 4 + 4 * model.n_head if self.exact else 2
        return kv + logits + activations + attended * per_pair


def for_batches(n_batch: int, n_seq_max: int, tap: bool) -> ContextPlan:
    """The context an engine begins with: for batches, and texts that are no longer than a batch."""
    return ContextPlan(padded(n_batch), n_batch, min(n_seq_max, n_batch), tap)


def for_long(n_batch: int, n_ctx: int, tap: bool, *, exact: bool = False) -> ContextPlan:
    """The context for one text alone, in pieces of `n_batch` tokens, or N_TILE where that is more."""
    return ContextPlan(n_ctx, min(max(n_batch, N_UNSPLIT), n_ctx), 1, tap, exact)


def needed_bytes(model: ModelInfo, settings: Settings, n_seq_max: int, tap: bool, n_ctx: int = 0) -> int:
    """Memory of an engine: weights, its context for batches, and kept prefixes.

    `n_ctx` is the longest text. A text longer than a batch takes a second context.
    """
    plan = for_batches(settings.n_batch, n_seq_max, tap)
    n_bytes = model.size_bytes + plan.n_bytes(model) + (KEPT_BYTES_MAX if tap else 0)
    if n_ctx > settings.n_batch:
        n_bytes += for_long(settings.n_batch, padded(n_ctx), tap).n_bytes(model)
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
