"""A terminal with a person before it: runs a command on a pseudo-terminal and keeps what its screen shows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyte
from paths import TESTS
from waiting import until as wait_until

_PATIENCE_S = 60
# So that keys of the terminal that is stdin are signals to the command.
_AS_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Screen:
    """The screen of a running command. `lines` are those that are not empty, without spaces at their ends."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int, columns: int, rows: int) -> None:
        self.process = process
        self.raw = b""
        self._ours = ours
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def cursor(self) -> tuple[int, int]:
        with self._lock:
            return self._screen.cursor.x, self._screen.cursor.y

    def wait_for(self, text: str) -> None:
        """Wait until the screen shows it."""
        wait_until(lambda: text in self.text, lambda: f"{text!r} is not on the screen:\n{self.text}")

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def resize(self, columns: int, rows: int) -> None:
        import termios

        with self._lock:
            self._screen.resize(rows, columns)
        termios.tcsetwinsize(self._ours, (rows, columns))

    def end(self) -> int:
        """Wait until the command ends: its exit code."""
        code = self.process.wait(_PATIENCE_S)
        self._reader.join(_PATIENCE_S)
        return code

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 1 << 16)
            except OSError:  # Linux's way to say that nobody has the terminal open
                return
            if not part:
                return
            with self._lock:
                self.raw += part
                self._stream.feed(part)


@contextmanager
def on_screen(
    arguments: list[str],
    columns: int = 100,
    rows: int = 30,
    environment: dict[str, str] | None = None,
    **streams: Any,
) -> Iterator[Screen]:
    """Run a command on a terminal of this size. `streams` are subprocess's, for those that go elsewhere."""
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", _AS_ITS_TERMINAL, *arguments],
        env=kept | {"TERM": "xterm"} | (environment or {}),
        start_new_session=True,
        **{"stdin": theirs, "stdout": theirs, "stderr": theirs, **streams},
    )
    os.close(theirs)
    screen = Screen(process, ours, columns, rows)
    try:
        yield screen
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        screen._reader.join(_PATIENCE_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        with suppress(OSError):
            os.close(ours)


def gated(*arguments: object) -> list[str]:
    """`q3e-local ARGUMENTS` on the gated engine, as a command for subprocess."""
    return [sys.executable, str(TESTS / "gated_engine.py"), *map(str, arguments)]


class Gates:
    """Where `gated_engine` waits before each batch, and before it is loaded: a file each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.open("load")

    @property
    def environment(self) -> dict[str, str]:
        return {"GATES": str(self._folder)}

    def on_screen(
        self,
        *arguments: object,
        columns: int = 100,
        rows: int = 30,
        more: dict[str, str] | None = None,
        **streams: Any,
    ) -> AbstractContextManager[Screen]:
        """`q3e-local ARGUMENTS` on the gated engine, on a terminal; `more` are variables of the environment."""
        return on_screen(gated(*arguments), columns, rows, self.environment | (more or {}), **streams)

    def run(self, *arguments: object, more: dict[str, str] | None = None) -> str:
        """What `q3e-local ARGUMENTS` says on stderr, with all gates open. Closes them again."""
        self.open("all")
        environment = os.environ | self.environment | (more or {})
        done = subprocess.run(gated(*arguments), capture_output=True, check=True, env=environment)
        self.close("all")
        return done.stderr.decode()

    def finish(self, screen: Screen) -> None:
        """Let all batches be computed, and wait until the command ends well."""
        self.open("all")
        assert screen.end() == 0

    def open(self, *gates: int | str) -> None:
        """Let the batches of these numbers be computed, or `all` of them, or the model be loaded."""
        for gate in gates:
            (self._folder / f"open-{gate}").touch()

    def close(self, gate: int | str) -> None:
        (self._folder / f"open-{gate}").unlink()

    def wait_for(self, gate: int | str) -> None:
        """Wait until this batch is at work."""
        wait_until(lambda: self.has_begun(gate))

    def forget(self) -> None:
        """What began so far."""
        for begun in self._folder.glob("begun-*"):
            begun.unlink()

    def has_begun(self, gate: int | str) -> bool:
        return (self._folder / f"begun-{gate}").exists()
