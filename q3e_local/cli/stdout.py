"""stdout as a pipe or a file: a reader that has gone is no failure, a full disk is one sentence.

Knows the errors of writing; nothing of what is written.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from q3e_local.errors import OutputError


class ReaderGoneError(Exception):
    """Nobody reads our stdout any more, as behind `| head`. Any other pipe that breaks is a failure."""


def mark_own_errors() -> None:
    """Replace stdout by a stream whose errors show that they are stdout's, unless it is a terminal or a test's."""
    old = sys.stdout
    if old is None or old is not sys.__stdout__ or not isinstance(old, io.TextIOWrapper) or old.isatty():
        return
    old.flush()
    stream = io.BufferedWriter(_Stdout(old.fileno(), "wb", closefd=False))
    sys.stdout = io.TextIOWrapper(stream, old.encoding, line_buffering=old.line_buffering)


def flush() -> None:
    """Write what is still in stdout's buffer. Raises ReaderGoneError or OutputError."""
    if sys.stdout is not None:  # None: closed, or a program without a console
        sys.stdout.flush()


def is_reader_gone(error: OSError, on_windows: bool = os.name == "nt") -> bool:
    """Whether writing failed because nobody reads, which Windows reports as an invalid argument."""
    return isinstance(error, BrokenPipeError) or (on_windows and error.errno == errno.EINVAL)


class _Stdout(io.FileIO):
    _has_failed = False

    def write(self, data: Any, /) -> int:
        if self._has_failed:  # Python flushes again at exit, and would complain again
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._has_failed = True
            if is_reader_gone(error):
                raise ReaderGoneError from None
            raise OutputError(f"cannot write to stdout: {error.strerror}") from None
