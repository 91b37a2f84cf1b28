"""What is done to vectors, held to plain float64 arithmetic."""

from __future__ import annotations

import base64
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from q3e_local import vectors as v

NUMBERS = st.floats(-(2.0**60), 2.0**60, width=32).filter(lambda x: x == 0 or abs(x) > 1e-18)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 40))
POOLED = st_np.arrays(np.float32, SHAPES, elements=NUMBERS)
STORED = {"float32": "<f4", "float16": "<f2", "int8": "i1", "binary": "u1"}


def units(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# finish


def test_finish_cuts_and_then_scales():
    pooled = np.array([[3, 4, 12], [0, -5, 0]], np.float32)
    np.testing.assert_allclose(v.finish(pooled, 2), [[0.6, 0.8], [0, -1]], rtol=1e-7)
    np.testing.assert_allclose(v.finish(pooled), [[3 / 13, 4 / 13, 12 / 13], [0, -1, 0]], rtol=1e-7)


@given(pooled=POOLED, dim=st.none() | st.integers(1, 40))
def test_finish_gives_unit_rows_of_float32_and_leaves_its_input(pooled, dim):
    before, n_kept = pooled.copy(), min(dim or 40, pooled.shape[1])
    rows = v.finish(pooled, dim)
    np.testing.assert_array_equal(pooled, before)
    assert rows.dtype == np.float32
    assert rows.shape == (len(pooled), n_kept)
    assert rows.flags.c_contiguous
    for row, given_row in zip(rows, pooled[:, :n_kept].astype(np.float64), strict=True):
        if np.linalg.norm(given_row) > 1e-12:
            np.testing.assert_allclose(np.linalg.norm(row), 1, rtol=1e-6)
            np.testing.assert_allclose(row, given_row / np.linalg.norm(given_row), atol=1e-6)


# scores and top_k


def test_scores_are_cosines_of_each_query_with_each_document():
    queries, documents = units(3, 50), units(4, 50, seed=1)
    expected = [[float(np.dot(q.astype(np.float64), d)) for d in documents] for q in queries]
    np.testing.assert_allclose(v.scores(queries, documents), expected, atol=1e-6)


@given(
    scores=st_np.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=st.floats(-1, 1, width=32)
    ),
    k=st.integers(0, 35),
)
def test_top_k_scores_are_those_of_a_full_sort(scores, k):
    columns, best = v.top_k(scores, k)
    np.testing.assert_array_equal(best, -np.sort(-scores, axis=1)[:, :k])
    np.testing.assert_array_equal(best, np.take_along_axis(scores, columns, axis=1))
    assert all(len(set(row)) == len(row) for row in columns.tolist())


# Smaller forms


@given(pooled=POOLED)
def test_int8_codes_use_the_whole_range_and_come_back_within_half_a_step(pooled):
    rows = v.finish(pooled)
    codes, scales = v.to_int8(rows)
    assert codes.dtype == np.int8
    assert scales.shape == (len(rows), 1)
    for row, row_codes, scale in zip(rows, codes, scales, strict=True):
        if row.any():
            assert np.abs(row_codes.astype(int)).max() == 127
        np.testing.assert_allclose(row_codes * scale, row, atol=0.5001 * float(scale[0]) + 1e-30)
    np.testing.assert_array_equal(v.to_int8(-rows)[0], -codes)


def test_int8_cosines_need_no_scales_and_are_close():
    a, b = units(50, 1024), units(50, 1024, seed=1)
    codes_a, codes_b = (v.to_int8(rows)[0].astype(np.float64) for rows in (a, b))
    norms = np.linalg.norm(codes_a, axis=1)[:, None] * np.linalg.norm(codes_b, axis=1)
    np.testing.assert_allclose(codes_a @ codes_b.T / norms, v.scores(a, b), atol=0.002)


@given(pooled=POOLED)
def test_binary_has_one_bit_for_each_number_highest_first(pooled):
    packed = v.to_binary(pooled)
    dim = pooled.shape[1]
    assert packed.dtype == np.uint8
    assert packed.shape == (len(pooled), -(-dim // 8))
    for row, row_bytes in zip(pooled, packed, strict=True):
        bits = "".join(f"{byte:08b}" for byte in row_bytes)
        assert bits == "".join("1" if x > 0 else "0" for x in row) + "0" * (-dim % 8)


@pytest.mark.parametrize(("dtype", "stored"), STORED.items())
def test_each_dtype_is_stored_as_it_says(dtype, stored):
    rows = units(3, 40)
    made = v.to_dtype(rows, dtype)
    assert made.dtype == np.dtype(stored)
    assert made.shape == ((3, 5) if dtype == "binary" else (3, 40))
    if dtype.startswith("float"):
        np.testing.assert_allclose(made.astype(np.float32), rows, rtol=1e-3, atol=1e-6)


@given(row=st_np.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=False)))
def test_base64_is_little_endian_float32(row):
    raw = base64.b64decode(v.to_base64(row), validate=True)
    assert list(struct.unpack(f"<{len(row)}f", raw)) == row.tolist()
    assert v.to_base64(row.astype(">f4")) == v.to_base64(row)
