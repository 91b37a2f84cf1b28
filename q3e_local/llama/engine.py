"""`Engine` on llama.cpp: a model file that was checked, and the one thread that calls llama.cpp.

Says what the model is and how it runs, and translates its tokens; leaves vectors to decoding.py, what is in memory to
loading.py, and C functions to binding.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, ModelFileError, OptionError
from q3e_local.gguf.model_file import inspect
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.gguf.rows import difference
from q3e_local.llama.decoding import Decoding
from q3e_local.llama.kernels import in_use
from q3e_local.llama.kernels.choice import Taken
from q3e_local.llama.loading import LoadedModel, load
from q3e_local.llama.owner import Owner
from q3e_local.llama.pooling_context import Counts
from q3e_local.llama.settings.defaults import Settings, other_threads
from q3e_local.llama.settings.placement import Placement
from q3e_local.llama.thread_trials import ThreadTrials

_POLL_S = 0.1  # until closing is noticed


class LlamaEngine:
    """A GGUF of Qwen3-Embedding or Qwen3-Reranker, ready to decode.

    Raises ModelError, NotEnoughMemoryError or EngineError on loading.

    All native work runs on a thread of the engine's own. llama.cpp calls back into Python while it computes; on
    the main thread Ctrl-C would be raised inside such a callback, where ctypes swallows it.
    """

    def __init__(
        self,
        path: Path,
        config: EngineConfig | None = None,
        clock: Callable[[], float] = time.perf_counter,
        kind: ModelKind | None = None,
    ) -> None:
        """`kind` is what the user says that the file is; None: what it states."""
        self.config = config or EngineConfig()
        self.info = info = inspect(path, kind)
        self.digest, self.kind, self.n_vocab = info.digest, info.kind, info.n_vocab
        self._answer = None if info.answers is None else difference(path, info.answers)
        self.n_embd = info.n_embd if self._answer is None else 1
        if self._answer is not None and not np.isfinite(self._answer).all():
            raise ModelFileError(f"{path} has NaN or infinity in the rows of its answer; get the file again")
        self.eos_id, self.added_tokens = info.eos_id, info.added_tokens
        self.n_ctx_max = min(info.n_ctx_train, self.config.n_ctx_max or info.n_ctx_train)
        self._loaded: LoadedModel | None = None
        self._tokenizing = threading.Lock()
        self._owner = Owner()
        try:
            self.kernels = self._owner.do(in_use.chosen)
            no_tokenizing = partial(_held, self._tokenizing, self._owner.go_on)
            let_in = self._owner.let_in
            self._loaded = self._owner.do(load, self.info, self.config, self.kernels, let_in, no_tokenizing)
            trials = ThreadTrials(self.n_threads, self._other_threads(), clock)
            self._decoding = Decoding(self._loaded, self._owner, trials, self.n_ctx_max, self.config.n_batch or 0)
        except BaseException:
            self.close()
            raise

    @property
    def settings(self) -> Settings:
        """How the model runs, and why."""
        return self._open().settings

    @property
    def placement(self) -> Placement:
        """Where the layers are. May change while the engine works, should a GPU's memory become short."""
        return self._open().placement

    @property
    def on_gpu(self) -> bool:
        """Whether any layer is on a GPU."""
        return self.placement.on_gpu

    @property
    def tap(self) -> bool:
        """Whether hidden states are read by the tap, and not by llama.cpp's pooling."""
        return self._open().tap

    def look(self) -> Placement:
        """The same, with the memory that the devices have free now. Waits for the batch or piece that is computed."""
        self._owner.do(self._open().look)
        return self.placement

    @property
    def n_batch(self) -> int:
        return self._decoding.n_batch

    @property
    def n_seq_max(self) -> int:
        return self._decoding.n_seq_max

    @property
    def n_keepable(self) -> int:
        return self._open().n_keepable

    @property
    def n_threads(self) -> int:
        return self.settings.n_threads

    @property
    def n_bytes(self) -> int:
        """Memory of the weights and of the context the engine starts with; longer texts take more.

        That of a GPU is counted, its own and what it shares with the CPU.
        """
        return self._open().n_bytes

    @property
    def kernels_taken(self) -> Taken:
        """The operations that our kernels computed so far, in this process and not for this engine alone."""
        return in_use.counts()

    @property
    def peak_bytes(self) -> int:
        """The most memory that this process had."""
        return machine.peak_memory()

    def tokenize(self, text: str) -> list[int]:
        self._load_what_is_lost()
        with self._tokenizing:
            return self._open().weights.tokenize(text.encode("utf-8"))

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens written out; bytes that are no UTF-8 become U+FFFD."""
        return self._detokenized([ids])[0].decode("utf-8", "replace")

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each of these ids: a character may be split between several."""
        return self._detokenized([[one] for one in ids])

    def _detokenized(self, runs: Sequence[Sequence[int]]) -> list[bytes]:
        for ids in runs:
            if ids and not 0 <= min(ids) <= max(ids) < self.n_vocab:
                raise OptionError(f"token ids are between 0 and {self.n_vocab - 1}, got {min(ids)} to {max(ids)}")
        self._load_what_is_lost()
        with self._tokenizing:
            return [self._open().weights.detokenize(ids) for ids in runs]

    @property
    def counts(self) -> Counts:
        """What was computed since the engine was loaded: decodes, tokens, and tokens that were there already."""
        return replace(self._open().contexts.counts)

    def decode(
        self,
        sequences: Sequence[Sequence[int]],
        n_prefix: Sequence[int] | None = None,
        on_piece: Callable[[int], None] = lambda n_tokens: None,
    ) -> NDArray[np.float32]:
        """As `Engine` says. `on_piece` is called with the tokens of each piece of a text longer than a batch."""
        if not sequences:
            return np.empty((0, self.n_embd), np.float32)
        for ids in sequences:
            if not ids or min(ids) < 0 or max(ids) >= self.n_vocab:
                raise EngineError(f"a sequence must be ids below {self.n_vocab}")
            if self._answer is None and ids[-1] != self.eos_id:
                raise EngineError(f"a sequence must be ids below {self.n_vocab} that end with {self.eos_id}")
            if len(ids) > self.n_ctx_max:
                raise EngineError(f"a sequence of {len(ids)} tokens is longer than the {self.n_ctx_max} that fit")
        pooled = self._decoding.decode(sequences, n_prefix, on_piece)
        return pooled if self._answer is None else (pooled @ self._answer).astype(np.float32)

    def use(self, settings: Settings) -> None:
        """Go on with other threads or batches. The weights stay as they were loaded."""
        self._decoding.use(settings)

    def close(self) -> None:
        with self._tokenizing:
            self._owner.close(self._free)

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        # No thread can be at work any more, so the native memory of an engine that was not closed is freed here.
        if hasattr(self, "_owner"):
            self._free()
            self._owner.abandon()

    def _other_threads(self) -> list[int]:
        """Numbers of threads to try in real work: none where the number is given or tuned, or a GPU computes."""
        if not self.config.self_tuning or self.on_gpu or self.settings.reasons["n_threads"].source != "default":
            return []
        return other_threads(machine.physical_cores(), machine.logical_cpus())

    def _load_what_is_lost(self) -> None:
        loaded = self._open()
        if loaded.is_lost:
            self._owner.do(loaded.ready)

    def _open(self) -> LoadedModel:
        if self._loaded is None:
            raise EngineError("the engine is closed")
        return self._loaded

    def _free(self) -> None:
        if self._loaded is not None:
            self._loaded.free()


@contextmanager
def _held(lock: threading.Lock, go_on: Callable[[], None]) -> Iterator[None]:
    """The lock, for the thread that computes: who closes the engine holds it, and waits for this thread."""
    while not lock.acquire(timeout=_POLL_S):
        go_on()
    try:
        yield
    finally:
        lock.release()
