"""NVIDIA's libraries out of Python packages are in memory before a llama.cpp for CUDA is loaded, and only then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Each defines a function; cublas needs cublasLt, and the driver of llama.cpp needs cudart and cublas.
LIBRARIES = {
    "nvidia/cuda_runtime/lib/libcudart.so.12": ("cudart", []),
    "nvidia/cublas/lib/libcublasLt.so.12": ("cublasLt", []),
    "nvidia/cublas/lib/libcublas.so.12": ("cublas", ["nvidia/cublas/lib/libcublasLt.so.12"]),
    "llama_cpp/lib/libggml-cuda.so": (
        "ggml_cuda",
        ["nvidia/cuda_runtime/lib/libcudart.so.12", "nvidia/cublas/lib/libcublas.so.12"],
    ),
}
SCRIPT = """
import ctypes, sys
from pathlib import Path
from q3e_local.llama.cuda_libraries import preload
print([path.name for path in preload()])
driver = ctypes.CDLL(str(Path(sys.path[0], "llama_cpp/lib/libggml-cuda.so")))
print(driver.ggml_cuda())
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages as they lie in an environment: each library finds none of the others by itself."""
    if sys.platform != "linux" or (compiler := shutil.which("cc")) is None:
        pytest.skip("needs Linux and a C compiler, to make libraries that need each other")
    for place, (function, needs) in LIBRARIES.items():
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source.c").write_text(f"int {function}(void) {{ return 12; }}\n")
        command = [compiler, "-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{path.name}", "-o", str(path)]
        subprocess.run([*command, "source.c", *needs], cwd=tmp_path, check=True)
    (tmp_path / "llama_cpp/__init__.py").write_text("raise AssertionError('must not be imported')\n")
    return tmp_path


def run(packages: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(packages)!r}){SCRIPT}"
    paths = ("LD_LIBRARY_PATH", "LLAMA_CPP_LIB_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in paths} | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_a_llama_cpp_for_cuda_finds_the_libraries_of_the_packages(packages):
    found = run(packages)
    assert found.stdout.splitlines() == ["['libcudart.so.12', 'libcublasLt.so.12', 'libcublas.so.12']", "12"], (
        found.stderr
    )


def test_without_the_packages_loading_says_what_is_missing(packages):
    shutil.rmtree(packages / "nvidia")
    found = run(packages)
    assert found.stdout.splitlines() == ["[]"]
    assert "libcudart.so.12: cannot open shared object file" in found.stderr


def test_a_library_that_is_broken_does_not_keep_the_others_out(packages):
    (packages / "nvidia/cuda_runtime/lib/libcudart.so.12").write_bytes(b"no library")
    assert run(packages).stdout.splitlines() == ["['libcublasLt.so.12', 'libcublas.so.12']"]


def test_a_llama_cpp_without_cuda_loads_none_of_them(packages):
    (packages / "llama_cpp/lib/libggml-cuda.so").rename(packages / "llama_cpp/lib/libggml-cpu.so")
    assert run(packages).stdout.splitlines() == ["[]"]


def test_a_build_for_cuda_that_is_named_gets_them_too(packages):
    of_package = packages / "llama_cpp/lib/libggml-cuda.so"
    named = packages / "build/bin/libggml-cuda.so"
    named.parent.mkdir(parents=True)
    shutil.copy(of_package, named)
    of_package.rename(of_package.with_name("libggml-cpu.so"))
    found = run(packages, LLAMA_CPP_LIB_PATH=str(named.parent))
    assert found.stdout.splitlines()[:1] == ["['libcudart.so.12', 'libcublasLt.so.12', 'libcublas.so.12']"]
