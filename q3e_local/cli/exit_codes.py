"""The exit codes of the program. A command that returns none has done all: DONE."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2  # the options or arguments are wrong; click exits with it too
SKIPPED = 3  # done, but some inputs were left out
INTERRUPTED = 130  # as shells report Ctrl-C: 128 plus the number of SIGINT
