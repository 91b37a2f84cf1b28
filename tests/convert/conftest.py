"""What the tests of conversions share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import oracle
import pytest
from oracle import Config, Weights
from tokenizers import Tokenizer

from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.engine import LlamaEngine


@pytest.fixture
def checkpoint(tmp_path: Path, weights: Weights, config: Config, tokenizer: Tokenizer) -> Callable[..., Path]:
    """`checkpoint(dtype="F16", n_shards=3)` writes a checkpoint's folder; it may be of other weights and sizes."""

    def make(weights: Weights = weights, config: Config = config, **options: Any) -> Path:
        return checkpoints.write_checkpoint(tmp_path, weights, config, tokenizer, **options)

    return make


@pytest.fixture
def cosines(config: Config) -> Callable[[Path, Weights], list[float]]:
    """`cosines(path, weights)`: of the vectors that llama.cpp and the oracle compute for texts of several scripts."""

    def compare(path: Path, weights: Weights) -> list[float]:
        found = []
        with LlamaEngine(path, EngineConfig(n_threads=1)) as engine:
            for text in ("The capital of China is Beijing.", "重力是一种力", "def embed(texts):"):
                ids = [*engine.tokenize(text), engine.eos_id]
                got, truth = engine.decode([ids])[0], oracle.embed(weights, config, ids)
                found.append(float(got @ truth / np.linalg.norm(got) / np.linalg.norm(truth)))
        return found

    return compare


@pytest.fixture(autouse=True)
def _loud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
