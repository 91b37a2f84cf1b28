"""How long the threads of llama.cpp spin before they sleep, where they wait for each other; set before it is loaded.

Knows an environment variable of GNU's OpenMP, with which llama.cpp is compiled on Linux; nothing of llama.cpp.
"""

from __future__ import annotations

import os

# Turns of a loop, some tens of microseconds: longer than threads that all have a core wait at a barrier.
# OpenMP's own default is milliseconds. With other programs on the cores, a thread that is waited for often has none,
# and a spinning thread keeps it from getting one.
_TURNS = 1000


def sleep_soon() -> None:
    """Let threads that wait sleep soon, unless the user's environment says how they are to wait."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_TURNS))
