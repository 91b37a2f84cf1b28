"""Near-duplicates among many vectors, time and memory: `scripts/bench/duplicates.py [--rows 100000] [--dim 1024]`.

The vectors are synthetic: themes of about a hundred texts, scores of about 0.3 between themes, and for one text in
fifty a near-duplicate at a score of about 0.97. `--whole` compares whole rows instead of a quarter of each first.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np

from q3e_local import jobs
from q3e_local.jobs import grouping
from q3e_local.vectors import Vectors, finish

_BLOCK = 8192


def synthetic(n_rows: int, dim: int) -> tuple[Vectors, int]:
    """Unit rows, and how many of them are near-duplicates of an earlier one."""
    random = np.random.default_rng(0)
    falling = (1 + np.arange(dim)) ** -0.25  # first numbers say most, as MRL trains them to
    common = random.standard_normal(dim)
    themes = common + random.standard_normal((max(1, n_rows // 100), dim))
    vectors = np.empty((n_rows, dim), np.float32)
    n_near = n_rows // 50
    for start in range(0, n_rows, _BLOCK):
        n = min(_BLOCK, n_rows - start)
        rows = (themes[random.integers(len(themes), size=n)] + random.standard_normal((n, dim))) * falling
        vectors[start : start + n] = finish(rows.astype(np.float32))
    noise = 0.25 * finish((random.standard_normal((n_near, dim)) * falling).astype(np.float32))
    places = random.permutation(n_rows)[: 2 * n_near]
    vectors[places[:n_near]] = finish(vectors[places[n_near:]] + noise)
    return vectors, n_near


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    vectors, n_near = synthetic(options.rows, options.dim)
    if options.whole:
        grouping._DIM_WORTH_CUTTING = options.dim + 1
    sample = vectors[:2000] @ vectors[:2000].T
    tracemalloc.start()
    began, began_cpu = time.perf_counter(), time.process_time()
    found = jobs.duplicates(vectors, options.threshold)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    more = tracemalloc.get_traced_memory()[1] / 1e6
    print(f"{options.rows:,} rows of {options.dim}, median score {np.median(sample):.2f}")
    print(f"{seconds:.1f} s, {cpu_s:.1f} s of CPU")
    print(f"{found.n_redundant:,} could go, {n_near:,} were made; {more:.0f} MB beside the vectors at most")


if __name__ == "__main__":
    main()
