"""Texts a second from the cache, through the library: `scripts/bench/cache_hits.py [--dim 1024] [--cache PLACE]`.

The engine is a stand-in that answers random vectors at once: what is measured is everything but the model. The texts
have 570 characters, about 128 tokens. The first pass writes; the others read, each with the file opened anew.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from q3e_local.cache.choose import open_cache
from q3e_local.embedding.embedder import Embedder


class RandomEngine:
    """Bytes are tokens."""

    digest, eos_id, added_tokens = "be" * 32, 256, ("<|endoftext|>",)
    n_ctx_max, n_keepable, n_batch, n_seq_max = 32_768, 32_768, 8_192, 64

    def __init__(self, n_embd: int) -> None:
        self.n_embd, self._random = n_embd, np.random.default_rng(0)

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        return self._random.standard_normal((len(sequences), self.n_embd)).astype(np.float32)

    def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=1024, help="of the model")
    parser.add_argument("--cut", type=int, help="the dim that is asked for")
    parser.add_argument("--cache", help="a path or redis://host:port/db [a new file]")
    options = parser.parse_args()
    texts = [f"{number} " + "measure " * 70 for number in range(options.texts)]
    with tempfile.TemporaryDirectory() as folder:
        place = options.cache or Path(folder) / "vectors.sqlite"
        for turn in range(6):
            with Embedder(RandomEngine(options.dim), "stand-in", cache=open_cache(place)) as embedder:
                began, began_cpu = time.perf_counter(), time.process_time()
                result = embedder.embed_documents(texts, options.cut)
                seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
            what = "written" if turn == 0 else "read"
            rate, cost = len(texts) / seconds, cpu_s / len(texts) * 1e6
            print(f"{what}: {rate:,.0f} texts/s, {cost:.0f} µs of CPU each, {sum(result.cached):,} from the cache")


if __name__ == "__main__":
    main()
