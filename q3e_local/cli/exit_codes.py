"""What the exit code of the program says. Knows numbers alone, so that every command can import it."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2  # the options or arguments are wrong; click exits with it too
SKIPPED = 3  # all is done but for inputs that were left out
INTERRUPTED = 130  # as shells say it of Ctrl-C: 128 and the number of SIGINT
