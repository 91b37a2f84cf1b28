"""What runs in the child process of a WorkerEngine: one engine, answering calls.

Imports llama.cpp, and only when it is told to load. Leaves stdin and stdout alone, and ends with its server.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from q3e_local import machine
from q3e_local.embedding.engine import Engine, EngineConfig
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.llama import library
from q3e_local.llama.child import crossing, relay_log, settle_in
from q3e_local.llama.kernels.choice import Kernels, Taken
from q3e_local.llama.settings.defaults import Settings
from q3e_local.llama.settings.placement import Placement

# Answered to each call before it is done.
BEGUN = "begun"


class ServedEngine(Engine, Protocol):
    """What a server asks of the engine in a model's process, beyond the library's needs."""

    @property
    def n_vocab(self) -> int:
        """Ids are below this."""

    @property
    def n_bytes(self) -> int:
        """Memory of the weights and of the context it starts with."""

    @property
    def placement(self) -> Placement:
        """Which layers are on which GPUs."""

    def look(self) -> Placement:
        """The same, with the memory that the GPUs have free now."""

    @property
    def settings(self) -> Settings:
        """How it runs, and why."""

    @property
    def tap(self) -> bool:
        """Whether hidden states are read by the tap."""

    @property
    def kernels(self) -> Kernels:
        """Which kernels compute on the CPU."""

    @property
    def kernels_taken(self) -> Taken:
        """The operations that our kernels computed so far."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens written out."""

    def decode(
        self,
        sequences: Sequence[Sequence[int]],
        n_prefix: Sequence[int] | None = None,
        on_piece: Callable[[int], None] = lambda n_tokens: None,
    ) -> NDArray[np.float32]:
        """As `Engine`; `on_piece` is called with the tokens of each piece of a text longer than a batch."""


OpenEngine = Callable[[Path, EngineConfig], ServedEngine]
"""Loads the model in the child, so it must be a function of a module, or a `partial` of one."""


def open_llama(
    path: Path, config: EngineConfig, kind: ModelKind | None = None, unproved: str | None = None
) -> ServedEngine:
    """The engine on llama.cpp, which only the child imports. `kind` is what the user says that the file is.

    A reranker that no card vouches for comes with its name in `unproved`, and must put a right answer above a wrong
    one. Raises what loading raises, and WrongModelError where it does not.
    """
    with library.importing():
        from q3e_local.llama.engine import LlamaEngine
    from q3e_local.reranking.proof import prove
    from q3e_local.reranking.reranker import Reranker

    engine = LlamaEngine(path, config, kind=kind)
    if engine.kind == "reranker" and unproved is not None:
        prove(Reranker(engine, unproved))
    return engine


@dataclass(frozen=True)
class Piece:
    """A piece of a long text is done. Comes before the answer."""

    n_tokens: int


@dataclass(frozen=True)
class Moved:
    """Where the layers are now, and the memory that the model takes. Comes before an answer if it has changed."""

    placement: Placement
    n_bytes: int


@dataclass(frozen=True)
class Facts:
    """What a loaded model is, and how it runs; of its placement and memory, how it was when it was loaded."""

    digest: str
    kind: ModelKind
    n_embd: int
    n_ctx_max: int
    n_batch: int
    n_seq_max: int
    eos_id: int
    added_tokens: tuple[str, ...]
    n_vocab: int
    n_bytes: int
    placement: Placement
    settings: Settings
    tap: bool
    kernels: Kernels


def run(
    work: Connection[Any, Any],
    long: Connection[Any, Any],
    words: Connection[Any, Any],
    log: Connection[Any, Any],
    stderr: Connection[Any, Any],
    path: Path,
    config: EngineConfig,
    open_engine: OpenEngine,
    level: int,
) -> None:
    settle_in(stderr)
    relay_log(level, log.send)
    methods: dict[str, Callable[[Any], Any]] = {}
    # Before loading, because this thread also notices when the server is gone.
    threading.Thread(target=_serve, args=(words, methods), daemon=True).start()
    try:
        engine = open_engine(path, config)
    except Exception as error:
        _say(work, crossing(error))
        _serve(work, {})  # until the server has the error and ends this process
        return
    said = engine.placement

    def news(pipe: Connection[Any, Any]) -> None:
        nonlocal said
        if engine.placement != said:
            said = engine.placement
            _say(pipe, Moved(said, engine.n_bytes))

    def decode(argument: Any) -> Any:
        try:
            return engine.decode(*argument), engine.n_keepable
        finally:
            news(work)

    def look(_: Any) -> bool:
        _say(work, Moved(engine.look(), engine.n_bytes))
        return True

    methods["decode"], methods["look"] = decode, look
    methods["tokenize_all"] = lambda texts: [engine.tokenize(text) for text in texts]
    methods["detokenize"] = engine.detokenize
    methods["pieces"] = engine.pieces
    methods["kernels_taken"] = lambda _: engine.kernels_taken
    methods["peak_bytes"] = lambda _: machine.peak_memory()

    def in_pieces(argument: Any) -> Any:
        sequences, n_prefix = argument
        try:
            vectors = engine.decode(sequences, n_prefix, on_piece=lambda n_tokens: _say(long, Piece(n_tokens)))
            return vectors, engine.n_keepable
        finally:
            news(long)

    # The engine lets batches in while it computes a long text, if they are asked for beside it.
    threading.Thread(target=_serve, args=(long, {"decode": in_pieces}), daemon=True).start()
    _say(work, Facts(**{name: getattr(engine, name) for name in Facts.__dataclass_fields__}))
    _serve(work, methods)


def _serve(pipe: Connection[Any, Any], methods: dict[str, Callable[[Any], Any]]) -> None:
    """Answer one call after the other, and end the process when the other side has gone."""
    # subtle: `finally` also ends a process whose pipe is broken in another way than by its end.
    try:
        while True:
            method, argument = pipe.recv()
            pipe.send(BEGUN)
            try:
                answer = methods[method](argument)
            except Exception as error:
                answer = crossing(error)
            pipe.send(answer)
    finally:
        # At once, whatever the other threads compute: the server is not there to take it.
        sys.stderr.flush()
        os._exit(0)


def _say(pipe: Connection[Any, Any], what: object) -> None:
    try:
        pipe.send(what)
    except OSError:  # the server is gone
        os._exit(0)
