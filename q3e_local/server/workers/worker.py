"""An engine in a process of its own: `WorkerEngine`.

A native crash or an out-of-memory kill ends that process and not the server, and unloading gives all its memory
back. Knows processes, pipes and the Engine protocol; leaves the child's side to child.py.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, ModelFileError, Q3EError
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.server.workers.child import Facts, OpenEngine, ServedEngine, open_llama
from q3e_local.server.workers.liveness import Bounds, Pace, Task
from q3e_local.server.workers.process import NotBegunError, WorkerProcess

logger = logging.getLogger(__name__)

# A load that failed is not tried again for this long, unless the file has changed.
RETRY_S = 5.0
# The least number of characters tokenized, or of ids written as text, in a second.
_WORDS_PER_S = 100_000


class Worker(ServedEngine, Protocol):
    """What a server asks of a model in another process."""

    @property
    def n_restarts(self) -> int:
        """How often its process was started again after it had died."""

    @property
    def n_deaths(self) -> int:
        """How often its process ended without having been asked to."""

    @property
    def is_running(self) -> bool:
        """Whether its process lives and has the model in memory."""

    def load(self) -> None:
        """Wait until the model is loaded. Closing ends the wait, with an EngineError."""

    def tokenize_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts, for one trip to the other process."""


class FailedLoads:
    """Loads that failed, so that not every request starts a process only to see it fail again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Path, tuple[Q3EError, object, float]] = {}

    def remember(self, path: Path, error: Q3EError) -> None:
        self._known[path] = (error, _stamp(path), self._clock() + RETRY_S)

    def check(self, path: Path) -> None:
        """Raises what loading this file raised a moment ago, and says when it is tried again."""
        error, stamp, until = self._known.get(path, (None, None, 0.0))
        left_s = until - self._clock()
        if error is not None and stamp == _stamp(path) and left_s > 0:
            known = copy.copy(error)
            known.args = (f"{error}; this was {RETRY_S - left_s:.0f} s ago, and is tried again in {left_s:.0f} s",)
            raise known
        self._known.pop(path, None)


class WorkerEngine:
    """`Engine` whose model lives in a child process, which is started again by the next call when it has died.

    Tokenizing does not wait for a decode. Raises what the engine in the child raises, and WorkerDiedError for the
    calls that were in flight when the child died, or was ended because it hung. A model that cannot load raises its
    own error here, at once and from each call; it is loaded again at most every RETRY_S seconds.
    """

    def __init__(
        self,
        path: Path,
        config: EngineConfig | None = None,
        *,
        open_engine: OpenEngine = open_llama,
        failed: FailedLoads | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """`bounds`: when the child counts as hung."""
        self._path, self._config, self._open = path, config or EngineConfig(), open_engine
        self._bounds, self._pace = bounds or Bounds(), Pace()
        self._failed = failed or FailedLoads()
        self._process: WorkerProcess | None = None
        self._closed = False
        self._state = threading.Lock()  # of the two above
        self._n_starts = 0  # that went well
        self._deaths: list[str] = []  # their causes
        self._starting, self._tokenizing = threading.Lock(), threading.Lock()
        self._decoding, self._decoding_long = threading.Lock(), threading.Lock()
        self._facts: Facts | None = None

    def load(self) -> None:
        """Start the child and wait until its model is loaded; otherwise the first call does."""
        self._living()

    @property
    def facts(self) -> Facts:
        """What is known of the loaded model; loads it where that was not done yet."""
        if self._facts is None:
            self._living()
        assert self._facts is not None
        return self._facts

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
    def digest(self) -> str:
        return self.facts.digest

    @property
    def n_embd(self) -> int:
        return self.facts.n_embd

    @property
    def n_ctx_max(self) -> int:
        return self.facts.n_ctx_max

    @property
    def n_batch(self) -> int:
        return self.facts.n_batch

    @property
    def n_seq_max(self) -> int:
        return self.facts.n_seq_max

    @property
    def eos_id(self) -> int:
        return self.facts.eos_id

    @property
    def added_tokens(self) -> tuple[str, ...]:
        return self.facts.added_tokens

    @property
    def n_vocab(self) -> int:
        return self.facts.n_vocab

    @property
    def n_bytes(self) -> int:
        return self.facts.n_bytes

    @property
    def on_gpu(self) -> bool:
        return self.facts.on_gpu

    @property
    def kernels(self) -> Kernels:
        return self.facts.kernels

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def tokenize(self, text: str) -> list[int]:
        return self.tokenize_all([text])[0]

    def tokenize_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts, for one trip to the child."""
        ids: list[list[int]] = self._ask_words("tokenize_all", list(texts), sum(map(len, texts)))
        return ids

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens written out."""
        text: str = self._ask_words("detokenize", list(ids), len(ids))
        return text

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each of these ids."""
        found: list[bytes] = self._ask_words("pieces", list(ids), len(ids))
        return found

    def decode(
        self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Of two calls from two threads, one with a text longer than a batch does not hold up the other."""
        is_long = any(len(ids) > self.n_batch for ids in sequences)
        n_tokens = sum(len(ids) for ids in sequences)
        argument = ([list(ids) for ids in sequences], None if n_prefix is None else list(n_prefix))
        vectors: NDArray[np.float32]
        if is_long:
            with self._decoding_long:
                piece = Task(f"a piece of a text of {n_tokens} tokens", self._pace.expected_s(self.n_batch))
                vectors = self._ask("long", "decode", argument, piece)
        else:
            with self._decoding:
                batch = Task(
                    f"a batch of {n_tokens} tokens",
                    self._pace.expected_s(n_tokens),
                    lambda seconds: self._pace.measure(n_tokens, seconds),
                )
                vectors = self._ask("work", "decode", argument, batch)
        return vectors

    def close(self) -> None:
        with self._state:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.end()

    def _ask_words(self, method: str, argument: Any, size: int) -> Any:
        task = Task(f"{size} characters or tokens to translate", size / _WORDS_PER_S)
        with self._tokenizing:
            return self._ask("words", method, argument, task)

    def _ask(self, pipe: str, method: str, argument: Any, task: Task) -> Any:
        process = self._living()
        try:
            return process.ask(getattr(process, pipe), method, argument, task)
        except NotBegunError:  # it was killed, or stopped, while idle; nobody need know
            process = self._living()
            return process.ask(getattr(process, pipe), method, argument, task)

    def _living(self) -> WorkerProcess:
        """The child, started if there is none that lives."""
        with self._starting:
            with self._state:
                if self._closed:
                    raise EngineError("the engine is closed")
                if self._process is not None and self._process.is_alive():
                    return self._process
                if self._process is not None:
                    self._process.end()  # free what is left of the dead one
                    self._process = None
                self._failed.check(self._path)
                began = time.monotonic()
                try:
                    process = WorkerProcess(
                        self._path, self._config_now(), self._open, self._deaths.append, self._bounds
                    )
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
            if self._facts is not None and facts.digest != self._facts.digest:
                # A caller holds the old digest, and must not take the new file's vectors for that one's.
                process.end()
                raise ModelFileError(
                    f"{self._path} is another file than the one that was loaded; unload the model first"
                )
            self._facts = facts
            self._n_starts += 1
            if self._n_starts > 1:
                why = self._deaths[-1] if self._deaths else "its process was gone"
                logger.info("loaded %s again in %.2f s: %s", self._path.stem, time.monotonic() - began, why)
            return process

    def _config_now(self) -> EngineConfig:
        """As it was given, but batches stay as large as at first: a queue fills them, whatever was tuned since."""
        return self._config if self._facts is None else replace(self._config, n_batch=self._facts.n_batch)


def _stamp(path: Path) -> object:
    with suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino
    return None
