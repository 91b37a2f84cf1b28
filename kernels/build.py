"""Compile the kernels: one shared library, each variant with the compiler flags of its CPU.

Plain Python, for the installer and for people: `python kernels/build.py TARGET`. Knows no package of ours.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent

_COMMON = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-exceptions"]
_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
_AVX512 = [*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"]
# What runs on any CPU of the family, and the variants, each of which may use the instructions of its own.
_X86_64 = {
    "door.cpp": [],
    "cpu.cpp": [],
    "avx2.cpp": _AVX2,
    "avxvnni.cpp": [*_AVX2, "-mavxvnni"],
    "avx512.cpp": _AVX512,
    "amx.cpp": [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
}


class BuildError(Exception):
    """The kernels cannot be compiled here; the text says why."""


def sources() -> dict[str, list[str]]:
    """The files for this machine's CPU, and the flags of each. Raises BuildError where there are none."""
    if sys.platform == "win32":
        raise BuildError("the way into llama.cpp that they use is closed on Windows")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise BuildError(f"there are none for a {platform.machine()} CPU")
    return _X86_64


def compiler() -> list[str]:
    """The C++ compiler: $CXX, or the first of the usual names. Raises BuildError without one."""
    if chosen := shlex.split(os.environ.get("CXX", "")):
        return chosen
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler was found (c++, g++, clang++, or what CXX names)")


def build(target: Path, extra: tuple[str, ...] = ()) -> None:
    """Compile the library and put it at `target`, whole or not at all. Raises BuildError.

    A SHA-256 of the library stands behind it in the file, where the system's loader does not look: q3e-local opens no
    file that was cut or changed since, which could end the process.
    """
    files, command = sources(), compiler()
    with tempfile.TemporaryDirectory() as folder:

        def compile_one(name: str) -> str:
            output = str(Path(folder, name).with_suffix(".o"))
            _run([*command, *_COMMON, *files[name], *extra, "-c", str(SOURCES / name), "-o", output])
            return output

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, files))
        library = str(Path(folder, target.name))
        static = [] if sys.platform == "darwin" else ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"]
        _run([*command, "-shared", *static, *extra, *objects, "-o", library])
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        content = Path(library).read_bytes()
        beside.write_bytes(content + hashlib.sha256(content).digest())
        beside.replace(target)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a compiler
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        raise BuildError(f"{shlex.join(command)}\n{done.stderr.strip()}")


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]))
    except BuildError as failure:
        sys.exit(str(failure))
