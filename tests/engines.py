"""Engines on tiny models: small settings, broken weights, and how near vectors come to the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from oracle import Weights

from q3e_local.embedding.engine import EngineConfig

N_BATCH, N_CTX = 32, 512
# Tokens of a text, end token included: one, around one and two batches, around the file's context_length.
LENGTHS = [1, 2, 9, N_BATCH - 1, N_BATCH, N_BATCH + 1, 2 * N_BATCH, 2 * N_BATCH + 1, N_CTX - 1, N_CTX]
BAD = 300  # a token that is a text of its own, and in no other text

Ids = list[int]
MakeGguf = Callable[..., Path]
Sequences = dict[int, Ids]  # by their lengths
Expected = dict[int, np.ndarray]  # the oracle's vectors, by the same lengths
Truth = Callable[[list[Ids]], np.ndarray]  # the oracle's vector of each sequence


def small(**options: Any) -> EngineConfig:
    """A small batch; one thread, as two that wait for each other are slow on a busy machine."""
    return EngineConfig(**{"n_batch": N_BATCH, "n_threads": 1} | options)


def hold(vectors: np.ndarray, truth: np.ndarray, least: float = 0.9999) -> None:
    """Assert that each vector points where its truth does."""
    a, b = np.atleast_2d(vectors).astype(np.float64), np.atleast_2d(truth).astype(np.float64)
    cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    assert cosines.min() >= least


def broken(weights: Weights) -> Weights:
    """The same model, but NaN in the row of the token BAD."""
    table = weights["embed_tokens.weight"].copy()
    table[BAD] = np.nan
    return weights | {"embed_tokens.weight": table}


def loud(weights: Weights) -> Weights:
    """The same model, but BAD has values beyond f16 (65,504) in the first layer's cache."""
    table = weights["embed_tokens.weight"].copy()
    table[:, 0] = 0
    table[BAD, 0] = 1
    values = weights["layers.0.self_attn.v_proj.weight"].copy()
    values[:, 0] = 1e6
    return weights | {"embed_tokens.weight": table, "layers.0.self_attn.v_proj.weight": values}
