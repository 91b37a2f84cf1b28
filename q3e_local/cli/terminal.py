"""The terminal that a command talks to: lines that stay, and one live line below them that says what is going on.

Owns the screen while there is a live line: before Python writes anything to stdout or stderr, the live line is taken
away, and it is drawn again below. Knows terminals and threads; nothing of what the lines say.
"""

from __future__ import annotations

import io
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TextIO

import click

_TICK_S = 0.1
_COLUMNS = 80  # where a terminal does not say how wide it is

Line = Callable[[int], str]
"""Is called with the columns there are, and returns the text of the live line; an empty text is not drawn."""


def say(line: str) -> None:
    """Write a line to stderr."""
    click.echo(line, err=True)


def say_over(line: str) -> None:
    """Write a line to stderr, over the `^C` that a terminal shows when the key is pressed."""
    say(f"{_erasing(sys.stderr)}{line}" if has_screen() else line)


def answer(line: str) -> None:
    """Show a line at once after a key was pressed; for signal handlers, which must not wait for a lock."""
    if not has_screen():
        return
    if _screen is not None:
        _screen.news.put(line)
    else:
        with suppress(OSError):
            os.write(sys.stderr.fileno(), f"{_erasing(sys.stderr)}{line}{os.linesep}".encode())


def has_screen() -> bool:
    """Whether stderr is a terminal with a cursor that can be moved."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def refresh() -> None:
    """Draw the live line at once, because it says something new."""
    if (screen := _screen) is not None:  # another thread may end the block between two looks
        screen.news.put("")


@contextmanager
def live(line: Line, quiet: bool) -> Iterator[None]:
    """Keep a line at the bottom of the screen until the block ends. Blocks must not nest."""
    global _screen
    if quiet or not has_screen():
        yield
        return
    screen = _screen = _Screen(line)
    try:
        screen.begin()
        yield
    finally:
        _screen = None
        screen.end()


class _Screen:
    """A thread that draws the live line, and streams that take it away before they write."""

    def __init__(self, line: Line) -> None:
        self._line = line
        # A put is safe in a signal handler, even where it interrupts another put.
        self.news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stderr, self._stdout = sys.stderr, sys.stdout
        self._bytes = self._stderr.buffer
        self._erase = _erasing(self._stderr)
        self._lock = threading.RLock()
        self._is_drawn = False
        self._ends_line = True  # whether the last output did: a question waits in its line, which must stay
        self._written_at = float("-inf")
        self._guards: list[TextIO] = []  # kept: a collected one would close its buffer, which others may have
        self._thread = threading.Thread(target=self._draw_again_and_again, name="q3e-screen", daemon=True)

    def begin(self) -> None:
        sys.stderr = self._guarded(self._stderr)
        if _is_one_terminal(self._stdout, self._stderr):
            sys.stdout = self._guarded(self._stdout)
        self._thread.start()

    def end(self) -> None:
        try:
            if self._thread.is_alive():
                self.news.put(None)
                self._thread.join()
        finally:
            with suppress(OSError, ValueError):  # the terminal is gone
                sys.stderr.flush()
                if sys.stdout is not None:
                    sys.stdout.flush()
            sys.stderr, sys.stdout = self._stderr, self._stdout
            with suppress(OSError, ValueError), self.cleared():
                pass

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Hold others back, and put the cursor where it was before the live line was drawn."""
        with self._lock:
            if self._is_drawn:
                self._is_drawn = False
                self._write(self._erase)
            yield
            self._written_at = time.monotonic()

    def write(self, stream: BinaryIO, data: memoryview) -> None:
        """Write the output of others."""
        with self.cleared():
            stream.write(data)
            stream.flush()
            if len(data):
                self._ends_line = bytes(data[-1:]) == b"\n"

    def _guarded(self, stream: TextIO) -> TextIO:
        buffer = io.BufferedWriter(_Guarded(stream.buffer, self))
        guard = io.TextIOWrapper(buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=True)
        self._guards.append(guard)
        return guard

    def _draw_again_and_again(self) -> None:
        with suppress(OSError, ValueError):  # the terminal is gone: whoever writes next gets the error
            self._draw()
            while True:
                try:
                    news = self.news.get(timeout=_TICK_S)
                except queue.Empty:
                    news = ""
                if news is None:
                    return
                if news:
                    with self.cleared():
                        self._write(news + os.linesep)
                # While others write, such as the rows of a table, a line that comes and goes would only flicker.
                if self._ends_line and time.monotonic() - self._written_at >= _TICK_S / 2:
                    self._draw()

    def _draw(self) -> None:
        with self._lock:
            if not self._ends_line or not _is_in_foreground(self._stderr):
                return
            width = _columns(self._stderr) - 1  # after the last column some terminals go to the next row
            line = self._line(width)
            if not line:
                return
            # The cursor goes back to the first column: if a narrower window wraps the line, all of it is still behind
            # the cursor, and erasing from there leaves nothing.
            if self._erase == _ERASE:
                self._write(f"\r{line}\x1b[J\r")
            else:
                self._write(f"{self._erase}{line}\r")
            self._is_drawn = True

    def _write(self, text: str) -> None:
        self._bytes.write(text.encode(self._stderr.encoding, self._stderr.errors or "strict"))
        self._bytes.flush()


class _Guarded(io.RawIOBase):
    """A stream to the terminal, which the live line makes way for."""

    def __init__(self, stream: BinaryIO, screen: _Screen) -> None:
        self._stream, self._screen = stream, screen

    def write(self, data: Any, /) -> int:
        self._screen.write(self._stream, data)
        return len(data)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


_screen: _Screen | None = None
_ERASE = "\r\x1b[J"  # from the first column to the end of the screen


def _erasing(stream: TextIO) -> str:
    """What to write to take away the line that the cursor is in."""
    if os.name == "nt":
        from rich.console import Console

        if Console(file=stream).legacy_windows:  # prints escape sequences as they are
            return "\r" + " " * (_columns(stream) - 1) + "\r"
    return _ERASE


def _is_in_foreground(stream: TextIO) -> bool:
    """Whether this command has the terminal, and not the shell, as after `&` or `bg`."""
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:  # not the terminal that this process was started from
        return True


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


def _is_one_terminal(one: TextIO | None, other: TextIO) -> bool:
    if one is None or not one.isatty():
        return False
    return os.name == "nt" or os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev
