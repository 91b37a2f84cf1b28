"""What is done to vectors: cut, scale, compare, pack into smaller forms.

Knows numpy alone: nothing of models, texts or files. Vectors are float32, shape (n, dim), rows of length 1.
"""

from __future__ import annotations

import base64
import io
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

Dtype = Literal["float32", "float16", "int8", "binary"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


def finish(pooled: Vectors, dim: int | None = None) -> Vectors:
    """Cut pooled vectors (n, n_embd) to `dim` and scale each row to length 1.

    MRL truncation as the model card describes it: the first `dim` numbers, then L2.
    """
    cut = pooled if dim is None else pooled[:, :dim]
    # In float64: the squares of a large hidden state overflow nothing, and rows come out at length 1 to float32.
    norms = np.linalg.norm(cut.astype(np.float64), axis=1, keepdims=True)
    return np.ascontiguousarray(cut / np.maximum(norms, 1e-12), dtype=np.float32)


def scores(queries: Vectors, documents: Vectors) -> Vectors:
    """Cosine similarities (n_queries, n_documents) of unit rows: their dot products."""
    return queries @ documents.T


def top_k(scores: Vectors, k: int) -> tuple[NDArray[np.intp], Vectors]:
    """The `k` highest scores of each row, best first: column numbers and scores, both (n, min(k, n_columns)).

    Of equal scores those of the lower columns come first.
    """
    k = min(k, scores.shape[1])
    if k == 0:
        return np.empty((scores.shape[0], 0), np.intp), scores[:, :0]
    nearest = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    least = np.take_along_axis(scores, nearest, axis=1).min(axis=1, keepdims=True)
    # Where several columns share the last place, the partition took any of them.
    for row in np.flatnonzero((scores >= least).sum(axis=1) > k):
        nearest[row] = np.sort(np.argsort(-scores[row], kind="stable")[:k])
    order = np.argsort(-np.take_along_axis(scores, nearest, axis=1), axis=1, kind="stable")
    columns = np.take_along_axis(nearest, order, axis=1)
    return columns, np.take_along_axis(scores, columns, axis=1)


def to_int8(vectors: Vectors) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes (n, dim) and scales (n, 1), with `vectors ≈ codes * scales`.

    Each row is scaled so that its largest number becomes 127 (symmetric, zero stays zero). Cosine similarity
    of the codes needs no scales; a dot product does.
    """
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    scales = (largest / np.float32(127)).astype(np.float32)
    # 127 times the ratio rather than a division by the scale, which rounds a second time.
    codes = np.rint(vectors / largest * 127).astype(np.int8)
    return codes, scales


def to_binary(vectors: Vectors) -> NDArray[np.uint8]:
    """One bit a number, 1 where it is positive: (n, ceil(dim / 8)) bytes, first number in the highest bit.

    The same as `ubinary` of sentence-transformers and Cohere. Compare by Hamming distance; a last byte that
    `dim` does not fill ends in zero bits.
    """
    return np.packbits(vectors > 0, axis=1)


def to_dtype(vectors: Vectors, dtype: Dtype) -> NDArray[Any]:
    """The vectors (n, dim) as a store takes them: unchanged, in half precision, as int8 codes or packed bits."""
    if dtype == "int8":
        return to_int8(vectors)[0]
    if dtype == "binary":
        return to_binary(vectors)
    return vectors.astype(dtype, copy=False)


def npy_header(dtype: np.dtype[Any], n_rows: int, dim: int) -> bytes:
    """How a `.npy` begins that has so many rows. NumPy pads it, so that it is as long for any number of rows."""
    header = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n_rows, dim)}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def to_base64(row: NDArray[Any]) -> str:
    """Standard base64 of the row's bytes, little-endian, as OpenAI's `encoding_format: base64`."""
    return base64.b64encode(row.astype(row.dtype.newbyteorder("<"), copy=False).tobytes()).decode("ascii")
