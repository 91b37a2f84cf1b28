"""The command to run next, as it can be typed: the command of this run, with an option more or less.

Knows the shell's quotes, and nothing of what commands do.
"""

from __future__ import annotations

import os
import shlex
import subprocess

import click

ARGUMENTS = "q3e-arguments"  # in a context's meta: what stands behind the program's name

_LENGTH_MAX = 300  # a shell may have put a thousand names in the place of one pattern


def again(*more: str, without: str | None = None) -> str:
    """This command with other options; in words where it is too long for a line."""
    arguments = click.get_current_context().meta[ARGUMENTS]
    kept = [argument for argument in arguments if argument != without]
    more = tuple(option for option in more if option not in kept)
    line = _joined(["q3e-local", *_with(kept, more)])
    if len(line) <= _LENGTH_MAX and not {"\n", "\r"} & set(line):
        return line
    return f"the same command and {' '.join(more)}" if more else "the same command"


def _with(arguments: list[str], more: tuple[str, ...]) -> list[str]:
    """Options stand before `--`, behind which all are names."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:place], *more, *arguments[place:]]


def _joined(words: list[str]) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
