"""NVIDIA's libraries out of Python packages, loaded before a llama.cpp that was built for CUDA and needs them.

`pip install 'q3e-local[cuda]'` brings them as packages, in folders that no loader searches: a prebuilt llama.cpp
finds them only where they are in memory already. A CUDA toolkit of the system needs none of this. Knows files, and
nothing of llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from q3e_local.llama import library

# Of Linux and of Windows, in the order of their needs: cublas needs cublasLt. Packages for CUDA 12 have a folder for
# each library (`nvidia/cublas/lib`), those for CUDA 13 one for all (`nvidia/cu13/lib`, `nvidia/cu13/bin/x86_64`).
_LIBRARIES = (
    ("*/lib/libcudart.so.*", "*/bin/**/cudart64_*.dll"),
    ("*/lib/libcublasLt.so.*", "*/bin/**/cublasLt64_*.dll"),
    ("*/lib/libcublas.so.*", "*/bin/**/cublas64_*.dll"),
)


def preload() -> list[Path]:
    """Load what Python packages have of NVIDIA's libraries, where llama.cpp was built for CUDA; their files.

    One that cannot be loaded is left out: the system may have another, and if not, loading llama.cpp says what it
    lacks.
    """
    if next(library.files("*ggml-cuda*"), None) is None:
        return []
    loaded = []
    for patterns in _LIBRARIES:
        for path in (path for pattern in patterns for path in _files(pattern)):
            with suppress(OSError):
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
                loaded.append(path)
    return loaded


def _files(pattern: str) -> Iterator[Path]:
    """Files of NVIDIA's packages."""
    spec = find_spec("nvidia")
    folders = None if spec is None else spec.submodule_search_locations
    for folder in folders or ():
        yield from sorted(Path(folder).glob(pattern))
