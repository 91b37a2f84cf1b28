"""Attention by our kernels, held to a softmax in float64 of what keys and values stand for, and to llama.cpp."""

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
Mask = NDArray[np.float16]

TYPES = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30}
# AMX rounds to bfloat16: 2^-9 of each number, and as much again of each weight.
ROUNDING = {"amx": 2e-2}
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


def packed(lengths: list[int], n_keys: int) -> Mask:
    """Several texts one after the other, each of which sees itself alone; behind them free cells."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    seen = np.zeros((len(text), n_keys), bool)
    seen[:, : len(text)] = (text[:, None] == text) & np.tri(len(text), dtype=bool)
    return hidden_unless(seen)


def sharing(n_prefix: int, lengths: list[int], n_keys: int) -> Mask:
    """The same, and all of them see the first keys."""
    own = packed(lengths, n_keys - n_prefix)
    return np.concatenate([np.zeros((len(own), n_prefix), np.float16), own], axis=1)


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
    """Attention over numbers drawn by chance is as near to the exact one as rounding allows, and as llama.cpp's own.

    Our kernels computed it if and only if they are meant to.
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
    if n_queries >= MIN_QUERIES:
        # Scores of this size lose as many digits as they have before the point.
        assert ours <= ROUNDING.get(variant, 2e-6 * max(1, size))
    assert ours <= max(2 * theirs, 1e-6 * max(1, size), ROUNDING.get(variant, 0))


@pytest.mark.parametrize("n_queries", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 31, 64, 65, 119, 120, 121, 130])
def test_any_number_of_queries(variant, n_queries):
    check(variant, causal(n_queries, 150), n_queries, 150)


@pytest.mark.parametrize("n_keys", [1, 7, 8, 15, 16, 17, 31, 33, 127, 128, 129, 256, 300])
def test_any_number_of_keys(variant, n_keys):
    check(variant, None, 9, n_keys)
    check(variant, np.zeros((9, n_keys), np.float16), 9, n_keys)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("width", [64, 96, 128, 256])
def test_each_type_and_width(variant, name, width):
    check(variant, causal(70, 200), 70, 200, name, width)


@pytest.mark.parametrize("width", [16, 48, 80, 112])
def test_a_width_that_leaves_part_of_a_vector(variant, width):
    check(variant, causal(40, 70), 40, 70, "F16", width)


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 8])
def test_heads_that_share_keys(variant, group):
    check(variant, causal(37, 140), 37, 140, group=group)


@pytest.mark.parametrize("n_threads", range(1, 9))
def test_any_number_of_threads(variant, n_threads):
    check(variant, packed([30, 1, 60, 39], 256), 130, 256, n_key_heads=3, n_threads=n_threads)


def test_long_text(variant):
    check(variant, causal(512, 5512), 512, 5512, "F16", 128, n_key_heads=1)


def test_packed_texts(variant):
    check(variant, packed([32] * 16, 512), 512, 512)
    check(variant, packed([128] * 4, 768), 512, 768)
    check(variant, packed([1, 2, 200, 3, 50, 17, 90], 512), 363, 512)


def test_texts_that_share_a_prefix(variant):
    check(variant, sharing(200, [40, 3, 70], 512), 113, 512)
    check(variant, sharing(5, [1] * 20, 256), 20, 256)


def test_keys_are_seen_with_gaps(variant):
    random = np.random.default_rng(0)
    for share in (0.003, 0.1, 0.9):
        check(variant, hidden_unless(random.random((50, 400)) < share), 50, 400)


def test_queries_that_see_nothing_get_zeros(variant):
    seen = np.tri(60, 300, 240, dtype=bool)
    seen[[0, 7, 8, 59]] = False
    seen[20, :299] = False
    check(variant, hidden_unless(seen), 60, 300)
    check(variant, hidden_unless(np.zeros((60, 300), bool)), 60, 300)


def test_mask_of_any_numbers(variant):
    bias = (3 * np.random.default_rng(0).standard_normal((50, 200))).astype(np.float16)
    check(variant, bias, 50, 200)
    check(variant, bias + causal(50, 200), 50, 200)
    check(variant, np.full((50, 200), -65504, np.float16), 50, 200, size=1000)


def test_large_scores(variant):
    check(variant, causal(50, 200), 50, 200, size=100)


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
    check(
        variant,
        data.draw(st.sampled_from(masks), "mask"),
        n_queries,
        n_keys,
        data.draw(st.sampled_from(list(TYPES)), "type"),
        32 * data.draw(st.integers(1, 8), "width"),
        data.draw(st.integers(1, 3), "key heads"),
        data.draw(st.integers(1, 9), "group"),
        data.draw(st.integers(1, 8), "threads"),
    )
