"""A child process for native work, so that a crash there ends the child and not the program.

Knows processes, pipes and signals; nothing of what the child computes.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from q3e_local.errors import CrashError, EngineError, NotEnoughMemoryError, Q3EError
from q3e_local.wording.endings import ended

logger = logging.getLogger(__name__)

SPAWN = multiprocessing.get_context("spawn")
_ENDING_S = 5.0  # how long a killed process may take to be gone
_HEARING_S = 1.0  # how long its last words may take to be read
_LAST_LINES = 5
_LINE_BYTES = 400


class ChildProcess(SpawnProcess):
    """A process that does not keep this one from its end, as one would that hangs in a driver and outlives a kill."""

    def join(self, timeout: float | None = None) -> None:
        """Python joins all its children, for as long as that takes, when it ends."""
        super().join(_ENDING_S if timeout is None else timeout)


class Child:
    """A child process and an object in it, whose methods are called from here, one at a time.

    `make(*arguments)` is called in the child before the first call and returns the object; it must be a function or
    class of a module. The child ignores Ctrl-C and SIGTERM: it ends when it is closed, or when this process ends.
    """

    def __init__(self, make: Callable[..., object], *arguments: object) -> None:
        self._pipe, pipe = SPAWN.Pipe()
        self._stderr, stderr = SPAWN.Pipe(duplex=False)
        level = logging.getLogger("q3e_local").getEffectiveLevel()
        self._process = ChildProcess(target=_run, args=(pipe, stderr, make, arguments, level), daemon=True)
        try:
            start_unsignalled(self._process)
        except OSError as error:
            raise EngineError(f"cannot start a process for llama.cpp: {error.strerror}") from None
        finally:
            # Only the child holds these ends now, so that its death shows as the end of the pipes.
            pipe.close()
            stderr.close()
        # multiprocessing would end a forgotten child with SIGTERM, which it ignores, and wait for ever.
        atexit.register(self._kill)
        self._last_words = LastWords(self._stderr, lambda line: logger.info("%s", line))

    @property
    def is_alive(self) -> bool:
        """Whether the process is there to answer."""
        return bool(self._process.is_alive())

    def ask(self, method: str, *arguments: object, timeout_s: float | None = None) -> Any:
        """Call a method of the object in the child.

        Raises the Q3EError that `make` or the method raised, EngineError for any other error, CrashError when the
        child has ended, and TimeoutError after it ended a child that had not answered in time.
        """
        try:
            self._pipe.send((method, arguments))
            answer = self._answer(timeout_s)
        except TimeoutError:  # which is an OSError too
            self._kill()
            raise
        except (EOFError, OSError):
            raise self._crash() from None
        except BaseException:
            self._kill()  # interrupted: the next call would get the answer to this one
            raise
        if isinstance(answer, Q3EError):
            raise answer
        return answer

    def close(self) -> None:
        """End the child: it has nothing to save. Closing twice is fine."""
        self._kill()
        atexit.unregister(self._kill)
        self._last_words.join()
        self._pipe.close()
        self._stderr.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(self, timeout_s: float | None) -> Any:
        """What the method returned, or the error it raised. Raises EOFError when the child has ended."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            # Beside the pipe, which a grandchild could hold open.
            if not wait([self._pipe, self._process.sentinel], left_s):
                raise TimeoutError(f"llama.cpp's process gave no answer within {timeout_s:g} s")
            if not self._pipe.poll():
                raise EOFError
            answer = self._pipe.recv()
            if not isinstance(answer, LogLine):
                return answer
            answer.log()

    def _kill(self) -> None:
        with suppress(OSError, ValueError):
            self._process.kill()
        exit_code(self._process)

    def _crash(self) -> CrashError:
        code = exit_code(self._process)
        self._last_words.join()
        return CrashError(ended(code), code, self._last_words.text)


class LastWords:
    """What native code in a child writes to stderr: `log` gets each line, and the last lines are kept."""

    def __init__(self, stderr: Connection[Any, Any], log: Callable[[str], None]) -> None:
        self._stderr, self._log = stderr, log
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._thread = threading.Thread(target=self._hear, name="q3e-child-stderr", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """The last lines so far."""
        return " | ".join(self._lines)

    def join(self) -> None:
        """Wait a moment until all is read of a child that has ended."""
        self._thread.join(_HEARING_S)

    def _hear(self) -> None:
        if os.name != "posix":
            return
        with suppress(OSError), os.fdopen(os.dup(self._stderr.fileno()), "rb") as stream:
            while line := stream.readline(_LINE_BYTES):
                if text := line.decode("utf-8", "replace").strip():
                    self._lines.append(text)
                    self._log(text)


@dataclass(frozen=True)
class LogLine:
    """A line that a child logged."""

    name: str
    level: int
    text: str

    def log(self) -> None:
        """Log the line in this process."""
        logging.getLogger(self.name).log(self.level, "%s", self.text)


def start_unsignalled(process: Any) -> None:
    """Start a child of SPAWN with Ctrl-C and SIGTERM held back, until `settle_in` has made it ignore both."""
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


def exit_code(process: Any, ending_s: float = _ENDING_S) -> int | None:
    """Wait for a child to end, `ending_s` at most: its exit code, or None where it lives on."""
    until = time.monotonic() + ending_s
    wait([process.sentinel], ending_s)
    # The thread that reaps it knows the code a moment before the others do.
    while process.exitcode is None and time.monotonic() < until:
        time.sleep(0.005)
    code: int | None = process.exitcode
    return code


# In the child from here on.


def settle_in(stderr: Connection[Any, Any]) -> None:
    """Make this process a child: it ignores signals that are for its parent, and its output goes to `stderr`."""
    # A Ctrl-C or a service manager's SIGTERM reaches all processes; the parent decides what is finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort would wait for a debugger
    if os.name == "posix":
        os.dup2(stderr.fileno(), 2)  # where native code says why it aborts
    with suppress(OSError):
        os.dup2(2, 1)  # stdout is the parent's; native code may print


def relay_log(level: int, say: Callable[[LogLine], None]) -> None:
    """Have `say` bring each line that is logged here from this level on to the parent."""
    logging.basicConfig(level=level, handlers=[_Relay(say)], force=True)


class _Relay(logging.Handler):
    def __init__(self, say: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._say = say
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # the parent is gone
            self._say(LogLine(record.name, record.levelno, self.format(record)))


def crossing(error: Exception) -> Q3EError:
    """The error as the parent will see it: an error of ours unchanged, any other as the nearest of ours."""
    if isinstance(error, Q3EError):
        return error
    logger.error("the engine failed", exc_info=error)
    if isinstance(error, MemoryError):
        return NotEnoughMemoryError("the model's process has no memory left; close other programs")
    return EngineError(f"the engine failed: {type(error).__name__}: {error}")


def _run(
    pipe: Connection[Any, Any],
    stderr: Connection[Any, Any],
    make: Callable[..., object],
    arguments: tuple[object, ...],
    level: int,
) -> None:
    settle_in(stderr)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sending = threading.Lock()

    def say(answer: object) -> None:
        with sending, suppress(OSError):  # the parent is gone, and so shall we be
            pipe.send(answer)

    relay_log(level, say)
    made: object | None = None
    with suppress(EOFError, OSError):
        while True:
            method, its_arguments = pipe.recv()
            try:
                made = make(*arguments) if made is None else made
                answer = getattr(made, method)(*its_arguments)
            except Exception as error:
                answer = crossing(error)
            say(answer)
    os._exit(0)


def _end_with_parent() -> None:
    """End this process with its parent, in the middle of any work: nobody is left to take the result."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)
