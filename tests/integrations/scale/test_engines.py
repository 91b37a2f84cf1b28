"""The recipes of docs/scale.md run as they stand, each in a process of its own, and give the library's vectors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from q3e_local import machine

PAGE = (Path(__file__).parents[3] / "docs" / "scale.md").read_text(encoding="utf-8")
RECIPES = {
    re.search(r"with-(\w+)", code)[1]: code for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
}
TEXTS = {1: "The neighbour fed the cat.", 2: "邻居喂了猫。", 3: None, 4: "Prices fell in May."}
GRANTED = "from q3e_local.batches.threads import granted_threads"
TWO_TASKS = """
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(1, threads_per_worker=2, dashboard_address=None, host="127.0.0.1") as cluster:
        with Client(cluster) as client:
            print("granted", client.submit(granted_threads).result())
"""


def run(code: str, folder: Path, **environment: str) -> str:
    """What the code says on stdout."""
    pq.write_table(pa.table({"id": list(TEXTS), "text": list(TEXTS.values())}), folder / "corpus.parquet")
    (folder / "recipe.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "recipe.py"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(folder: Path, embedder, texts: dict[int, str | None] = TEXTS) -> None:
    rows = {row["id"]: row for path in folder.rglob("*.parquet") for row in pq.read_table(path).to_pylist()}
    assert rows.keys() == texts.keys()
    good = [place for place, text in texts.items() if text is not None]
    expected = embedder.embed_documents([texts[place] for place in good], 128).vectors
    np.testing.assert_allclose([rows[place]["embedding"] for place in good], expected, atol=1e-5)
    if 3 in texts:
        assert (rows[3]["embedding"], rows[3]["embedding_error"]) == (None, "is missing")


def test_the_page_has_a_recipe_for_each_engine():
    assert sorted(RECIPES) == ["daft", "dask", "ray", "spark"]


def test_ray(ray_nodes, embedder, tmp_path):
    told = "print('granted', ray.get(ray.remote(num_cpus=1)(lambda: granted_threads()).remote()))"
    said = run("\n".join([RECIPES["ray"], GRANTED, told]), tmp_path, RAY_ADDRESS=ray_nodes[0])
    check(tmp_path / "with-ray", embedder)
    assert "granted 1\n" in said


@pytest.mark.skipif(
    shutil.which("java") is None, reason="Spark needs a Java runtime, as Debian's default-jre-headless"
)
def test_spark(embedder, tmp_path):
    told = "print('granted', spark.sparkContext.parallelize([0], 1).map(lambda _: granted_threads()).collect()[0])"
    said = run("\n".join([RECIPES["spark"], GRANTED, told]), tmp_path, PYSPARK_PYTHON=sys.executable)
    check(tmp_path / "with-spark", embedder)
    assert "granted 1\n" in said


def test_dask(embedder, tmp_path):
    run(RECIPES["dask"], tmp_path)
    check(tmp_path / "with-dask", embedder)
    assert f"granted {min(2, machine.physical_cores())}\n" in run(GRANTED + TWO_TASKS, tmp_path)


def test_daft(embedder, tmp_path):
    run(RECIPES["daft"], tmp_path)
    check(tmp_path / "with-daft", embedder, {place: text for place, text in TEXTS.items() if text is not None})
