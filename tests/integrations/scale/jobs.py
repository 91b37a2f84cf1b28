"""A corpus that takes a while, the jobs of scripts/scale as processes, and what they must have left."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from cluster import kill

import q3e_local

ROOT = Path(__file__).parents[3]
DIM = 64
BAD = {5: None, 44: " ", 100: "cat " * 40_000}  # by id: texts that get no vector


def texts(n: int) -> dict[int, str | None]:
    """By id: texts of about 600 tokens, none twice, and some that get no vector."""
    numbers = random.Random(18)
    return {place: " ".join(str(numbers.randrange(1000)) for _ in range(300)) for place in range(n)} | BAD


def write_parquet(folder: Path, n: int) -> dict[int, str | None]:
    """Two files, whose row groups and partitions do not meet."""
    corpus = texts(n)
    folder.mkdir()
    table = pa.table({"id": list(corpus), "text": list(corpus.values()), "lang": ["en"] * n})
    for name, part in (("a.parquet", table.slice(0, n // 3)), ("b.parquet", table.slice(n // 3))):
        pq.write_table(part, folder / name, row_group_size=70)
    return corpus


def write_json_lines(path: Path, n: int) -> dict[int, str | None]:
    corpus = texts(n)
    lines = [json.dumps({"id": place, "text": text}) for place, text in corpus.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return corpus


@contextmanager
def started(log: Path, script: str, *arguments: object) -> Iterator[psutil.Popen]:
    """A job as a process that writes what it says to `log`, and is gone with all it started when the block ends."""
    command = [
        sys.executable,
        ROOT / "scripts" / "scale" / script,
        *map(str, arguments),
        "-m",
        "demo",
        "-d",
        str(DIM),
    ]
    with log.open("w") as stream:
        job = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=stream)
    try:
        yield job
    finally:
        kill(job)


def landed(output: Path) -> dict[str, str]:
    """By file of vectors: the process that made it, as `machine:id`."""
    files = [*(output / "vectors").glob("*.parquet")]
    return {path.name: json.loads(pq.read_metadata(path).metadata[b"done"])["process"] for path in files}


def n_from(output: Path, processes: list[psutil.Process]) -> int:
    """How many of the files that landed were made by these processes."""
    pids = {str(process.pid) for process in processes}
    return sum(process.rpartition(":")[2] in pids for process in landed(output).values())


def check_whole(output: Path, corpus: dict[int, str | None], embedder: q3e_local.Embedder) -> None:
    """Each text has one vector or one reason, and the vectors are those that the library gives."""
    vectors = pq.read_table(output / "vectors")
    rejected = pq.read_table(output / "rejected").to_pylist()
    ids = [int(place) for place in vectors.column("id").to_pylist()]
    assert sorted(ids) == sorted(corpus.keys() - BAD.keys())
    assert sorted(each["reason"].split(";")[0] for each in rejected) == [
        "has 80001 tokens, the limit is 32768", "is blank", "is missing",
    ]  # fmt: skip
    assert vectors.schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    made = np.stack(vectors.column("embedding").to_numpy())
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    some = range(0, len(ids), max(1, len(ids) // 40))
    expected = embedder.embed_documents([corpus[ids[row]] for row in some], DIM).vectors
    np.testing.assert_allclose(made[list(some)], expected, atol=1e-4)
    assert not (output / "unfinished").exists()
