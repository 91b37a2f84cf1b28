"""The child process of a WorkerEngine: started, asked, and ended.

Five pipes: `work` for decoding, `long` for texts longer than a batch and `words` for tokenizing beside it, `log` for
the child's log lines and `said` for what native code in it writes to stderr. Knows processes and signals; nothing of
engines.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from q3e_local.child import SPAWN, exit_code, start_unsignalled
from q3e_local.endings import ended
from q3e_local.engine import EngineConfig
from q3e_local.errors import EngineError, Q3EError
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.worker_child import BEGUN, Facts, OpenEngine, run

logger = logging.getLogger(__name__)

_ENDING_S = 5.0  # how long a killed process may take to be gone
_HEARING_S = 1.0  # and its last words to be read
_LAST_LINES = 5
_LINE_BYTES = 400


class NotBegunError(WorkerDiedError):
    """The child died before it began with this call, which can be made again without a doubt."""


class WorkerProcess:
    """A started child. `ready` waits for the model; then `ask`, one caller at a time on each pipe.

    `on_death` is told the cause, once, when the child ends without having been asked to; from any thread.
    """

    def __init__(
        self,
        path: Path,
        config: EngineConfig,
        open_engine: OpenEngine,
        on_death: Callable[[str], None] = lambda cause: None,
    ) -> None:
        self.name = path.stem
        self.is_loaded = False
        self._on_death = on_death
        self._ending = False
        self._cause: str | None = None  # of its death
        self._reporting = threading.Lock()
        self.work, work = SPAWN.Pipe()
        self.long, long = SPAWN.Pipe()
        self.words, words = SPAWN.Pipe()
        self._log, log = SPAWN.Pipe(duplex=False)
        self._said, said = SPAWN.Pipe(duplex=False)
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        level = logging.getLogger("q3e_local").getEffectiveLevel()
        self._process = SPAWN.Process(
            target=run,
            args=(work, long, words, log, said, path, config, open_engine, level),
            name=f"q3e {path.name}",
            daemon=True,
        )
        try:
            start_unsignalled(self._process)
        finally:
            # Only the child holds these ends from here on, so that its death shows as the end of the pipes.
            for end in (work, long, words, log, said):
                end.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        # multiprocessing would end a forgotten child with SIGTERM, which it ignores, and wait for ever.
        atexit.register(self._kill)
        self._listener = threading.Thread(target=self._listen, name="q3e-worker-log", daemon=True)
        self._hearer = threading.Thread(target=self._hear, name="q3e-worker-stderr", daemon=True)
        self._hearer.start()
        self._listener.start()

    def is_alive(self) -> bool:
        """Whether it can be asked. One that hung up counts as dead, though the system may not be done with it."""
        return not self._ending and self._cause is None and self._process.is_alive()

    def ready(self) -> Facts:
        """Wait until the model is loaded. Raises what loading raised."""
        facts: Facts = self._answer(self.work)
        self.is_loaded = True
        return facts

    def ask(self, pipe: Connection[Any, Any], method: str, argument: Any) -> Any:
        """Call a method of the engine in the child.

        Raises what it raises, WorkerDiedError, or NotBegunError when the child was dead before it began.
        """
        try:
            pipe.send((method, argument))
            begun = self._receive(pipe) == BEGUN
        except OSError:
            begun = False
        if not begun:
            raise NotBegunError(str(self._died()))
        return self._answer(pipe)

    def end(self) -> None:
        """Kill the child: it has nothing to save, and the system takes all of its memory back."""
        if not self._ending and not self._process.is_alive():
            self._died()  # by itself, and nobody has said so yet
        self._ending = True
        self._kill()
        atexit.unregister(self._kill)
        self._listener.join(_ENDING_S)
        self._hearer.join(_HEARING_S)
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

    def _hear(self) -> None:
        """What the child writes to stderr goes to our log, and the last of it is kept for `_died`."""
        if os.name != "posix":
            return
        with suppress(OSError), os.fdopen(os.dup(self._said.fileno()), "rb") as stderr:
            while line := stderr.readline(_LINE_BYTES):
                text = line.decode("utf-8", "replace").strip()
                if text:
                    self._last_lines.append(text)
                    logger.warning("%s: %s", self.name, text)

    def _died(self) -> Q3EError:
        """The error for a call that was in flight; the cause is logged once."""
        if self._ending:
            return EngineError("the engine was closed while it worked")
        with self._reporting:
            if self._cause is None:
                code = self._exit_code()
                self._hearer.join(_HEARING_S)
                self._cause = f"the process of {self.name} (pid {self.pid}) {ended(code)}"
                if not self.is_loaded:
                    self._cause += " while it loaded"
                if self._last_lines:
                    self._cause += "; its last words: " + " | ".join(self._last_lines)
                logger.error("%s%s", self._cause, "; the next request starts a new one" if self.is_loaded else "")
                self._on_death(self._cause)
        again = "; try again, the next request starts a new one"
        return WorkerDiedError(f"{self._cause}{again if self.is_loaded else ''}")

    def _exit_code(self) -> int | None:
        """How the process ended, once it has; None if it does not."""
        return exit_code(self._process, _ENDING_S)
