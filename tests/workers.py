"""A fake of the worker process: the fake engine with what a server asks of it, and a load that can be held."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from fake import FakeEngine

from q3e_local.errors import EngineError
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.llama.settings.placement import Placement
from q3e_local.models.installed import Located


class FakeWorker(FakeEngine):
    """The fake engine; `failure` is raised by loading, which waits for `go_on`."""

    placement = Placement(1)
    n_vocab, on_gpu, n_restarts, n_deaths, is_running = 257, False, 0, 0, True
    kernels = Kernels("avx2", "the fastest that this CPU runs")

    def __init__(self, located: Located, n_bytes: int = 100) -> None:
        super().__init__()
        self.path, self.n_bytes = located.path, n_bytes
        self.n_loaded, self.leaves_gpus = 0, False
        self.failure: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.began = threading.Event()

    def load(self) -> None:
        self.began.set()
        assert self.go_on.wait(20)
        if self.closed:
            raise EngineError("the engine was closed while it worked")
        if self.failure is not None:
            raise self.failure
        self.n_loaded += 1

    def leave_gpus(self) -> None:
        self.leaves_gpus = True

    def tokenize_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.tokenize(text) for text in texts]

    def detokenize(self, ids: Sequence[int]) -> str:
        return "".join("<end>" if i == self.eos_id else chr(i) for i in ids)

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        vectors = super().decode(sequences)
        vectors[:, 3] = [ids[0] for ids in sequences]
        return vectors

    def close(self) -> None:
        super().close()
        self.go_on.set()
