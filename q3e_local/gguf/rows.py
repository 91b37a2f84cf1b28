"""Read single rows of a matrix in a model file as float32, whatever type the file keeps them in.

Leaves the types' formats to the package `gguf`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from q3e_local.gguf.header import Tensor
from q3e_local.gguf.model_kind import AnswerRows


def read_rows(path: Path, tensor: Tensor, rows: Sequence[int]) -> NDArray[np.float32]:
    """Rows (len(rows), row length) by their numbers, which the caller has checked. Reads no other row."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    n_bytes = tensor.size_bytes // prod(tensor.shape[1:])
    stored = np.empty((len(rows), n_bytes), np.uint8)
    with path.open("rb") as file:
        for place, row in enumerate(rows):
            file.seek(tensor.offset + row * n_bytes)
            stored[place] = np.frombuffer(file.read(n_bytes), np.uint8)
    return np.ascontiguousarray(dequantize(stored, GGMLQuantizationType[tensor.type_name]), np.float32)


def difference(path: Path, answers: AnswerRows) -> NDArray[np.float64]:
    """The row of "yes" less that of "no" (n_embd, 1): its product with a hidden state is a reranker's logit."""
    numbers = [answers.yes] if answers.no is None else [answers.yes, answers.no]
    yes, *no = read_rows(path, answers.tensor, numbers).astype(np.float64)
    column: NDArray[np.float64] = (yes - no[0] if no else yes)[:, None]
    return column
