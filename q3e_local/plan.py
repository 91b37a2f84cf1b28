"""How much memory weights and contexts take, and how large a context a text needs.

Arithmetic on a ModelInfo: touches neither llama.cpp nor the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from q3e_local.model_file import ModelInfo

# llama.cpp rounds contexts up to this many cells.
N_CTX_STEP = 256


@dataclass(frozen=True)
class ContextPlan:
    """The sizes a context is made with."""

    n_ctx: int
    n_batch: int
    n_seq_max: int
    tap: bool
    flash_attention: bool = True
    kv_f32: bool = False

    def n_bytes(self, model: ModelInfo) -> int:
        """An upper estimate of what llama.cpp will allocate, checked against its log for all three sizes."""
        kv = self.n_ctx * model.kv_bytes_per_token * (2 if self.kv_f32 else 1)
        # One row of logits an output, on the host and again in the graph.
        n_outputs = self.n_seq_max if self.tap else self.n_batch
        logits = 2 * n_outputs * model.n_vocab * 4
        activations = self.n_batch * (3 * model.n_ff + 8 * model.n_embd) * 4
        mask = self.n_batch * self.n_ctx * 2
        scores = 0 if self.flash_attention else self.n_batch * self.n_ctx * model.n_head * 4
        return kv + logits + activations + mask + scores


def weights_bytes(model: ModelInfo, repack: bool) -> int:
    """Memory of the weights: repacked ones are a copy beside the file's own pages."""
    return model.size_bytes * (2 if repack else 1)


def for_batches(n_batch: int, n_seq_max: int, tap: bool, flash_attention: bool) -> ContextPlan:
    """The context an engine begins with: for batches of texts that are no longer than one."""
    return ContextPlan(padded(n_batch), n_batch, min(n_seq_max, n_batch), tap, flash_attention)


def padded(n_tokens: int) -> int:
    """The context llama.cpp makes for this many tokens."""
    return -(-n_tokens // N_CTX_STEP) * N_CTX_STEP


def grown(n_ctx: int, n_tokens: int, n_ctx_max: int) -> int:
    """The next context for a sequence of `n_tokens` that `n_ctx` cells cannot hold.

    A quarter more than before at least, so that texts of slowly rising length do not each need a new one; KV
    cells cost memory as soon as they are allocated, so not double.
    """
    return padded(min(max(n_tokens, n_ctx + n_ctx // 4), max(n_ctx_max, n_tokens)))
