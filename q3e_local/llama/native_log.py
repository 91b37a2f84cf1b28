"""What llama.cpp says: its log lines for Python's logging, and its complaints for the errors.

Knows the levels of ggml's log; calls nothing of llama.cpp.
"""

from __future__ import annotations

import logging
import re
import threading

logger = logging.getLogger("q3e_local.llama")

# ggml_log_level of ggml.h
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUED = 5
_N_LINES = 200  # more than making a context takes


class NativeError(Exception):
    """llama.cpp refused or failed; the text has llama.cpp's words where there were any."""

    @property
    def is_memory(self) -> bool:
        """Whether it was for want of memory: llama.cpp has no code for that, and says which buffer it did not get."""
        return bool(re.search(r"alloc|out of (device |host )?memory", str(self), re.IGNORECASE))


class NativeLog:
    """Joins llama.cpp's pieces into lines, and remembers the latest complaints."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line, self._level = "", logging.DEBUG
        self.complaints: list[str] = []
        self._lines: list[str] = []  # since `begin`

    def __call__(self, level: int, text: bytes | None, _: int | None) -> None:
        with self._lock:
            if level != _CONTINUED:
                self._level = _LEVELS.get(level, logging.DEBUG)
            self._line += (text or b"").decode("utf-8", "replace")
            *lines, self._line = self._line.split("\n")
            lines, level = [line for line in lines if line.strip(". ")], self._level
            self._lines = [*self._lines, *lines][-_N_LINES:]
            if level >= logging.ERROR:
                self.complaints = [*self.complaints, *lines][-5:]
        for line in lines:
            # An error of llama.cpp's reaches the user as an exception; the log has the line for the curious.
            logger.log(min(level, logging.INFO), "%s", line)

    def begin(self) -> None:
        """Forget what was said in calls that ended well."""
        self.complaints, self._lines = [], []

    def has_said(self, words: str) -> bool:
        """Whether a line since `begin` has these words: some of llama.cpp's decisions stand nowhere else."""
        return any(words in line for line in self._lines)

    def failure(self, what: str) -> NativeError:
        """An error with llama.cpp's complaints since `begin` or the failure before."""
        words, self.complaints = "; ".join(self.complaints), []
        return NativeError(f"{what}: {words}" if words else what)
