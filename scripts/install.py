"""`pip install` that says how far it is: for the Makefile, and for people without make.

    python scripts/install.py --constraint constraints.txt --editable ".[all]"

Everything pip says goes to install.log in the environment; what went wrong is shown from there. Arguments are pip's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

EVERY_S = 15.0
_COMPILES = "compiling llama.cpp"
# What a line of pip's means. An indented line may be about the environment that a package is built in.
_PHASES = (
    (re.compile(r"Collecting (?P<name>[\w.-]+)"), "collecting packages: {name}"),
    (re.compile(r"\s*Building wheel for llama[-_]cpp[-_]python"), _COMPILES),
    (re.compile(r"\s*Building (wheel|editable) for (?P<name>[\w.-]+)"), "building {name}"),
    (re.compile(r"Installing collected packages: "), "installing the packages"),
)
# What kernels/hatch_build.py says where a compiler cannot do them, in one line for people.
_KERNELS = re.compile(r"\s*(Kernels: .*)")
_FILES = re.compile(r"\s*\[\s*(\d+)/(\d+)\]|\s*\[\s*(\d+)%\]")  # of ninja, of make


class Progress:
    """What pip is at, read from its lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._begin = time.monotonic()
        self._phase, self._part = "starting", ""
        self.last_words: list[str] = []

    def read(self, line: str) -> None:
        """Note what a line says; say it at once where something else begins."""
        for pattern, phase in _PHASES:
            found = pattern.match(line)
            if found is not None:
                before, self._phase = self._phase, phase.format(**found.groupdict())
                self._part = ""
                if before.partition(":")[0] != self._phase.partition(":")[0]:
                    self.say()
                return
        if found := _KERNELS.match(line):
            self.last_words.append(found[1])
        part = _FILES.match(line)
        if part is not None and self._phase == _COMPILES:
            done, total, percent = part.groups()
            self._part = f", {percent} %" if percent else f", step {done} of {total}"

    def say(self) -> None:
        """A line with the time that was taken so far."""
        minutes, seconds = divmod(int(time.monotonic() - self._begin), 60)
        print(f"  {minutes}:{seconds:02}  {self._phase}{self._part}", file=self._out, flush=True)


def install(command: list[str], log: Path, out: TextIO = sys.stdout, every_s: float = EVERY_S) -> int:
    """Run pip, its words to `log`, and say how far it is. Answers its exit code."""
    progress, options = Progress(out), {"text": True, "encoding": "utf-8", "errors": "replace"}
    with (
        log.open("w", encoding="utf-8", errors="replace") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process,
    ):
        reader = threading.Thread(target=_copy, args=(process.stdout, file, progress))
        reader.start()
        try:
            while reader.is_alive():
                reader.join(every_s)
                if reader.is_alive():
                    progress.say()
        finally:  # Ctrl-C: pip has it too, and ends
            reader.join()
        code = process.wait()
    if code:
        lines = log.read_text(encoding="utf-8").splitlines()
        print(*lines[-30:], sep="\n", file=out)
        print(f"pip failed; all it said is in {log}", file=out, flush=True)
    else:
        print(*progress.last_words, sep="\n", end="\n" if progress.last_words else "", file=out, flush=True)
    return code


def _copy(lines: Iterable[str], file: TextIO, progress: Progress) -> None:
    for line in lines:
        file.write(line)
        file.flush()
        progress.read(line)


def main() -> int:
    arguments = ["--disable-pip-version-check", "--no-input", "--verbose"]
    command = [sys.executable, "-m", "pip", "install", *arguments, *sys.argv[1:]]
    try:
        return install(command, Path(sys.prefix) / "install.log")
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
