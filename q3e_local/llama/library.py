"""llama.cpp's library: where it is, and that it may be missing or lack another that it needs. Loads nothing."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from q3e_local.errors import EngineError
from q3e_local.wording.endings import advice
from q3e_local.wording.installing import install, rebuild

_MISSING = re.compile(r"(lib[\w.+-]+): cannot open shared object file")  # as Linux says it
_WINDOWS_LACKS = "or one of its dependencies"  # as Python says it there, which does not know of which
_CUDA_12 = ("nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12")
_CUDA_13 = ("nvidia-cublas", "nvidia-cuda-runtime")
_REDISTRIBUTABLE = "winget install Microsoft.VCRedist.2015+.x64"


def files(pattern: str) -> Iterator[Path]:
    """Files of such names where llama_cpp loads its libraries from: its own, or those of a build that is named."""
    if (other := os.environ.get("LLAMA_CPP_LIB_PATH")) is not None:
        folders = [Path(other)]
    else:
        spec = importlib.util.find_spec("llama_cpp")
        folders = [Path(folder, "lib") for folder in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        yield from sorted(folder.glob(pattern))


@contextmanager
def importing() -> Iterator[None]:
    """Around an import of what needs the library. Raises EngineError with a way out where it cannot be loaded."""
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"llama.cpp cannot be loaded: {error}; {_way_out(error)}") from error


def _way_out(error: Exception) -> str:
    if status := getattr(error, "winerror", None):  # a crash, which Windows lets ctypes catch
        return advice(status & 0xFFFFFFFF)
    missing = _MISSING.search(str(error))
    if missing is not None:
        return _that_brings(missing[1])
    if _WINDOWS_LACKS in str(error):
        return (
            f"install what compiled programs need ({_REDISTRIBUTABLE}); one that was built for CUDA needs NVIDIA's "
            f"libraries too ({install(*_CUDA_12)})"
        )
    return f"compile it on this machine: {rebuild()}"


def _that_brings(library: str) -> str:
    """What to do where this library of the system is missing, which a llama.cpp that others compiled may need."""
    if library.startswith(("libcudart", "libcublas")):
        return f"NVIDIA's library comes with: {install(*(_CUDA_12 if library.endswith('.12') else _CUDA_13))}"
    if library.startswith("libcuda."):
        return f"NVIDIA's driver brings it; without one, compile llama.cpp for the CPU: {rebuild()}"
    if library.startswith("libvulkan"):
        return "Vulkan's loader is the package libvulkan1 of Debian and Ubuntu, vulkan-loader of Fedora"
    if library.startswith("libgomp"):
        return "OpenMP's library is the package libgomp1 of Debian and Ubuntu, libgomp of Fedora"
    if library.startswith(("libamdhip", "libhip", "librocblas", "libhsa")):
        return f"AMD's ROCm brings it; without it, compile llama.cpp for the CPU: {rebuild()}"
    return f"install what brings it, or compile llama.cpp on this machine: {rebuild()}"
