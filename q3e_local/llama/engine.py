"""`Engine` on llama.cpp: a model file that was checked, and the one thread that calls llama.cpp.

Knows threads and failures; leaves C functions to binding.py, contexts and memory to contexts.py, and the reading of
vectors to pooling_context.py.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from q3e_local import machine
from q3e_local.embedding.batching import pack
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import BadVectorError, EngineError, ModelFileError, NotEnoughMemoryError, OptionError
from q3e_local.gguf.model_file import inspect
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.gguf.rows import difference
from q3e_local.llama import binding
from q3e_local.llama.contexts import Contexts, explaining, refusals
from q3e_local.llama.kernels import in_use
from q3e_local.llama.kernels.choice import Taken
from q3e_local.llama.owner import InTurn, Owner
from q3e_local.llama.pooling_context import Counts, PoolingContext
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.defaults import TUNABLE, Host, Reason, Settings, other_threads, settle
from q3e_local.llama.settings.memory import needed_bytes
from q3e_local.llama.tap_proof import tap_is_proved
from q3e_local.llama.thread_trials import ThreadTrials
from q3e_local.wording.counts import size


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
        if self.config.n_gpu_layers and not binding.can_offload():
            raise OptionError(
                f"this llama.cpp was built without a GPU: n_gpu_layers must be 0, got {self.config.n_gpu_layers}; "
                "the README says how to build it for one"
            )
        self.info = info = inspect(path, kind)
        self.digest, self.kind, self.n_vocab = info.digest, info.kind, info.n_vocab
        self._answer = None if info.answers is None else difference(path, info.answers)
        self.n_embd = info.n_embd if self._answer is None else 1
        if self._answer is not None and not np.isfinite(self._answer).all():
            raise ModelFileError(f"{path} has NaN or infinity in the rows of its answer; get the file again")
        self.eos_id, self.added_tokens = info.eos_id, info.added_tokens
        self.n_ctx_max = min(info.n_ctx_train, self.config.n_ctx_max or info.n_ctx_train)
        all_layers = info.n_layer + 1 if binding.can_offload() else 0
        self.n_gpu_layers = all_layers if self.config.n_gpu_layers is None else self.config.n_gpu_layers
        self.on_gpu = self.n_gpu_layers > 0
        self.tap = self.config.tap
        self._model: binding.Weights | None = None
        self._contexts: Contexts | None = None
        self._one_long = InTurn()
        self._tokenizing = threading.Lock()
        self._owner = Owner()
        try:
            self.kernels = self._owner.do(in_use.chosen)
            self.settings = self._settled()
            self._trials = ThreadTrials(self.n_threads, self._other_threads(), clock)
            self._owner.do(self._load)
        except BaseException:
            self.close()
            raise

    @property
    def n_batch(self) -> int:
        return self.settings.n_batch

    @property
    def n_seq_max(self) -> int:
        # A sequence is at least one token; llama.cpp asserts when it pools more sequences than a batch has tokens.
        return min(self.config.n_seq_max, self.settings.n_batch)

    @property
    def n_threads(self) -> int:
        return self.settings.n_threads

    @property
    def n_bytes(self) -> int:
        """Memory of the weights and of the context the engine starts with; longer texts take more."""
        return needed_bytes(self.info, self.settings, self.config.n_seq_max, self.tap)

    @property
    def kernels_taken(self) -> Taken:
        """The operations that our kernels computed so far, in this process and not for this engine alone."""
        return in_use.counts()

    def tokenize(self, text: str) -> list[int]:
        with self._tokenizing:
            return self._open_model().tokenize(text.encode("utf-8"))

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
        with self._tokenizing:
            return [self._open_model().detokenize(ids) for ids in runs]

    @property
    def counts(self) -> Counts:
        """What was computed since the engine was loaded: decodes, tokens, and tokens that were there already."""
        return replace(self._open_contexts().counts)

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
        if len(sequences) == 1 and len(sequences[0]) > self.n_batch:
            pooled = self._decode_long(sequences[0], on_piece)
        else:
            pooled = self._owner.batch(self._decode, sequences, n_prefix)
        return pooled if self._answer is None else (pooled @ self._answer).astype(np.float32)

    def _decode_long(self, ids: Sequence[int], on_piece: Callable[[int], None]) -> NDArray[np.float32]:
        """In pieces; between two of them, and between their layers, batches of other callers are computed."""
        with self._one_long:
            context, at = self._owner.do(self._begin_long, ids)
            while at < len(ids):
                end = self._owner.long(self._piece, context, ids, at)
                on_piece(end - at)
                at = end
            return self._owner.do(self._end_long, context, ids)

    def use(self, settings: Settings) -> None:
        """Go on with other threads or batches. The weights stay as they were loaded."""
        with self._one_long:  # whose context may go
            self._owner.do(self._use, settings)

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

    def _settled(self) -> Settings:
        platform = kept.here(binding.version(), binding.features(), self.on_gpu, self.kernels.name)
        found = kept.find(self.info.digest, platform)
        return settle(self.config, Host(machine.physical_cores(), self.on_gpu), found)

    def _other_threads(self) -> list[int]:
        """Numbers of threads to try in real work: none where the number is given or tuned, or a GPU computes."""
        if not self.config.self_tuning or self.on_gpu or self.settings.reasons["n_threads"].source != "default":
            return []
        return other_threads(machine.physical_cores(), machine.logical_cpus())

    # On the owner's thread from here on.

    def _load(self) -> None:
        total, weights = machine.total_memory(), self.info.size_bytes
        if not self.on_gpu and weights > total:
            raise NotEnoughMemoryError(
                f"{self.info.name} needs {size(weights)} for its weights, this machine has {size(total)}; "
                "take a smaller model or quantization"
            )
        try:
            self._model = binding.Weights(os.fsencode(self.info.path), self.n_gpu_layers)
        except binding.NativeError as error:
            raise ModelFileError(f"llama.cpp cannot load {self.info.path}: {error}") from None
        self.tap = self.tap and tap_is_proved(
            self._model, self.info, self.n_threads, self.n_gpu_layers, self.kernels.variant
        )
        all_on_gpu = self.n_gpu_layers > self.info.n_layer
        self._contexts = Contexts(
            self._model, self.info, self.settings, self.config.n_seq_max, self.tap, all_on_gpu, self._owner.let_in
        )
        self._explain(self.kernels.explained)
        for hint in self.kernels.faster:
            self._explain(f"for more speed, {hint}")
        for name in TUNABLE:
            self._explain(self.settings.explained(name))

    def _decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None) -> NDArray[np.float32]:
        self._owner.go_on()
        n_tokens = sum(map(len, sequences))
        if not self.tap and n_tokens > self.n_batch:
            return self._decode_apart(sequences)
        contexts = self._open_contexts()
        # subtle: Ctrl-C gives up the lock of a long text, while its piece is computed to the end.
        contexts.passed(long_at_work=self._one_long.is_taken or self._owner.is_letting_in)
        compute = partial(contexts.batch.decode, sequences, n_prefix, self._owner.go_on)
        race, race_was_over = self._trials.race, self._trials.race.is_over
        with refusals("compute this batch"):
            vectors = self._trials.computed(contexts.batch, self.settings, n_tokens - sum(n_prefix or ()), compute)
        if race.is_over and not race_was_over and race.winner != self.n_threads:
            self._use(self.settings.changed("n_threads", race.winner, Reason("tried", "fastest in this work")))
            self._explain(self.settings.explained("n_threads"))
        return contexts.sounded(contexts.batch, vectors, sequences, self._owner.go_on)

    def _decode_apart(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Sequences that fit a batch only by sharing prefixes, from which llama.cpp's pooling would not gain."""
        pooled = np.empty((len(sequences), self.info.n_embd), np.float32)
        for rows, _ in pack(sequences, [0] * len(sequences), self.n_batch, self.n_seq_max):
            try:
                pooled[rows] = self._decode([sequences[row] for row in rows], None)
            except BadVectorError as error:
                raise BadVectorError(error.message, rows[error.index]) from None
        return pooled

    def _explain(self, line: str) -> None:
        explaining.info("%s: %s", self.info.path.stem, line)

    def _use(self, settings: Settings) -> None:
        self._open_contexts().use(settings)
        self.settings = settings

    def _begin_long(self, ids: Sequence[int]) -> tuple[PoolingContext, int]:
        self._owner.go_on()
        context = self._open_contexts().long(len(ids), self.n_ctx_max)
        return context, context.begin(ids)

    def _piece(self, context: PoolingContext, ids: Sequence[int], start: int) -> int:
        self._owner.go_on()
        with refusals("compute this text"):
            return context.piece(ids, start, shared=self._owner.is_shared)

    def _end_long(self, context: PoolingContext, ids: Sequence[int]) -> NDArray[np.float32]:
        self._owner.go_on()
        with refusals("compute this text"):
            vectors = context.taken(1)
        return self._open_contexts().sounded(context, vectors, [ids], self._owner.go_on)

    def _open_model(self) -> binding.Weights:
        if self._model is None:
            raise EngineError("the engine is closed")
        return self._model

    def _open_contexts(self) -> Contexts:
        if self._contexts is None:
            raise EngineError("the engine is closed")
        return self._contexts

    def _free(self) -> None:
        if self._contexts is not None:
            self._contexts.free()
            self._contexts = None
        if self._model is not None:
            self._model.free()
            self._model = None
