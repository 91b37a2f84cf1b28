"""What a model file's weights give in float32: the forward pass in NumPy, a layer in memory at a time.

Contenders round their activations, and some their weights; how far that takes their vectors is measured against
this. Knows GGUF files and ids; nothing of texts, contenders or llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray

Array = NDArray[np.float32]

_QUERIES = 512  # whose attention is computed at once: the scores of all would not fit into memory


class Reference:
    """The vectors of a model. It computes for a while and holds memory, and so it is made in a child process."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._numbers = {
            key.removeprefix("qwen3."): field.contents()
            for key, field in reader.fields.items()
            if key.startswith("qwen3.")
        }

    def vectors(self, texts: Sequence[Sequence[int]], in_bf16: bool) -> Array:
        """A row of length 1 for each text's ids; `in_bf16`: of the weights as a checkpoint in bf16 has them."""
        self._in_bf16 = in_bf16
        hidden = [self._rows("token_embd.weight", ids) for ids in texts]
        for layer in range(self._numbers["block_count"]):
            weights = {
                name.split(".")[2]: self._rows(name) for name in self._tensors if name.startswith(f"blk.{layer}.")
            }
            hidden = [self._layer(x, weights) for x in hidden]
        pooled = np.stack([x[-1] for x in hidden])
        found = self._normed(pooled, self._rows("output_norm.weight"))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def _rows(self, name: str, rows: Sequence[int] | None = None) -> Array:
        tensor = self._tensors[name]
        data = tensor.data if rows is None else tensor.data[np.asarray(rows)]
        found: Array = dequantize(data, tensor.tensor_type).astype(np.float32)
        return to_bf16(found) if self._in_bf16 else found

    def _layer(self, x: Array, w: dict[str, Array]) -> Array:
        x = x + self._attention(self._normed(x, w["attn_norm"]), w) @ w["attn_output"].T
        y = self._normed(x, w["ffn_norm"])
        gate = y @ w["ffn_gate"].T
        with np.errstate(over="ignore"):  # exp of what a gate closes: the quotient is 0
            return x + (gate / (1 + np.exp(-gate)) * (y @ w["ffn_up"].T)) @ w["ffn_down"].T

    def _attention(self, x: Array, w: dict[str, Array]) -> Array:
        n_head, n_head_kv = self._numbers["attention.head_count"], self._numbers["attention.head_count_kv"]
        q, k, v = (
            (x @ w[f"attn_{name}"].T).reshape(len(x), n, -1).transpose(1, 0, 2)
            for name, n in (("q", n_head), ("k", n_head_kv), ("v", n_head_kv))
        )
        q, k = self._rotated(self._normed(q, w["attn_q_norm"])), self._rotated(self._normed(k, w["attn_k_norm"]))
        q /= np.float32(np.sqrt(q.shape[-1]))
        out = np.empty((len(x), n_head, v.shape[-1]), np.float32)
        for head in range(n_head):
            of_group = head * n_head_kv // n_head
            for start in range(0, len(x), _QUERIES):
                end = min(start + _QUERIES, len(x))
                scores = q[head, start:end] @ k[of_group, :end].T
                scores[np.triu(np.ones(scores.shape, bool), start + 1)] = -np.inf
                scores = np.exp(scores - scores.max(axis=1, keepdims=True))
                out[start:end, head] = (scores / scores.sum(axis=1, keepdims=True)) @ v[of_group, :end]
        return out.reshape(len(x), -1)

    def _normed(self, x: Array, weight: Array) -> Array:
        epsilon = np.float32(self._numbers["attention.layer_norm_rms_epsilon"])
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight

    def _rotated(self, x: Array) -> Array:
        """Heads (head, token, width): the halves of each as pairs, turned by position times frequency."""
        half = x.shape[-1] // 2
        # In float64, as angles of thousands have few bits left for their place on the circle.
        frequencies = float(self._numbers["rope.freq_base"]) ** (-np.arange(half) / half)
        angles = np.outer(np.arange(x.shape[1]), frequencies)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def to_bf16(weights: Array) -> Array:
    """The nearest numbers of bf16, ties to even."""
    bits = weights.view(np.uint32).astype(np.uint64)
    rounded: Any = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    found: Array = rounded.astype(np.uint32).view(np.float32)
    return found
