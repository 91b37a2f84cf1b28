"""The command to run next, ready to be typed: the command of this run, with an option more or less.

Knows the shell's quotes, and nothing of what commands do.
"""

from __future__ import annotations

import os
import shlex
import subprocess

import click

ARGUMENTS = "q3e-arguments"  # key in a context's meta, of the words behind the program's name

_LENGTH_MAX = 300  # a shell may have put a thousand names in the place of one pattern


def again(*more: str, without: str | None = None) -> str:
    """This command with other options; in words where it is too long for a line."""
    arguments = click.get_current_context().meta[ARGUMENTS]
    kept = [argument for argument in arguments if argument != without]
    more = tuple(option for option in more if option not in kept)
    end = kept.index("--") if "--" in kept else len(kept)  # behind `--` no word is an option
    words = ["q3e-local", *kept[:end], *more, *kept[end:]]
    line = subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
    if len(line) <= _LENGTH_MAX and not {"\n", "\r"} & set(line):
        return line
    return f"the same command and {' '.join(more)}" if more else "the same command"
