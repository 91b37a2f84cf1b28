"""The child process of a WorkerEngine: started, called, watched and ended.

Five pipes: `work` for batches, `long` for texts longer than a batch, `words` for tokenizing, `log` for the child's
log lines, and `stderr` for what native code in the child writes to stderr. Knows processes and signals; nothing of
engines.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, Q3EError
from q3e_local.llama.child import SPAWN, ChildProcess, LastWords, exit_code, start_unsignalled
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.workers.child import BEGUN, Facts, Moved, OpenEngine, Piece, run
from q3e_local.server.workers.liveness import Bounds, Liveness, Task, TaskInProgress
from q3e_local.wording.endings import ended

logger = logging.getLogger(__name__)

_ENDING_S = 5.0  # how long a killed process may take to be gone
_DISK_BYTES_PER_S = 100e6  # what loading is expected to take


class NotBegunError(WorkerDiedError):
    """The child died before it began with this call, which can therefore be made again."""


class WorkerProcess:
    """A started child. `ready` waits for the model; then `ask`, one caller at a time on each pipe.

    A child that hangs, by `bounds`, is ended and counts as dead. When the child ends without having been asked to,
    `on_death` is called once with the cause, from any thread.
    """

    def __init__(
        self,
        path: Path,
        config: EngineConfig,
        open_engine: OpenEngine,
        on_death: Callable[[str], None],
        bounds: Bounds,
    ) -> None:
        self.name = path.stem
        self._path = path
        self.is_loaded = False
        self.now: Moved | None = None  # where the layers are, once they are loaded
        self._on_death = on_death
        self._ending = False
        self._cause: str | None = None  # of its death
        self._hung: str | None = None  # how it hung, if it did
        self._reporting = threading.Lock()
        pairs = {name: SPAWN.Pipe() for name in ("work", "long", "words")}
        self._pipes = {name: ours for name, (ours, _) in pairs.items()}
        work, long, words = (its for _, its in pairs.values())
        self._log, log = SPAWN.Pipe(duplex=False)
        self._stderr, stderr = SPAWN.Pipe(duplex=False)
        # Of all lines the lowest that anybody here may want: loggers here have the last word.
        level = min(logging.getLogger(name).getEffectiveLevel() for name in ("q3e_local", "q3e_local.settings"))
        self._process = ChildProcess(
            target=run,
            args=(work, long, words, log, stderr, path, config, open_engine, level),
            name=f"q3e {path.name}",
            daemon=True,
        )
        try:
            start_unsignalled(self._process)
        finally:
            # Only the child holds these ends from here on, so that its death shows as the end of the pipes.
            for end in (work, long, words, log, stderr):
                end.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        # multiprocessing would end a forgotten child with SIGTERM, which it ignores, and wait for ever.
        atexit.register(self._kill)
        self._listener = threading.Thread(target=self._listen, name="q3e-worker-log", daemon=True)
        self._liveness = Liveness(bounds, lambda: machine.activity(self.pid))
        self._watcher = threading.Thread(target=self._watch, name="q3e-worker-watch", daemon=True)
        self._last_words = LastWords(self._stderr, lambda line: logger.warning("%s: %s", self.name, line))
        self._listener.start()
        self._watcher.start()

    def is_alive(self) -> bool:
        """Whether the child answers. One whose pipes have ended is dead, though the system may still have it."""
        return not self._ending and self._cause is None and self._process.is_alive()

    def ready(self) -> Facts:
        """Wait until the model is loaded. Raises what loading raised."""
        n_bytes = 0
        with suppress(OSError):
            n_bytes = self._path.stat().st_size
        with self._liveness.doing(Task("loading", n_bytes / _DISK_BYTES_PER_S)) as progress:
            facts: Facts = self._answer(self._pipes["work"], progress)
        self.now = Moved(facts.placement, facts.n_bytes)
        self.is_loaded = True
        return facts

    def ask(self, pipe_name: str, method: str, argument: Any, task: Task) -> Any:
        """Call a method of the engine in the child.

        Raises what it raises, WorkerDiedError, or NotBegunError when the child was dead before it began.
        """
        pipe = self._pipes[pipe_name]
        with self._liveness.doing(task) as progress:
            try:
                pipe.send((method, argument))
                begun = self._receive(pipe) == BEGUN
            except OSError:
                begun = False
            if not begun:
                raise NotBegunError(str(self._died()))
            began = time.monotonic()
            answer = self._answer(pipe, progress)
            task.took(time.monotonic() - began)
            return answer

    def end(self) -> None:
        """Kill the child: it has nothing to save, and the system takes all of its memory back."""
        if not self._ending and not self._process.is_alive():
            self._died()  # by itself, and nobody has logged it yet
        self._ending = True
        self._liveness.close()
        self._kill()
        atexit.unregister(self._kill)
        self._watcher.join(_ENDING_S)
        self._listener.join(_ENDING_S)
        self._last_words.join()
        # The pipes close with the last reference: another thread may be reading the end of one just now.

    def _kill(self) -> None:
        with suppress(OSError, ValueError):
            self._process.kill()
        exit_code(self._process, _ENDING_S)

    def _answer(self, pipe: Connection[Any, Any], progress: TaskInProgress) -> Any:
        while isinstance(answer := self._receive(pipe), Piece | Moved):
            if isinstance(answer, Moved):
                self.now = answer
            else:
                progress.part_done()
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
        except BaseException:  # interrupted: the next caller would get the answer to this call
            # No death to be told: who pressed Ctrl-C knows.
            self._cause = self._cause or f"the process of {self.name} (pid {self.pid}) ended with an interrupted call"
            self._kill()
            raise

    def _watch(self) -> None:
        """End the child when it hangs."""
        self._hung = self._liveness.watch()
        if self._hung is None or self._ending:
            return
        with suppress(OSError, ValueError):
            self._process.kill()
        # A process that hangs in a driver outlives the kill, and callers must not wait for it.
        for pipe in self._pipes.values():
            _hang_up(pipe)
        self._died()

    def _listen(self) -> None:
        """Log the child's lines. The end of the pipe is the end of the child."""
        with suppress(EOFError, OSError):
            while True:
                self._log.recv().log()
        if not self._ending:
            self._died()

    def _died(self) -> Q3EError:
        """The error for a call that was in flight; the cause is logged once."""
        if self._ending:
            return EngineError("the engine was closed while it worked")
        with self._reporting:
            if self._cause is None:
                code = exit_code(self._process, _ENDING_S)
                self._last_words.join()
                if self._hung is not None:
                    how = f"was ended because it hung: it {self._hung}"
                else:
                    how = ended(code) + ("" if self.is_loaded else " while it loaded")
                self._cause = f"the process of {self.name} (pid {self.pid}) {how}"
                if self._last_words.text:
                    self._cause += f"; its last words: {self._last_words.text}"
                logger.error(
                    "%s%s", self._cause, "; a new one is started when it is needed" if self.is_loaded else ""
                )
                self._on_death(self._cause)
        return WorkerDiedError(self._cause, "; try again, a new one is started then" if self.is_loaded else "")


def _hang_up(pipe: Connection[Any, Any]) -> None:
    """End a pipe for those who read or write it just now."""
    if os.name != "posix":  # where killing is all that can be done
        return
    with suppress(OSError), socket.socket(fileno=os.dup(pipe.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
