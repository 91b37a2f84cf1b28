"""Kernel libraries to open: the real one, and some whose variants compute what a test wants them to.

Knows kernels/build.py and a C++ compiler; skips the test where there is none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from q3e_local.llama.kernels import compiled as kernel_library

SOURCES = Path(__file__).parents[1] / "kernels"
# How a variant of a library of `with_variants` multiplies float32 weights; other operations it leaves to llama.cpp.
RIGHT, WRONG, NAN, CRASH, NOTHING = "right", "wrong", "nan", "crash", "nothing"

_STUB = """
#include <cmath>
#include "cpu.h"
#include "operation.h"
namespace q3e {
namespace {
using Change = float (*)(float, int64_t row);
int64_t scratch(const Product& p, int) { return p.type == Type::F32 ? 0 : -1; }
int64_t none(const Product&, int) { return -1; }
int64_t no_attention(const Attention&, int) { return -1; }
void attention(const Attention&, const Team&) {}
template <Change change> void product(const Product& p, const Team& team) {
    for (int64_t t = team.rank; t < p.tokens; t += team.size) {
        const float* token = (const float*)((const char*)p.input + t * p.input_stride);
        for (int64_t r = 0; r < p.rows; ++r) {
            const float* row = (const float*)(p.weights + r * p.weight_stride);
            float sum = 0;
            for (int64_t k = 0; k < p.depth; ++k) sum += row[k] * token[k];
            ((float*)((char*)p.output + t * p.output_stride))[r] = change(sum, r);
        }
    }
}
float right(float x, int64_t) { return x; }
float wrong(float x, int64_t row) { return row == 71 ? 0 : x; }
float nan(float, int64_t) { return NAN; }
float crash(float, int64_t) { __builtin_trap(); }
}
@VARIANTS@
}
"""


def build_module(path: Path = SOURCES / "build.py") -> ModuleType:
    """kernels/build.py, or another file that is in no package."""
    spec = importlib.util.spec_from_file_location(f"kernels_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled() -> Path:
    """The library that q3e-local opens. Skips the test only on machines that cannot compile it."""
    if not kernel_library.LIBRARY.is_file():
        compiler()
        pytest.fail("the kernels can be compiled here and are not: make kernels")
    return kernel_library.LIBRARY


def compiler() -> list[str]:
    """The command of the C++ compiler. Skips the test where there is none, or no kernel for this system or CPU."""
    build = build_module()
    try:
        build.variants()
        command: list[str] = build.compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    return command


def sealed(path: Path, content: bytes) -> Path:
    """A file with such checksums behind its content as kernels/build.py puts there."""
    content += build_module().digest()
    path.write_bytes(content + hashlib.sha256(content).digest())
    return path


def with_variants(path: Path, interface: int | None = None, **variants: tuple[str, str | None]) -> Path:
    """A library whose variants (amx=("wrong", None), ...) compute so, and cannot run for this reason."""
    command = compiler()
    door = (SOURCES / "door.cpp").read_text()
    if interface is not None:
        door = door.replace(f"return {kernel_library._INTERFACE}; }}", f"return {interface}; }}", 1)
    lines = []
    for name in ("amx", "avx512", "avxvnni", "avx2"):
        how, why = variants.get(name, (NOTHING, None))
        called = "none, product<right>" if how == NOTHING else f"scratch, product<{how}>"
        lines.append(f'extern const Variant {name} = {{"{name}", {called}, no_attention, attention}};')
        lines.append(f"const char* why_not_{name}() {{ return {json.dumps(why) if why else 'nullptr'}; }}")
    folder = path.parent
    (folder / "door.cpp").write_text(door)
    (folder / "stub.cpp").write_text(_STUB.replace("@VARIANTS@", "\n".join(lines)))
    plain = path.with_suffix(".plain")
    options = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{SOURCES}"]
    command += [*options, str(folder / "door.cpp"), str(folder / "stub.cpp"), "-o", str(plain)]
    subprocess.run(command, check=True)
    return sealed(path, plain.read_bytes())


_CHOOSING = """
import json, logging, sys
from dataclasses import asdict
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
import q3e_local
from q3e_local.llama.kernels import compiled
if sys.argv[1]:
    compiled.LIBRARY = Path(sys.argv[1])
with q3e_local.load("demo") as embedder:
    vectors = embedder.embed_documents(["a text", "another"]).vectors
    chosen, taken = asdict(embedder.engine.kernels), asdict(embedder.engine.kernels_taken)
print(json.dumps({"chosen": chosen, "taken": taken, "vectors": vectors.tolist()}))
"""


def program(code: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """This Python code in a process of its own, which has opened no kernels yet."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


def chosen_in(library: Path | str, before: str = "", **variables: str) -> dict[str, Any]:
    """What a program does that finds this library: `chosen`, `taken`, `vectors` of two texts, what it `logged`.

    `before`: Python code that it runs first.
    """
    done = program(f"{before}\n{_CHOOSING}", library, **variables)
    assert done.returncode == 0, done.stderr
    # llama.cpp's own lines are there too, and what --explain shows.
    logged = [line for line in done.stderr.splitlines() if "kernels" in line and " demo: " not in line]
    return {**json.loads(done.stdout), "logged": logged}
