"""Texts and vectors for the jobs, and what the jobs' commands print of them."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
from command import expected, run

from q3e_local.vectors import finish

LINES = [
    "the cat sat on the mat",
    "the cat sat on a mat",
    "预算获得批准",
    "预算已经获得批准",
    "the cat sat on the mat",
    "prices fell in May",
]


def objects(*arguments, code=0, **options):
    result = run(*arguments, **options)
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def scores(texts=LINES, **options):
    vectors = expected(texts, **options).vectors
    return vectors @ vectors.T


def unit(*angles: float) -> np.ndarray:
    """Rows on the circle: the score of two is the cosine of the angle between them, in degrees."""
    radians = np.radians(np.array(angles, np.float64))
    return np.column_stack([np.cos(radians), np.sin(radians)]).astype(np.float32)


def rows(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return finish(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def themes(sizes: list[int], noise: float, dim: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around as many centres as there are sizes, in order, and the number of each row's centre."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return finish(rows(len(sizes), dim, seed)[labels] + noise * rows(sum(sizes), dim, seed + 1)), labels
