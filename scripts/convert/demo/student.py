"""The student: a Qwen3 transformer of two narrow layers, with the pooling and the prompts of Qwen3-Embedding.

The layout is that of llama.cpp's graph for `qwen3`: RMS norms before attention and feed-forward, norms of the heads
of queries and keys, rotary positions in halves (NeoX), SwiGLU, causal attention. A text's vector is the output of
its last token, the end token, after the last norm.
"""

import torch
from shape import EPSILON, HEAD_DIM, N_EMBD, N_FF, N_HEAD, N_LAYER, ROPE_BASE
from torch import nn
from torch.nn import functional


def rms_norm(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(values.float(), (values.shape[-1],), weight, EPSILON)


def rotate(heads: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary positions: the first half of each head is turned against the second.

    `heads` is (n_texts, N_HEAD, n_positions, HEAD_DIM); `positions` is (n_positions) or (n_texts, 1, n_positions).
    """
    half = HEAD_DIM // 2
    angles = positions[..., None].float() * ROPE_BASE ** (-torch.arange(half) / half)
    cos, sin = angles.cos(), angles.sin()
    left, right = heads[..., :half], heads[..., half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


class Layer(nn.Module):
    """One layer. At first it adds nothing, or, as the last one, the mean of the tokens."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last

        def matrix(n_out: int, n_in: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(n_out, n_in) * n_in**-0.5)

        self.attn_q, self.attn_k = matrix(N_EMBD, N_EMBD), matrix(N_EMBD, N_EMBD)
        self.attn_v = nn.Parameter(torch.eye(N_EMBD)) if last else matrix(N_EMBD, N_EMBD)
        self.attn_output = nn.Parameter(torch.eye(N_EMBD) * 8.0 if last else torch.zeros(N_EMBD, N_EMBD))
        # Small queries make equal scores, and with them a mean.
        self.attn_q_norm = nn.Parameter(torch.full((HEAD_DIM,), 0.1 if last else 1.0))
        self.attn_k_norm = nn.Parameter(torch.ones(HEAD_DIM))
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(N_EMBD)), nn.Parameter(torch.ones(N_EMBD))
        self.ffn_gate, self.ffn_up = matrix(N_FF, N_EMBD), matrix(N_FF, N_EMBD)
        self.ffn_down = nn.Parameter(torch.zeros(N_EMBD, N_FF))

    def heads(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(len(values), -1, N_HEAD, HEAD_DIM).transpose(1, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(n_texts, width, N_EMBD) to the same shape; the last layer to (n_texts, 1, N_EMBD), its last tokens."""
        positions = torch.arange(x.shape[1])
        normed = rms_norm(x, self.attn_norm)
        k = rotate(rms_norm(self.heads(functional.linear(normed, self.attn_k)), self.attn_k_norm), positions)
        v = self.heads(functional.linear(normed, self.attn_v))
        seen = None
        if self.last:
            texts = torch.arange(len(x))
            x, normed = x[texts, lengths - 1][:, None], normed[texts, lengths - 1][:, None]
            seen = (positions[None] < lengths[:, None])[:, None, None]
            positions = (lengths - 1)[:, None, None]
        q = rotate(rms_norm(self.heads(functional.linear(normed, self.attn_q)), self.attn_q_norm), positions)
        # Texts are filled up on the right, so a causal mask hides the filling from every token of the text.
        attended = functional.scaled_dot_product_attention(
            q.to(v.dtype), k.to(v.dtype), v, attn_mask=seen, is_causal=not self.last
        )
        x = x + functional.linear(attended.transpose(1, 2).reshape(len(x), -1, N_EMBD), self.attn_output)
        normed = rms_norm(x, self.ffn_norm)
        gate = functional.silu(functional.linear(normed, self.ffn_gate))
        return x + functional.linear(gate * functional.linear(normed, self.ffn_up), self.ffn_down)


class Student(nn.Module):
    """Rows of the token table in, vectors out. The last row is that of the end token."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.token_embd = nn.Parameter(rows.clone())
        self.blk = nn.ModuleList(Layer(last=i == N_LAYER - 1) for i in range(N_LAYER))
        self.output_norm = nn.Parameter(torch.ones(N_EMBD))

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Vectors (n_texts, N_EMBD) of row numbers (n_texts, width) whose first `lengths` are the text's."""
        x = functional.embedding(ids, self.token_embd)
        for layer in self.blk:
            x = layer(x, lengths)
        return rms_norm(x[:, 0], self.output_norm)


class Bag(nn.Module):
    """What the student is before its layers learn: the weighted sum of the rows of a text's tokens."""

    def __init__(self, rows: torch.Tensor, weights: torch.Tensor) -> None:
        super().__init__()
        self.rows, self.log_weights = nn.Parameter(rows.clone()), nn.Parameter(weights.log())

    def weighed(self) -> torch.Tensor:
        return self.rows * self.log_weights.exp()[:, None]

    def forward(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        return functional.embedding_bag(ids, self.weighed(), starts, mode="sum")
