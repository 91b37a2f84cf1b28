"""An engine in a process of its own: `WorkerEngine`.

A native crash or an out-of-memory kill ends that process and not the server, and unloading gives all its memory
back. Knows processes, pipes and the Engine protocol; leaves the child's side to child.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, ModelFileError, Q3EError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.llama.kernels.choice import Kernels, Taken
from q3e_local.llama.settings.defaults import Settings
from q3e_local.llama.settings.placement import Placement
from q3e_local.server.workers.child import Facts, Moved, OpenEngine, open_llama
from q3e_local.server.workers.failed_loads import FailedLoads
from q3e_local.server.workers.liveness import Bounds, Pace, Task
from q3e_local.server.workers.process import NotBegunError, WorkerProcess

logger = logging.getLogger(__name__)

# Characters that a slow machine tokenizes, or ids that it writes as text, in a second.
_WORDS_PER_S = 100_000


def _fact(name: str) -> Any:
    """A property: what `Facts` has under this name."""
    return property(lambda worker: getattr(worker.facts, name))


class WorkerEngine:
    """`Engine` whose model lives in a child process, which is started again by the next call when it has died.

    Tokenizing does not wait for a decode. Raises what the engine in the child raises, and WorkerDiedError for the
    calls that were in flight when the child died, or was ended because it hung. A model that cannot load raises its
    own error here, at once and from each call; FailedLoads says when it is tried again.
    """

    digest: str = _fact("digest")
    kind: ModelKind = _fact("kind")
    n_embd: int = _fact("n_embd")
    n_ctx_max: int = _fact("n_ctx_max")
    n_batch: int = _fact("n_batch")
    n_seq_max: int = _fact("n_seq_max")
    eos_id: int = _fact("eos_id")
    added_tokens: tuple[str, ...] = _fact("added_tokens")
    n_vocab: int = _fact("n_vocab")
    settings: Settings = _fact("settings")
    tap: bool = _fact("tap")
    kernels: Kernels = _fact("kernels")

    def __init__(
        self,
        path: Path,
        config: EngineConfig | None = None,
        *,
        open_engine: OpenEngine = open_llama,
        failed: FailedLoads | None = None,
        bounds: Bounds | None = None,
        digest: str | None = None,
    ) -> None:
        """`bounds`: when the child counts as hung. `digest`: the one that the file must have; None: any."""
        self._path, self._config, self._open = path, config or EngineConfig(), open_engine
        self._bounds, self._pace = bounds or Bounds(), Pace()
        self._failed = failed or FailedLoads()
        self._process: WorkerProcess | None = None
        self._closed = False
        self._state = threading.Lock()  # of `_process` and `_closed`
        self._n_starts = 0  # with a model loaded at the end
        self._deaths: list[str] = []  # a cause for each
        self._starting = threading.Lock()
        self._asking = {pipe: threading.Lock() for pipe in ("work", "long", "words")}
        self._facts: Facts | None = None
        self._digest = digest
        self._n_keepable: int | None = None  # the least that any process said with its vectors

    def leave_gpus(self) -> None:
        """Have the CPU compute, in processes that are started from now on."""
        self._config = replace(self._config, n_gpu_layers=0, device=None)

    def load(self) -> None:
        """Wait until the model is loaded; otherwise the first call does. Closing ends the wait with EngineError."""
        self._living()

    @property
    def facts(self) -> Facts:
        """What stays the same about the model; loads the model where that was not done yet."""
        if self._facts is None:
            self._living()
        assert self._facts is not None
        return self._facts

    @property
    def known(self) -> Facts | None:
        """The same, without loading: None where the model was never loaded."""
        return self._facts

    @property
    def placement(self) -> Placement:
        """Where the layers are, or were in the last process. May change while the engine works."""
        return self._now().placement

    @property
    def n_keepable(self) -> int:
        """As `Engine` says, of all processes that the model was in."""
        return self.n_ctx_max if self._n_keepable is None else self._n_keepable

    @property
    def n_bytes(self) -> int:
        """Memory of the weights and of the context for batches, in the machine and on GPUs."""
        return self._now().n_bytes

    def look(self) -> None:
        """Ask for the memory that the GPUs have free now. While the engine computes, what was said last still counts.

        Does not load a model that is not in memory, and raises nothing.
        """
        process = self._process
        if process is None or not self.is_running or not self.on_gpu or self._asking["long"].locked():
            return
        if self._asking["work"].acquire(blocking=False):
            try:
                with suppress(Q3EError):  # it died: its next call says so
                    process.ask("work", "look", None, Task("a look at a device", 0))
            finally:
                self._asking["work"].release()

    @property
    def on_gpu(self) -> bool:
        """Whether any layer is on a GPU."""
        return self.placement.on_gpu

    @property
    def kernels_taken(self) -> Taken:
        """The operations that our kernels computed so far in the child."""
        return cast(Taken, self._ask_words("kernels_taken", None, 0))

    @property
    def peak_bytes(self) -> int:
        """The most memory that the child had."""
        return cast(int, self._ask_words("peak_bytes", None, 0))

    @property
    def n_restarts(self) -> int:
        """How often the child was started again after it had died."""
        return max(0, self._n_starts - 1)

    @property
    def n_deaths(self) -> int:
        """How often the child ended without having been asked to."""
        return len(self._deaths)

    @property
    def is_running(self) -> bool:
        """Whether the child lives and has the model in memory; false from the moment it dies."""
        process = self._process
        return process is not None and process.is_loaded and process.is_alive()

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def tokenize(self, text: str) -> list[int]:
        return self.tokenize_all([text])[0]

    def tokenize_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts, for one trip to the child."""
        return cast(list[list[int]], self._ask_words("tokenize_all", list(texts), sum(map(len, texts))))

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens written out."""
        return cast(str, self._ask_words("detokenize", list(ids), len(ids)))

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each of these ids."""
        return cast(list[bytes], self._ask_words("pieces", list(ids), len(ids)))

    def decode(
        self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Of two calls from two threads, one with a text longer than a batch does not hold up the other."""
        n_tokens = sum(len(ids) for ids in sequences)
        if any(len(ids) > self.n_batch for ids in sequences):
            pipe = "long"
            task = Task(f"a piece of a text of {n_tokens} tokens", self._pace.expected_s(self.n_batch))
        else:
            pipe = "work"
            took = partial(self._pace.measure, n_tokens)
            task = Task(f"a batch of {n_tokens} tokens", self._pace.expected_s(n_tokens), took)
        argument = ([list(ids) for ids in sequences], None if n_prefix is None else list(n_prefix))
        vectors, n_keepable = cast(tuple[NDArray[np.float32], int], self._ask(pipe, "decode", argument, task))
        with self._state:
            self._n_keepable = min(n_keepable, self.n_keepable)
        return vectors

    def close(self) -> None:
        with self._state:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.end()

    def _now(self) -> Moved:
        facts, process = self.facts, self._process
        now = process.now if process is not None else None
        return now or Moved(facts.placement, facts.n_bytes)

    def _ask_words(self, method: str, argument: Any, size: int) -> Any:
        task = Task(f"{size} characters or tokens to translate", size / _WORDS_PER_S)
        return self._ask("words", method, argument, task)

    def _ask(self, pipe: str, method: str, argument: Any, task: Task) -> Any:
        with self._asking[pipe]:
            try:
                return self._living().ask(pipe, method, argument, task)
            except NotBegunError:  # the process was killed, or stopped, while idle: the caller need not know
                return self._living().ask(pipe, method, argument, task)

    def _living(self) -> WorkerProcess:
        """The process, started where none lives."""
        with self._starting:
            with self._state:
                if self._closed:
                    raise EngineError("the engine is closed")
                if self._process is not None and self._process.is_alive():
                    return self._process
                if self._process is not None:
                    self._process.end()  # free what is left of it
                    self._process = None
                self._failed.check(self._path)
                began = time.monotonic()
                try:
                    process = WorkerProcess(self._path, self._config, self._open, self._deaths.append, self._bounds)
                except OSError as error:
                    raise EngineError(f"cannot start a process for {self._path.stem}: {error.strerror}") from None
                self._process = process
            try:
                facts = process.ready()
            except BaseException as error:
                process.end()
                if isinstance(error, Q3EError) and not self._closed:
                    self._failed.remember(self._path, error)
                raise
            if self._digest is not None and facts.digest != self._digest:
                # A caller holds the old digest, and must not take the new file's vectors for those of the old file.
                process.end()
                raise ModelFileError(
                    f"{self._path} is another file than the one that was loaded; unload the model first"
                )
            self._facts, self._digest = facts, facts.digest
            # A queue fills batches of the size that the engine had at first, whatever was tuned since.
            self._config = replace(self._config, n_batch=self._config.n_batch or facts.n_batch)
            self._n_starts += 1
            if self._n_starts > 1:
                why = self._deaths[-1] if self._deaths else "its process was gone"
                logger.info("loaded %s again in %.2f s: %s", self._path.stem, time.monotonic() - began, why)
            return process
