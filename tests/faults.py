"""Engines that fail in a worker process as real ones do. In a module without tests, because the child imports it.

As a program, `python faults.py PATH END` starts a worker, prints its process id and ends as `ENDS` says.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from fake import FakeEngine
from gpus import device

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, ModelFileError, NotEnoughMemoryError, OptionError
from q3e_local.llama.kernels.choice import Kernels, Taken
from q3e_local.llama.settings.defaults import Host, defaults
from q3e_local.llama.settings.placement import Placement
from q3e_local.server.workers.worker import WorkerEngine

# How a process with a worker may end.
ENDS: dict[str, Callable[[WorkerEngine], object]] = {
    "killed": lambda worker: os.kill(os.getpid(), signal.SIGKILL),
    "at once": lambda worker: os._exit(0),
    "exit": lambda worker: sys.exit(),
    "closed": lambda worker: worker.close(),
}


class FaultyEngine(FakeEngine):
    """The fake, which does what a text says: `abort`, `assert`, `deaf`, `raise`, `memory`, `log`, `sleep`, ..."""

    n_vocab, n_bytes = 257, 1_000_000
    placement, settings, tap, kernels_taken = Placement(1), defaults(Host(1)), True, Taken()
    kernels = Kernels("avx2", "the fastest that this CPU runs")

    def decode(
        self,
        sequences: Sequence[Sequence[int]],
        n_prefix: Sequence[int] | None = None,
        on_piece: Callable[[int], None] = lambda n_tokens: None,
    ) -> np.ndarray:
        for ids in sequences:
            self.do(bytes(i for i in ids if i < 256).decode())
        return super().decode(sequences, n_prefix)

    def tokenize(self, text: str) -> list[int]:
        self.do(text.removeprefix("tokenize:") if text.startswith("tokenize:") else "")
        return super().tokenize(text)

    def look(self) -> Placement:
        return self.placement

    def detokenize(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode()

    def do(self, what: str) -> None:
        if what == "abort":
            os.abort()
        if what == "assert":
            os.write(2, b"ggml.c:1: GGML_ASSERT(n_tokens > 0) failed\n")
            os.abort()
        if what == "deaf":  # its pipes end, and it lives on
            os.closerange(3, 256)
            time.sleep(60)
        if what == "exit":
            os._exit(7)
        if what == "segfault":
            ctypes.string_at(0)
        if what == "raise":
            raise KeyError("a mistake of ours")
        if what == "memory":
            raise NotEnoughMemoryError("this text needs 9.00 GB")
        if what == "out of memory":
            raise MemoryError
        if what == "engine":
            raise EngineError("llama_decode answered 1")
        if what == "stop":  # as a driver may stop it
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "spin":
            while True:
                pass
        if what == "coarse":
            self.n_keepable = 8
        if what == "log":
            logging.getLogger("q3e_local.llama.engine").warning("a line from %s", "the child")
        if what == "sleep":
            logging.getLogger("q3e_local.llama.engine").warning("asleep")
            time.sleep(60)


class EngineOnGpu(FaultyEngine):
    """The faulty one, with as many of its 4 layers on a GPU as it is told.

    `memory of the gpu` aborts while any layer is there, `once` the first process that gets it, `always` each.
    """

    def __init__(self, path: Path, config: EngineConfig) -> None:
        super().__init__(n_batch=config.n_batch or 64)
        n = 4 if config.n_gpu_layers is None else config.n_gpu_layers
        self.placement = Placement(4, n, (device(),), (n + 1,), (900_000,)) if n else Placement(4)
        self._once = path.with_suffix(".once")

    def look(self) -> Placement:
        """Its GPU has a byte less free than when it was asked before."""
        devices = tuple(replace(each, free_bytes=each.free_bytes - 1) for each in self.placement.devices)
        self.placement = replace(self.placement, devices=devices)
        return self.placement

    def do(self, what: str) -> None:
        if what == "leave the gpu":
            self.placement, self.n_bytes = self.placement.on_cpu("for want of GPU memory"), 2_000_000
        aborts = what == "always" or (what == "memory of the gpu" and self.placement.on_gpu)
        if what == "once" and not self._once.exists():
            self._once.touch()
            aborts = True
        super().do("abort" if aborts else what)


def open_on_gpu(path: Path, config: EngineConfig) -> EngineOnGpu:
    """Each process adds a line with its layers to `<path>.tries`. In a file `full`, no layer can be loaded there.

    With a file `unplugged` there is no GPU any more, once a number of layers is asked for. A file `replaced` is
    another one by the time that fewer than all layers are loaded there.
    """
    content = path.read_text(encoding="ascii")
    if content == "unplugged" and config.n_gpu_layers:
        raise OptionError(f"n_gpu_layers must be 0, got {config.n_gpu_layers}: no GPU is here", "n_gpu_layers")
    engine = EngineOnGpu(path, config)
    with path.with_suffix(".tries").open("a", encoding="ascii") as tries:
        tries.write(f"{engine.placement.n_on_gpu} {engine.n_batch}\n")
    if content == "full" and engine.placement.on_gpu:
        os.abort()
    if content == "replaced" and not engine.placement.all_on_gpu:
        engine.digest = content * 8
    return engine


def open_tuned(path: Path, config: EngineConfig) -> FaultyEngine:
    """The fine one, with batches of so many tokens as the file beside it says where the config does not."""
    return FaultyEngine(n_batch=config.n_batch or int(path.with_suffix(".tuned").read_text(encoding="ascii")))


def open_faulty(path: Path, config: EngineConfig) -> FaultyEngine:
    """Loads what the file says: an engine, or the way it fails. Each try adds a line to `<path>.tries`."""
    with path.with_suffix(".tries").open("a", encoding="ascii") as tries:
        tries.write(f"{os.getpid()}\n")
    content = path.read_text(encoding="ascii")
    if content == "broken":
        raise ModelFileError(f"{path} is broken")
    if content == "abort":
        os.abort()
    if content == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if content == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if content == "slow":
        time.sleep(60)
    engine = FaultyEngine(n_batch=64, bad="BAD")
    engine.digest = content * 8
    return engine


if __name__ == "__main__":
    worker = WorkerEngine(Path(sys.argv[1]), open_engine=open_faulty)
    worker.load()
    sys.stdout.write(f"{worker.pid}\n")
    sys.stdout.flush()
    ENDS[sys.argv[2]](worker)
