"""A step of gpu.py in a process of its own: `python child.py KIND OPTIONS`, OPTIONS in JSON, rows of JSON on stdout.

Runs under the Python that has this project's packages and the llama.cpp that is measured.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # where the package of this file is

from card import checks, speed

KINDS: dict[str, Callable[[dict[str, Any]], Iterable[dict[str, Any]]]] = {
    "machine": checks.machine_facts,
    "tap": checks.tap,
    "parity": checks.parity,
    "long": checks.long,
    "kill": checks.kill,
    "full": checks.full,
    "hold": checks.hold,
    "speed": speed.ours,
    "llama_server": speed.llama_server,
    "texts": speed.write_texts,
}


def main() -> None:
    # What a library prints must not come between the rows.
    rows = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    for row in KINDS[kind](options):
        rows.write(json.dumps(row) + "\n")
        rows.flush()


if __name__ == "__main__":
    main()
