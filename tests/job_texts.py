"""Texts and vectors for the jobs, and what the jobs' commands print of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from command import demo, expected, run

from q3e_local.search.database import Database
from q3e_local.search.database.records import Chunk, FileRecord, IndexSpace
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


def index(path: Path, chunks: list[Chunk], ids: Sequence[str] = ()) -> None:
    """An index of these chunks: the last of them were put under `ids`, the others are of a file."""
    vectors = expected([chunk.text for chunk in chunks]).vectors
    n_in_file = len(chunks) - len(ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Database.create(path, IndexSpace("demo", demo().engine.digest, 256)) as database:
        database.replace_file(FileRecord("a/notes.txt", 1, 1, "d"), chunks[:n_in_file], vectors[:n_in_file])
        database.put(list(ids), chunks[n_in_file:], vectors[n_in_file:])


def npy(path: Path, vectors: np.ndarray, space: str) -> None:
    """A .npy and the facts of its rows, as `embed` writes both, of texts that nobody has."""
    np.save(path, vectors)
    facts = [{"index": row, "id": "x", "text_sha256": "0", "space": space} for row in range(len(vectors))]
    path.with_name(f"{path.name}.rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in facts))


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
