"""Products by our kernels inside llama.cpp, held to float64 products of what weights and rounded tokens stand for.

Each edge of each shape is the business of kernels/check, which knows nothing of llama.cpp: see test_check.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from q3e_local.llama.kernels import in_use, operation

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

TYPES = {kind.name: int(kind) for kind in GGMLQuantizationType if kind.name in ("Q4_K", "Q5_K", "Q6_K", "Q8_0")}
# What AVX2 has no fast way for, and what AMX computes in bfloat16, which these tests know nothing of.
LEFT_ALONE = {("avx2", "Q8_0")}
OTHER_ARITHMETIC = {"amx"}
MIN_TOKENS = 4


def rounded(tokens: Floats, group: int) -> Doubles:
    """The tokens as ggml rounds them: 127 steps from 0 to the largest of a group, ties to even."""
    parts = tokens.reshape(len(tokens), -1, group)
    largest = np.abs(parts).max(axis=2, keepdims=True)
    factor = np.divide(np.float32(127), largest, where=largest > 0, out=np.zeros_like(largest))
    step = np.divide(np.float32(1), factor, where=factor > 0, out=np.zeros_like(largest))
    codes = np.rint(parts * factor)
    return (codes.astype(np.float64) * step).reshape(tokens.shape)


def step_of(tokens: Floats, group: int) -> Doubles:
    """Per number, the distance of two neighbours of what it may be rounded to."""
    parts = np.abs(tokens.astype(np.float64)).reshape(len(tokens), -1, group)
    return np.broadcast_to(parts.max(axis=2, keepdims=True) / 127, parts.shape).reshape(tokens.shape)


def weights_of(random: np.random.Generator, n_rows: int, depth: int, name: str) -> NDArray[np.uint8]:
    # Groups of very different size, so that each scale matters.
    size = np.exp(random.normal(0, 1.5, (n_rows, depth // 16, 1)))
    plain = random.standard_normal((n_rows, depth // 16, 16)) * size + 0.3 * size
    return operation.quantized(plain.reshape(n_rows, depth).astype(np.float32), TYPES[name])


def tokens_of(random: np.random.Generator, n_tokens: int, depth: int) -> Floats:
    size = np.exp(random.normal(0, 1.5, (n_tokens, depth // 32, 1)))
    return (random.standard_normal((n_tokens, depth // 32, 32)) * size).reshape(n_tokens, depth).astype(np.float32)


def check(variant: str, name: str, weights: NDArray[np.uint8], tokens: Floats, n_threads: int = 2) -> None:
    """Compute a product. If our kernel took it, hold it to the exact product, and to that of the rounded tokens."""
    before = in_use.counts().products
    found = operation.product(weights, TYPES[name], tokens, n_threads).astype(np.float64)
    taken = len(tokens) >= MIN_TOKENS and (variant, name) not in LEFT_ALONE
    assert in_use.counts().products - before == taken
    if not taken:
        return

    exact = quants.dequantize(weights, GGMLQuantizationType[name]).astype(np.float64)
    group = 32 if name == "Q8_0" else 256
    terms = np.abs(tokens.astype(np.float64)) @ np.abs(exact).T
    bound = step_of(tokens, group) @ np.abs(exact).T / 2 + 1e-6 * terms  # half a step for each number
    assert (np.abs(found - tokens @ exact.T) <= bound).all()
    if variant not in OTHER_ARITHMETIC:
        assert (np.abs(found - rounded(tokens, group) @ exact.T) <= 1e-6 * terms).all()


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("n_threads", range(1, 9))
def test_any_number_of_threads(variant, name, n_threads):
    random = np.random.default_rng(2)
    weights, tokens = weights_of(random, 200, 768, name), tokens_of(random, 50, 768)
    check(variant, name, weights, tokens, n_threads)
    # The numbers of a row are added up by a single thread in a fixed order, whatever thread and neighbours it has.
    together = operation.product(weights, TYPES[name], tokens)
    np.testing.assert_array_equal(operation.product(weights, TYPES[name], tokens, n_threads), together)
    np.testing.assert_array_equal(operation.product(weights, TYPES[name], tokens[7:], n_threads), together[7:])


@pytest.mark.parametrize("name", TYPES)
def test_zeros_and_extremes(variant, name):
    random = np.random.default_rng(5)
    tokens = tokens_of(random, 32, 512)
    tokens[0] = 0
    tokens[1, :256] = 0
    tokens[2] = 1
    tokens[3] = -1
    tokens[4] = np.where(np.arange(512) % 2, 1e-30, -1e-30)
    tokens[5] *= np.float32(1e30)
    tokens[6, 100] = 1e6
    # The largest codes everywhere meet the largest numbers: whatever sums the kernel keeps must hold that.
    rows = np.stack([np.ones(512), -np.ones(512), np.tile([1, -1], 256), np.tile([0, 1], 256), np.zeros(512)])
    check(variant, name, operation.quantized(rows.astype(np.float32), TYPES[name]), tokens)


@pytest.mark.parametrize("name", TYPES)
def test_weights_of_any_bits(variant, name):
    """Codes, scales and mins that no quantizer would write."""
    random = np.random.default_rng(6)
    weights = weights_of(random, 37, 512, name)
    n_bytes = weights.shape[1] // (16 if name == "Q8_0" else 2)
    blocks = weights.reshape(-1, n_bytes)
    halves = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q8_0": (0,)}[name]
    kept = np.array([place + i for place in halves for i in (0, 1)])  # float16 numbers, which may not become NaN
    noise = random.integers(0, 256, blocks.shape, np.uint8)
    noise[random.random(len(blocks)) < 0.3] = 255
    noise[:, kept] = blocks[:, kept]
    tokens = tokens_of(random, 29, 512)
    tokens[3], tokens[4] = 1, -1
    check(variant, name, noise.reshape(weights.shape), tokens)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(TYPES)),
    n_rows=st.integers(1, 150),
    n_blocks=st.integers(1, 11),
    n_tokens=st.integers(1, 70),
    n_threads=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(variant, name, n_rows, n_blocks, n_tokens, n_threads, seed):
    random = np.random.default_rng(seed)
    weights, tokens = weights_of(random, n_rows, 256 * n_blocks, name), tokens_of(random, n_tokens, 256 * n_blocks)
    check(variant, name, weights, tokens, n_threads)


def test_a_variant_that_is_not_there_cannot_be_used():
    with pytest.raises(in_use.OptionError, match="no-such kernels cannot be used: it is not compiled in"):
        in_use.use("no-such")
