"""Compile the kernels: one shared library, each variant with the compiler flags of its CPU.

Plain Python, for the installer (hatch_build.py) and for people: `python kernels/build.py`. Knows no package of ours.
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

SOURCES = Path(__file__).resolve().parent
# Where a checkout has the library, and from there a wheel.
PLACE = "q3e_local/llama/kernels/q3e_kernels.so"

_COMMON = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"]
_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
_AVX512 = [*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"]
# The variants: each has a file of its name, which may use the instructions of these flags.
_X86_64 = {
    "amx": [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    "avx512": _AVX512,
    "avxvnni": [*_AVX2, "-mavxvnni"],
    "avx2": _AVX2,
}
AGAIN = "run `python3 kernels/build.py`"
_NEWER = "take a newer compiler (CXX may name it)"
# The oldest macOS that runs on both of its CPUs: the library says it, and so does the name of the wheel.
MACOS = "11.0"


class BuildError(Exception):
    """The kernels cannot be compiled here. The text says why, `remedy` what would help: it may be empty."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy

    def sentence(self, again: str) -> str:
        """One line for people: what it means, why, and how to have them; `again` is what tries once more."""
        advice = f". To have them, {self.remedy}, then {again}" if self.remedy else ""
        return f"Kernels: not compiled, and without them embedding is slower: {self}{advice}."


class _CompilerError(Exception):
    """A compiler refused; the text is what it said."""


def variants() -> dict[str, list[str]]:
    """The variants for this machine's kind of CPU, and the flags of each. Raises BuildError where there are none."""
    if sys.platform == "win32":
        raise BuildError("the way into llama.cpp that they use is closed on Windows")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise BuildError(f"there are none for a CPU of the kind {platform.machine()}")
    return _X86_64


def compiler() -> list[str]:
    """The C++ compiler: $CXX, or the first of the usual names that is there. Raises BuildError without one."""
    if chosen := shlex.split(os.environ.get("CXX", "")):
        return chosen
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler was found", "install one (for instance the package g++)")


def digest() -> bytes:
    """A SHA-256 of the sources as they are now."""
    files = sorted(one for one in SOURCES.iterdir() if one.suffix in (".cpp", ".h", ".py"))
    content = b"".join(one.name.encode() + b"\0" + one.read_bytes() for one in files)
    return hashlib.sha256(content).digest()


def build(target: Path, extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Compile the library and put it at `target`, whole or not at all. Raises BuildError.

    Behind the library, where the system's loader does not look, the file has two SHA-256. One is of the sources: a
    checkout uses no library of others. One is of all before it: a file that was cut or changed since could end the
    process that opens it.

    Returns the variants that were left out because this compiler cannot do them, and what it said.
    """
    sources = digest()  # before they are read: whoever edits one meanwhile gets a library that is out of date
    command = [*compiler(), "-O3", *extra]
    # No C++ library is needed: as-needed keeps it out of the list of those to load.
    leanly = ["-static-libgcc", "-Wl,--as-needed"]
    if sys.platform == "darwin":
        command.append(f"-mmacosx-version-min={MACOS}")
        leanly = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            objects, left_out = compiled(command, ["door.cpp", "cpu.cpp"], Path(folder))
            library = Path(folder, "q3e_kernels.so")
            link([*command, "-shared", *leanly, *objects], library)
            content = library.read_bytes() + sources
            _put(content + hashlib.sha256(content).digest(), target)
    except OSError as error:
        raise BuildError(str(error), "put that right") from None
    return left_out


def compiled(command: list[str], others: list[str], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Compile each variant with its flags, then other sources without any, into `folder`. Raises BuildError.

    Returns the object files, and the variants that this compiler cannot do, with what it said.
    """

    def compile_one(source: str, flags: list[str]) -> str:
        output = str(folder / f"{Path(source).stem}.o")
        _run([*command, *_COMMON, *flags, "-c", source, "-o", output])
        return output

    def compile_variant(name: str) -> str | _CompilerError:
        try:
            return compile_one(f"{name}.cpp", flags[name])
        except _CompilerError as error:
            return error

    flags = variants()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(flags, pool.map(compile_variant, flags), strict=True))
    objects = [result for result in results.values() if isinstance(result, str)]
    left_out = {name: _first_error(result) for name, result in results.items() if not isinstance(result, str)}
    if not objects:
        why = next(iter(left_out.values()))
        raise BuildError(f"{command[0]} cannot compile any of them ({why})", _NEWER)
    without = [f"-DQ3E_WITHOUT_{name.upper()}" for name in left_out]
    try:
        objects += [compile_one(source, without) for source in others]
    except _CompilerError as error:
        raise BuildError(f"{command[0]} cannot compile them ({_first_error(error)})", _NEWER) from None
    return objects, left_out


def link(command: list[str], target: Path) -> None:
    """Link a library or a program. Raises BuildError."""
    try:
        _run([*command, "-o", str(target)])
    except _CompilerError as error:
        raise BuildError(f"{command[0]} cannot link them ({_first_error(error)})", _NEWER) from None


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise _CompilerError(done.stderr.strip() or f"it ended with exit code {done.returncode}")


def _first_error(said: _CompilerError) -> str:
    lines = str(said).splitlines()
    return next((line for line in lines if "error" in line), lines[0]).strip()


def _put(content: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def left_out_sentence(name: str, why: str) -> str:
    """One line about a variant that `build` left out."""
    return f"Kernels: without {name}, which this compiler cannot do ({why})."


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES.parent / PLACE
    try:
        left_out = build(target)
    except BuildError as error:
        sys.exit(error.sentence(AGAIN))
    for name, why in left_out.items():
        print(left_out_sentence(name, why))
    print(f"Kernels: compiled for {', '.join(name for name in variants() if name not in left_out)}.")


if __name__ == "__main__":
    main()
