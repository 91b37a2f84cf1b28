"""The Qwen3 embedding forward pass in NumPy: the oracle that engine and conversion are held to.

Knows weights by their Hugging Face names (without `model.`) and token ids. Knows nothing of text, files,
batches, caches or llama.cpp. Written to be checked by eye against `modeling_qwen3.py` of transformers, whose
results it equals to 1e-5 for random weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Config:
    """The numbers of a Qwen3 model, under llama.cpp's names."""

    n_layer: int = 3
    n_embd: int = 256
    n_ff: int = 512
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 64
    rope_base: float = 1_000_000.0
    rms_eps: float = 1e-6


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """Scale the last axis to root mean square 1, then by the weights."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x: np.ndarray, base: float) -> np.ndarray:
    """Turn the pairs (i, i + half) of heads (token, head, head_dim) by position * base^(-i / half)."""
    n_tokens, _, head_dim = x.shape
    half = head_dim // 2
    angles = np.outer(np.arange(n_tokens), base ** (-np.arange(half) / half))[:, None, :]
    first, second = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(x: np.ndarray, w: Weights, c: Config) -> np.ndarray:
    """Causal attention with grouped KV heads; queries and keys are normed per head, then rotated."""
    n_tokens = len(x)
    q = (x @ w["self_attn.q_proj.weight"].T).reshape(n_tokens, c.n_head, c.head_dim)
    k = (x @ w["self_attn.k_proj.weight"].T).reshape(n_tokens, c.n_head_kv, c.head_dim)
    v = (x @ w["self_attn.v_proj.weight"].T).reshape(n_tokens, c.n_head_kv, c.head_dim)
    q = rotate(rms_norm(q, w["self_attn.q_norm.weight"], c.rms_eps), c.rope_base)
    k = rotate(rms_norm(k, w["self_attn.k_norm.weight"], c.rms_eps), c.rope_base)
    later = np.triu(np.ones((n_tokens, n_tokens), bool), k=1)
    heads = []
    for head in range(c.n_head):
        kv = head // (c.n_head // c.n_head_kv)  # neighbouring query heads share a KV head
        scores = q[:, head] @ k[:, kv].T / np.sqrt(c.head_dim)
        heads.append(softmax(np.where(later, -np.inf, scores)) @ v[:, kv])
    return np.concatenate(heads, axis=1) @ w["self_attn.o_proj.weight"].T


def feed_forward(x: np.ndarray, w: Weights) -> np.ndarray:
    """SwiGLU: down(silu(gate) * up)."""
    gate, up = x @ w["mlp.gate_proj.weight"].T, x @ w["mlp.up_proj.weight"].T
    return (gate / (1 + np.exp(-gate)) * up) @ w["mlp.down_proj.weight"].T


def hidden_states(weights: Weights, config: Config, ids: list[int]) -> np.ndarray:
    """The final-norm hidden states of a sequence, (len(ids), n_embd), computed in float64."""
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    x = weights["embed_tokens.weight"][ids]
    for n in range(config.n_layer):
        prefix = f"layers.{n}."
        w = {name.removeprefix(prefix): each for name, each in weights.items() if name.startswith(prefix)}
        x = x + attention(rms_norm(x, w["input_layernorm.weight"], config.rms_eps), w, config)
        x = x + feed_forward(rms_norm(x, w["post_attention_layernorm.weight"], config.rms_eps), w)
    return rms_norm(x, weights["norm.weight"], config.rms_eps)


def embed(weights: Weights, config: Config, ids: list[int]) -> np.ndarray:
    """The pooled vector of a sequence, (n_embd,): its last hidden state, neither cut nor scaled."""
    return hidden_states(weights, config, ids)[-1]
