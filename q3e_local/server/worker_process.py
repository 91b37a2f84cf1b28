"""The child process of a WorkerEngine, seen from both sides.

Three pipes: `work` for decoding, `words` for tokenizing beside it, `log` for what the child has to say. stdin and
stdout are left alone. Knows processes and signals; of the engine only which methods may be asked.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from q3e_local.engine import Engine, EngineConfig
from q3e_local.errors import EngineError, NotEnoughMemoryError, Q3EError
from q3e_local.server.errors import WorkerDiedError

logger = logging.getLogger(__name__)

_SPAWN = multiprocessing.get_context("spawn")
_ENDING_S = 5.0  # how long a killed process may take to be gone
_BEGUN = "begun"


class ServedEngine(Engine, Protocol):
    """What a server asks of an engine beyond the library's needs."""

    @property
    def n_vocab(self) -> int:
        """Ids are below this."""

    @property
    def n_bytes(self) -> int:
        """Memory of the weights and of the context it starts with."""

    @property
    def on_gpu(self) -> bool:
        """Whether any of it is on a GPU."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens written out."""


OpenEngine = Callable[[Path, EngineConfig], ServedEngine]
"""Loads the model; called in the child, so it must be a function of a module."""


def open_llama(path: Path, config: EngineConfig) -> ServedEngine:
    """The engine on llama.cpp, which only a child imports."""
    from q3e_local.llama.engine import LlamaEngine

    return LlamaEngine(path, config)


@dataclass(frozen=True)
class Facts:
    """What stays the same about a loaded model."""

    digest: str
    n_embd: int
    n_ctx_max: int
    n_batch: int
    n_seq_max: int
    eos_id: int
    added_tokens: tuple[str, ...]
    n_vocab: int
    n_bytes: int
    on_gpu: bool


class NotBegunError(WorkerDiedError):
    """The child died before it began with this call, which can be made again without a doubt."""


class WorkerProcess:
    """A started child. `ready` waits for the model; then `ask`, one caller at a time on each pipe."""

    def __init__(self, path: Path, config: EngineConfig, open_engine: OpenEngine) -> None:
        self.name = path.stem
        self._ending = False
        self._reported = False
        self._reporting = threading.Lock()
        self.work, work = _SPAWN.Pipe()
        self.words, words = _SPAWN.Pipe()
        self._log, log = _SPAWN.Pipe(duplex=False)
        level = logging.getLogger("q3e_local").getEffectiveLevel()
        self._process = _SPAWN.Process(
            target=_run,
            args=(work, words, log, path, config, open_engine, level),
            name=f"q3e {path.name}",
            daemon=True,
        )
        try:
            _start_unsignalled(self._process)
        finally:
            # Only the child holds these ends from here on, so that its death shows as the end of the pipes.
            for end in (work, words, log):
                end.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        # multiprocessing would end a forgotten child with SIGTERM, which it ignores, and wait for ever.
        atexit.register(self._kill)
        self._listener = threading.Thread(target=self._listen, name="q3e-worker-log", daemon=True)
        self._listener.start()

    def is_alive(self) -> bool:
        return not self._ending and self._process.is_alive()

    def ready(self) -> Facts:
        """Wait until the model is loaded. Raises what loading raised."""
        facts: Facts = self._answer(self.work)
        return facts

    def ask(self, pipe: Connection[Any, Any], method: str, argument: Any) -> Any:
        """Call a method of the engine in the child.

        Raises what it raises, WorkerDiedError, or NotBegunError when the child was dead before it began.
        """
        try:
            pipe.send((method, argument))
            begun = self._receive(pipe) == _BEGUN
        except OSError:
            begun = False
        if not begun:
            raise NotBegunError(str(self._died()))
        return self._answer(pipe)

    def end(self) -> None:
        """Kill the child: it has nothing to save, and the system takes all of its memory back."""
        self._ending = True
        self._kill()
        atexit.unregister(self._kill)
        self._listener.join(_ENDING_S)
        # The pipes close with the last reference: another thread may be reading the end of one just now.

    def _kill(self) -> None:
        with suppress(OSError, ValueError):
            self._process.kill()
        self._exit_code()

    def _answer(self, pipe: Connection[Any, Any]) -> Any:
        answer = self._receive(pipe)
        if answer is None:
            raise self._died()
        if isinstance(answer, Q3EError):
            raise answer
        return answer

    def _receive(self, pipe: Connection[Any, Any]) -> Any:
        """What the child says next; None when it has died."""
        try:
            # Beside the pipe, as a grandchild could hold that open.
            wait([pipe, self._process.sentinel])
            return pipe.recv() if pipe.poll() else None
        except (EOFError, OSError):
            return None
        except BaseException:
            self._kill()  # interrupted: the next caller would get this one's answer
            raise

    def _listen(self) -> None:
        """The child's log lines go to ours; the end of the pipe is the child's end."""
        with suppress(EOFError, OSError):
            while True:
                name, level, text = self._log.recv()
                logging.getLogger(name).log(level, "%s", text)
        if not self._ending:
            self._died()

    def _died(self) -> Q3EError:
        """The error for a call that was in flight; the cause is logged once."""
        if self._ending:
            return EngineError("the engine was closed while it worked")
        cause = f"the process of {self.name} (pid {self.pid}) {_cause(self._exit_code())}"
        with self._reporting:
            if not self._reported:
                self._reported = True
                logger.error("%s; the next request starts a new one", cause)
        return WorkerDiedError(f"{cause}; try again, the next request starts a new one")

    def _exit_code(self) -> int | None:
        """How the process ended, once it has."""
        wait([self._process.sentinel], _ENDING_S)
        until = time.monotonic() + _ENDING_S
        # The thread that reaps it knows the code a moment before the others do.
        while self._process.exitcode is None and time.monotonic() < until:
            time.sleep(0.005)
        return self._process.exitcode


def _start_unsignalled(process: Any) -> None:
    """Start the child with Ctrl-C and SIGTERM held back, until it has said that it ignores both."""
    if not hasattr(signal, "pthread_sigmask"):
        process.start()
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start would lift the mask
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _cause(exit_code: int | None) -> str:
    """How a process ended, in words."""
    if exit_code is None:
        return "does not answer any more"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    number = -exit_code
    name = signal.Signals(number).name if number in {each.value for each in signal.Signals} else f"signal {number}"
    reasons = {
        "SIGKILL": "the system ran out of memory, or someone ended it",
        "SIGABRT": "llama.cpp stopped itself; its reason is on stderr",
        "SIGSEGV": "a crash in native code",
        "SIGBUS": "the model's file was cut or its disk is gone",
        "SIGILL": "the build of llama.cpp does not fit this CPU",
    }
    return f"was ended by {name}" + (f" ({reasons[name]})" if name in reasons else "")


# In the child from here on.


def _run(
    work: Connection[Any, Any],
    words: Connection[Any, Any],
    log: Connection[Any, Any],
    path: Path,
    config: EngineConfig,
    open_engine: OpenEngine,
    level: int,
) -> None:
    # The server decides when it is over: a Ctrl-C or a service manager's SIGTERM reaches all processes, and what
    # runs is to be finished. When the server is gone the pipes end, and so do we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort would wait for a debugger
    with suppress(OSError):
        os.dup2(2, 1)  # stdout is the server's; native code may print
    logging.basicConfig(level=level, handlers=[_Relay(log)], force=True)
    methods: dict[str, Callable[[Any], Any]] = {}
    # Before loading, as it also notices when the server is gone.
    threading.Thread(target=_serve, args=(words, methods), daemon=True).start()
    try:
        engine = open_engine(path, config)
    except Exception as error:
        _say(work, _crossing(error))
        _serve(work, {})  # until the server has heard it and ends us
        return
    methods["decode"] = engine.decode
    methods["tokenize_all"] = lambda texts: [engine.tokenize(text) for text in texts]
    methods["detokenize"] = engine.detokenize
    _say(work, Facts(**{name: getattr(engine, name) for name in Facts.__dataclass_fields__}))
    _serve(work, methods)


def _serve(pipe: Connection[Any, Any], methods: dict[str, Callable[[Any], Any]]) -> None:
    """Answer one call after the other, and end the process when the other side has gone."""
    # subtle: `finally` also ends a process whose pipe is broken in another way than by its end.
    try:
        while True:
            method, argument = pipe.recv()
            pipe.send(_BEGUN)
            try:
                answer = methods[method](argument)
            except Exception as error:
                answer = _crossing(error)
            pipe.send(answer)
    finally:
        # At once, whatever the other thread computes: there is nobody left to take it.
        sys.stderr.flush()
        os._exit(0)


def _say(pipe: Connection[Any, Any], what: object) -> None:
    try:
        pipe.send(what)
    except OSError:  # the server is gone
        os._exit(0)


def _crossing(error: Exception) -> Q3EError:
    """The error as the server will see it: ours as it is, another's as the nearest of ours."""
    if isinstance(error, Q3EError):
        return error
    logger.error("the engine failed", exc_info=error)
    if isinstance(error, MemoryError):
        return NotEnoughMemoryError("the model's process has no memory left; close other programs")
    return EngineError(f"the engine failed: {type(error).__name__}: {error}")


class _Relay(logging.Handler):
    """Sends log lines to the server's process."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        super().__init__()
        self._pipe = pipe
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._pipe.send((record.name, record.levelno, self.format(record)))
