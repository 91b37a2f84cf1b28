"""What the tests of the engine share: tiny models, sequences of ids, and the oracle's vectors of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import oracle
import pytest
import tiny
from engines import LENGTHS, N_CTX, Expected, MakeGguf, Sequences, Truth, small
from oracle import Config, Weights
from tokenizers import Tokenizer

from q3e_local.llama.engine import LlamaEngine


@pytest.fixture(scope="session")
def truth(weights: Weights, config: Config) -> Truth:
    return lambda sequences: np.stack([oracle.embed(weights, config, ids) for ids in sequences])


@pytest.fixture(scope="session")
def sequences(eos_id: int) -> Sequences:
    """One random sequence of each length."""
    rng = np.random.default_rng(1)
    return {n: [*rng.integers(0, tiny.N_VOCAB - 10, n - 1).tolist(), eos_id] for n in LENGTHS}


@pytest.fixture(scope="session")
def expected(sequences: Sequences, truth: Truth) -> Expected:
    """The oracle's vector of each of `sequences`."""
    return {n: truth([ids])[0] for n, ids in sequences.items()}


@pytest.fixture(scope="session")
def f32(tiny_gguf: MakeGguf) -> Path:
    return tiny_gguf("f32", context_length=N_CTX)


@pytest.fixture(scope="module")
def engine(f32: Path) -> Iterator[LlamaEngine]:
    with LlamaEngine(f32, small()) as engine:
        yield engine


@pytest.fixture(scope="session")
def changed(
    tmp_path_factory: pytest.TempPathFactory, weights: Weights, config: Config, tokenizer: Tokenizer
) -> Callable[[Callable[[Weights], Weights]], Path]:
    """`changed(broken)`: the file of a model whose weights were changed, written on first use."""
    folder = tmp_path_factory.mktemp("changed")

    def path(change: Callable[[Weights], Weights]) -> Path:
        target = folder / f"{change.__name__}.gguf"
        return target if target.exists() else tiny.write_gguf(target, change(weights), config, tokenizer)

    return path
