"""`python gated_engine.py ARGUMENTS`: q3e-local on a fake engine that computes a batch when the test lets it.

As llama.cpp, it computes on a thread of its own that nothing can interrupt, and closing it waits for the batch. In
the folder GATES there is a file `begun-N` once batch N is at work, and it waits there for a file `open-N`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from fake import FakeEngine

import q3e_local
from q3e_local.cli import main
from q3e_local.embedding.embedder import Embedder

GATES = Path(os.environ["GATES"])


class GatedEngine(FakeEngine):
    """The fake engine behind gates. A batch whose number is in `LOUD` logs a warning, and prints one, meanwhile.

    Another DIGEST makes it another model.
    """

    def __init__(self) -> None:
        super().__init__(n_ctx_max=1000, n_batch=64, n_seq_max=8)
        self.digest = hashlib.sha256(os.environ.get("DIGEST", "").encode()).hexdigest()
        self._owner = ThreadPoolExecutor(1)

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        future = self._owner.submit(self._decode, sequences, n_prefix)
        while not wait([future], 0.2).done:
            pass
        return future.result()

    def _decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None) -> np.ndarray:
        vectors = super().decode(sequences, n_prefix)
        number = self.n_decodes
        wait_at(number)
        if str(number) in os.environ.get("LOUD", "").split():
            logging.getLogger("somebody").warning("a warning of a library")
            sys.stderr.write("what a library prints\n")
        return vectors

    def close(self) -> None:
        super().close()
        self._owner.submit(lambda: None).result()
        self._owner.shutdown()


def wait_at(gate: int | str) -> None:
    (GATES / f"begun-{gate}").touch()
    while not (GATES / f"open-{gate}").exists() and not (gate != "load" and (GATES / "open-all").exists()):
        time.sleep(0.005)


def load(model: str, **options: Any) -> Embedder:
    wait_at("load")
    return Embedder(GatedEngine(), str(model))


if __name__ == "__main__":
    q3e_local.load = load
    main(sys.argv[1:])
