"""Attention by our kernels inside llama.cpp, held to a softmax in float64 of what keys and values stand for.

Each edge of each shape is the business of kernels/check, which knows nothing of llama.cpp: see test_check.py.
"""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType, quants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from q3e_local.llama.kernels import in_use, operation

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mask = NDArray[np.float16]

TYPES = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30}
# AMX has two bfloat16 numbers for each: it rounds by 2^-18 of queries, keys, values and weights.
ROUNDING = {"amx": 2e-5}
MIN_QUERIES = 2


def attended(query: Doubles, key: Doubles, value: Doubles, mask: Mask | None, scale: float) -> Doubles:
    """The definition, one head at a time; a query that sees nothing gets zeros."""
    group = query.shape[1] // key.shape[1]
    found = np.zeros_like(query)
    for head in range(query.shape[1]):
        scores = scale * query[:, head] @ key[:, head // group].T
        if mask is not None:
            scores = scores + mask.astype(np.float64)
        largest = scores.max(axis=1, keepdims=True)
        weights = np.exp(scores - np.where(np.isinf(largest), 0, largest))
        sums = weights.sum(axis=1, keepdims=True)
        found[:, head] = (
            np.divide(weights, sums, where=sums > 0, out=np.zeros_like(weights)) @ value[:, head // group]
        )
    return found


def stored(numbers: Floats, name: str) -> tuple[NDArray[np.uint8], Doubles]:
    """Keys or values (n_keys, n_key_heads, width) as this type has them, and the numbers that they stand for."""
    n_keys, n_heads, width = numbers.shape
    raw = operation.quantized(numbers.reshape(-1, width), TYPES[name])
    exact = quants.dequantize(raw, GGMLQuantizationType[name]).astype(np.float64)
    return raw.reshape(n_keys, n_heads, -1), exact.reshape(numbers.shape)


def hidden_unless(seen: NDArray[np.bool_]) -> Mask:
    return np.where(seen, 0, -np.inf).astype(np.float16)


def causal(n_queries: int, n_keys: int) -> Mask:
    return hidden_unless(np.tri(n_queries, n_keys, n_keys - n_queries, dtype=bool))


def check(
    variant: str,
    mask: Mask | None,
    n_queries: int,
    n_keys: int,
    name: str = "F16",
    width: int = 64,
    n_key_heads: int = 2,
    group: int = 2,
    n_threads: int = 2,
    size: float = 1,
) -> None:
    """Assert that attention over random numbers is as near to the exact result as rounding allows, and llama.cpp's.

    Asserts too that our kernels take the operation if they are meant to, and only then.
    """
    random = np.random.default_rng([n_queries, n_keys, width, group])
    query = (size * random.standard_normal((n_queries, n_key_heads * group, width))).astype(np.float32)
    (key, exact_key), (value, exact_value) = (
        stored(random.standard_normal((n_keys, n_key_heads, width)).astype(np.float32), name) for _ in range(2)
    )
    expected = attended(query.astype(np.float64), exact_key, exact_value, mask, width**-0.5)

    def error() -> float:
        found = operation.attention(query, key, value, TYPES[name], mask, width**-0.5, n_threads)
        return float(np.abs(found - expected).max() / (np.abs(exact_value).max() + 1e-30))

    before = in_use.counts().attentions
    ours = error()
    assert in_use.counts().attentions - before == (n_queries >= MIN_QUERIES)
    in_use.use(None)
    theirs = error()
    in_use.use(variant)
    # Scores of this size lose as many digits as they have before the point.
    bound = ROUNDING.get(variant, 2e-6) * max(1, size)
    if n_queries >= MIN_QUERIES:
        assert ours <= bound
    assert ours <= max(2 * theirs, bound / 2)


def test_mask_of_any_numbers(variant):
    bias = (3 * np.random.default_rng(0).standard_normal((50, 200))).astype(np.float16)
    check(variant, bias, 50, 200)
    check(variant, bias + causal(50, 200), 50, 200)
    check(variant, np.full((50, 200), -65504, np.float16), 50, 200, size=1000)
    check(variant, causal(50, 200), 50, 200, size=100)


def test_heads_that_do_not_fill_a_tile_are_ours_too(variant):
    """AMX left them to llama.cpp, where any other variant computes them."""
    check(variant, causal(40, 64), 40, 64, width=16)


def test_what_is_hidden_is_not_read(variant):
    random = np.random.default_rng(0)
    query = random.standard_normal((40, 2, 64)).astype(np.float32)
    key, value = random.standard_normal((2, 512, 2, 64)).astype(np.float16)
    mask = hidden_unless(np.arange(512) < np.full((40, 1), 200))
    expected = operation.attention(
        query, key[:200].view(np.uint8), value[:200].view(np.uint8), operation.F16, None, 1
    )
    key[256:] = value[256:] = np.nan
    found = operation.attention(query, key.view(np.uint8), value.view(np.uint8), operation.F16, mask, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_number_that_is_none_shows(variant):
    random = np.random.default_rng(0)
    query = random.standard_normal((40, 2, 64)).astype(np.float32)
    key, value = random.standard_normal((2, 96, 2, 64)).astype(np.float16)
    query[17, 1, 5] = np.nan
    found = operation.attention(query, key.view(np.uint8), value.view(np.uint8), operation.F16, None, 1)
    assert np.isnan(found[17, 1]).all()
    assert np.isfinite(np.delete(found, 17, axis=0)).all()


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape_and_mask(variant, data):
    n_queries = data.draw(st.integers(1, 130), "queries")
    n_keys = data.draw(st.integers(1, 300), "keys")
    random = np.random.default_rng(data.draw(st.integers(0, 1000), "seed"))
    first = random.integers(0, n_keys, (n_queries, 1))
    last = random.integers(0, n_keys + 1, (n_queries, 1))
    places = np.arange(n_keys)
    masks = [None, hidden_unless((first <= places) & (places < last)), hidden_unless(places < last)]
    name = data.draw(st.sampled_from(list(TYPES)), "type")
    check(
        variant,
        data.draw(st.sampled_from(masks), "mask"),
        n_queries,
        n_keys,
        name,
        data.draw(st.sampled_from([n for n in range(16, 257, 16) if name != "Q8_0" or n % 32 == 0]), "width"),
        data.draw(st.integers(1, 3), "key heads"),
        data.draw(st.integers(1, 9), "group"),
        data.draw(st.integers(1, 8), "threads"),
    )
