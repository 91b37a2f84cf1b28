"""Build the check program and run it, plain and with the sanitizers: `python kernels/check/run.py [--quick]`.

`--static TARGET` builds it as one file that needs nothing else, to carry to an emulator or to another machine. Plain
Python; knows no package of ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import build  # noqa: E402  (beside this folder, and in no package)

# Of each way to build: what it is called, and the flags that it adds.
WAYS = {
    "plain": ["-O3"],
    "address,undefined": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-g", "-fsanitize=thread"],
}
STATIC = ["-O3", "-static"]


def compile_check(target: Path, flags: list[str]) -> None:
    """Compile the kernels without the door, and the check program. Raises build.BuildError."""
    command = [*build.compiler(), *flags]
    with tempfile.TemporaryDirectory() as folder:
        objects, left_out = build.compiled(command, ["cpu.cpp", "check/check.cpp"], Path(folder))
        build.link([*command, *objects, "-pthread"], target)
    for name, why in left_out.items():
        print(build.left_out_sentence(name, why))


def check(way: str, arguments: list[str]) -> int:
    """Build the check program in one way and run it; return its exit status."""
    print(f"== {way}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "check")
        compile_check(program, WAYS[way])
        return subprocess.run([str(program), *arguments], check=False).returncode


def main() -> int:
    """Build and run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cases of each kind: seconds")
    parser.add_argument("--way", choices=WAYS, action="append", help="one way to build it instead of all of them")
    parser.add_argument("--static", metavar="TARGET", type=Path, help="only build it, to run it elsewhere")
    parser.add_argument("variant", nargs="*", help="check these instead of every one that runs here")
    chosen = parser.parse_args()
    arguments = [*(["--quick"] if chosen.quick else []), *chosen.variant]
    try:
        if chosen.static:
            compile_check(chosen.static.resolve(), STATIC)
            return 0
        return max([abs(check(way, arguments)) for way in chosen.way or WAYS])
    except build.BuildError as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    sys.exit(main())
