"""Build the check program and run it, plain and with the sanitizers: `python kernels/check/run.py [--quick]`.

`--static TARGET` builds it as one file that needs nothing else, to carry to an emulator or to another machine. Plain
Python; knows no package of ours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
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


class CompilerError(Exception):
    """A compiler refused; the text is the command and what it said."""


def compile_check(target: Path, flags: list[str]) -> None:
    """Compile the kernels without the door, and the check program. Raises build.BuildError and CompilerError."""
    variants, command = build.variants(), [*build.compiler(), "-std=c++17", *flags]
    with tempfile.TemporaryDirectory() as folder:

        def compiled(name: str, more: list[str]) -> str:
            output = str(Path(folder, Path(name).name).with_suffix(".o"))
            run([*command, *more, "-c", str(HERE.parent / name), "-o", output])
            return output

        def variant(name: str) -> str | None:
            try:
                return compiled(f"{name}.cpp", variants[name])
            except CompilerError as error:
                print(f"{name} left out: {error}", flush=True)
                return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = dict(zip(variants, pool.map(variant, variants), strict=True))
        without = [f"-DQ3E_WITHOUT_{name.upper()}" for name, file in objects.items() if file is None]
        files = [compiled("cpu.cpp", without), compiled("check/check.cpp", without), *filter(None, objects.values())]
        run([*command, *files, "-pthread", "-o", str(target)])


def run(command: list[str]) -> None:
    """Run a compiler. Raises CompilerError."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompilerError(f"{' '.join(command)}\n{done.stderr.strip()}")


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
            compile_check(chosen.static, STATIC)
            return 0
        return max([abs(check(way, arguments)) for way in chosen.way or WAYS])
    except (build.BuildError, CompilerError) as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    sys.exit(main())
