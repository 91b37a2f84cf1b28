"""An engine for a job that must not be lost, whose GPU may end the process: `SteadyEngine`.

Drivers and llama.cpp's GPU backends abort where memory is refused in the middle of a batch. So the model is in a
process of its own, and a batch whose process died is computed again: in a new process, then with fewer layers on the
GPU, then on the CPU. Knows workers and the Engine protocol; nothing of jobs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, OptionError, Q3EError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.llama.kernels.choice import Kernels, Taken
from q3e_local.llama.settings.defaults import Settings
from q3e_local.llama.settings.placement import Placement
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.workers.child import OpenEngine, open_llama
from q3e_local.server.workers.worker import WorkerEngine

logger = logging.getLogger(__name__)

T = TypeVar("T")


def _fact(name: str) -> Any:
    """A property: what the worker says under this name."""
    return property(lambda engine: getattr(engine._worker, name))


class SteadyEngine:
    """`Engine` whose calls are made again when the process that has the model dies.

    A call answers once, and only what a process computed to the end: nothing is lost, and nothing comes twice. What
    was tried is said by warnings. Raises what the engine in the process raises, and WorkerDiedError where the process
    dies on the CPU too.
    """

    digest: str = _fact("digest")
    kind: ModelKind = _fact("kind")
    n_embd: int = _fact("n_embd")
    n_ctx_max: int = _fact("n_ctx_max")
    n_batch: int = _fact("n_batch")
    n_seq_max: int = _fact("n_seq_max")
    eos_id: int = _fact("eos_id")
    added_tokens: tuple[str, ...] = _fact("added_tokens")
    kernels: Kernels = _fact("kernels")
    settings: Settings = _fact("settings")
    placement: Placement = _fact("placement")
    tap: bool = _fact("tap")
    kernels_taken: Taken = _fact("kernels_taken")
    peak_bytes: int = _fact("peak_bytes")

    def __init__(
        self, path: Path, config: EngineConfig, kind: ModelKind | None = None, open_engine: OpenEngine | None = None
    ) -> None:
        """Loads the model. `kind` is what the user says that the file is."""
        self._path, self._config = path, config
        self._open = open_engine or partial(open_llama, kind=kind)
        self._changing = threading.Lock()
        self._closed = False
        self._digest: str | None = None  # of the file that was loaded
        self._worker = WorkerEngine(path, config, open_engine=self._open)
        self._given_up: list[WorkerEngine] = []
        try:
            self._answered(lambda worker: worker.load())
        except BaseException:
            self.close()
            raise
        self._digest = self._worker.digest
        # Callers fill batches of the size that they are told.
        self._config = replace(self._config, n_batch=self._config.n_batch or self._worker.n_batch)

    @property
    def n_keepable(self) -> int:
        # The present worker first: it is with those given up before another takes its place.
        workers = (self._worker, *self._given_up)
        return min(worker.n_keepable for worker in workers if worker.known is not None)

    def tokenize(self, text: str) -> list[int]:
        return self._answered(lambda worker: worker.tokenize(text))

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        return self._answered(lambda worker: worker.pieces(ids))

    def decode(
        self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        return self._answered(lambda worker: worker.decode(sequences, n_prefix))

    def close(self) -> None:
        with self._changing:
            self._closed = True
            worker = self._worker
        worker.close()

    def _answered(self, ask: Callable[[WorkerEngine], T]) -> T:
        """The answer of the process that is there, of a new one, or of one with less on the GPU."""
        while True:
            worker, n_deaths = self._worker, 0
            while worker is self._worker:
                try:
                    return ask(worker)
                except WorkerDiedError as died:
                    if self._closed:
                        raise
                    n_deaths += 1
                    # A load that ended the process would do so again.
                    if n_deaths == 2 or worker.known is None:
                        self._give_up(worker, died, died.cause)
                    else:
                        logger.warning("%s: what it was doing is done again in a new process", died.cause)
                except OptionError as refused:
                    # Of a number of layers that nobody asked for: the GPU that they were for is gone.
                    if not self._given_up or refused.option not in ("n_gpu_layers", "device"):
                        raise
                    self._give_up(worker, refused, str(refused))
                except EngineError:
                    # Another caller may have closed this worker, and puts one with less on the GPU in its place.
                    with self._changing:
                        if self._closed or worker is self._worker:
                            raise

    def _give_up(self, worker: WorkerEngine, error: Q3EError, cause: str) -> None:
        """Go on with fewer layers on the GPU than this worker has, unless another caller did that already.

        Raises `error` where it has none.
        """
        with self._changing:
            if worker is not self._worker or self._closed:
                return
            n_before = self._n_on_gpu(worker)
            if n_before == 0:
                raise error
            n_layers = n_before // 2
            device = self._config.device if n_layers else None
            self._config = replace(self._config, n_gpu_layers=n_layers, device=device)
            where = f"{n_layers} layers on the GPU" if n_layers else "all layers on the CPU"
            logger.warning("%s: going on with %s", cause, where)
            worker.close()
            self._given_up.append(worker)
            self._worker = WorkerEngine(self._path, self._config, open_engine=self._open, digest=self._digest)

    def _n_on_gpu(self, worker: WorkerEngine) -> int:
        if worker.known is not None:
            return worker.placement.n_on_gpu
        return 0 if self._config.n_gpu_layers == 0 else 1  # it never loaded: no layers are next
