"""Vectors of the same texts that were computed apart.

What shares a batch with a text decides which kernel computes it: ours takes products of four tokens and more, on some
CPUs, and llama.cpp's the others. So the last digits differ, and where a value lies between two numbers of Q8_0 it
may become the other of them: a step is 1/127 of the largest of 32 numbers, up to 3e-3 in the vector of a short text.
Vectors of other texts are 50 times as far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def assert_alike(got: ArrayLike, wanted: ArrayLike) -> None:
    """Fail unless both have the same shape and, within what is said above, the same numbers."""
    found, expected = np.asarray(got, np.float32), np.asarray(wanted, np.float32)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-3)
