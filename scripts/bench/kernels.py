"""How fast our kernels compute a product beside llama.cpp's own: one thread, CPU time, in turns.

    python scripts/bench/kernels.py [--type Q4_K] [--variant avx2]

The best of several rounds counts, so that whatever else the machine does matters little. The shapes are those of
Qwen3-Embedding 0.6B and 4B.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from q3e_local.llama import kernels, operation

TYPES = {"Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
SHAPES = ((1024, 2048), (1024, 3072), (3072, 1024), (2560, 9728), (9728, 2560))  # rows, depth
N_TOKENS = (16, 128, 512, 2048)
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", choices=TYPES, default="Q4_K", help="of the weights")
    parser.add_argument("--variant", default=kernels.chosen().variant, choices=kernels.variants())
    parser.add_argument("--tokens", type=int, nargs="+", default=N_TOKENS)
    options = parser.parse_args()
    print(f"{options.type}, ours: {options.variant}")
    print(f"{'rows':>6}{'depth':>7}{'tokens':>8}{'llama.cpp ms':>14}{'ours ms':>10}{'ratio':>7}{'ours GOPS':>11}")
    for n_rows, depth in SHAPES:
        for n_tokens in options.tokens:
            theirs, ours = compare(TYPES[options.type], n_rows, depth, n_tokens, options.variant)
            speed = 2e-9 * n_rows * depth * n_tokens / ours
            print(
                f"{n_rows:>6}{depth:>7}{n_tokens:>8}{1e3 * theirs:>14.2f}{1e3 * ours:>10.2f}"
                f"{theirs / ours:>7.2f}{speed:>11.0f}"
            )


def compare(kind: int, n_rows: int, depth: int, n_tokens: int, variant: str | None) -> tuple[float, float]:
    """CPU seconds of one product: by llama.cpp, by this variant."""
    random = np.random.default_rng(0)
    weights = operation.quantized(random.standard_normal((n_rows, depth), np.float32), kind)
    tokens = random.standard_normal((n_tokens, depth), np.float32)
    best = {None: float("inf"), variant: float("inf")}
    for _ in range(ROUNDS):
        for one in best:
            kernels.use(one)
            best[one] = min(best[one], seconds(weights, kind, tokens))
    return best[None], best[variant]


def seconds(weights: NDArray[np.uint8], kind: int, tokens: NDArray[np.float32]) -> float:
    """CPU seconds of a product, without those that go into its graph."""
    compute, spent = operation._compute, 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal spent
        begin = time.process_time()
        status = compute(*arguments)
        spent += time.process_time() - begin
        return status

    operation._compute = timed
    try:
        operation.product(weights, kind, tokens)
    finally:
        operation._compute = compute
    return spent


if __name__ == "__main__":
    main()
