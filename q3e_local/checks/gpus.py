"""Which GPUs llama.cpp computes on, and what would let it compute on one that is here.

Runs native code, so it is for the child process of `doctor`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from q3e_local.checks.finding import Finding
from q3e_local.wording.installing import prebuilt, rebuild

# What llama.cpp is compiled with for a GPU, by its maker, and the tool that this takes beside a C++ compiler. The
# first maker of those that are here is advised.
_BUILDS = {
    "NVIDIA": ("-DGGML_CUDA=on", "nvcc"), "AMD": ("-DGGML_VULKAN=on", "glslc"), "Apple": ("-DGGML_METAL=on", None),
    "Intel": ("-DGGML_VULKAN=on", "glslc"),
}  # fmt: skip
_CUDA = Path("/usr/local/cuda/bin")  # where CMake looks for CUDA's toolkit too


def gpus() -> Iterator[Finding]:
    """The GPUs that llama.cpp knows; where it knows none, what would let it."""
    from q3e_local import machine
    from q3e_local.llama import binding
    from q3e_local.llama.devices import devices

    found = devices()
    for device in found:
        yield Finding("GPU", str(device))
    if found:
        return
    if binding.can_offload():
        advice = "install the driver of the GPU, then look again; until then the CPU computes"
        yield Finding("GPU", "llama.cpp was built for a GPU, and finds none here", True, advice)
        return
    makers = machine.gpu_makers()
    if not makers:
        yield Finding("GPU", "none is seen on this machine; the CPU computes")
        return
    text = f"there is one by {' and one by '.join(makers)}, and llama.cpp was built for the CPU alone"
    maker = next(maker for maker in _BUILDS if maker in makers)
    yield Finding("GPU", text, True, f"for more speed, let it compute: {_line(maker)}")


def _line(maker: str) -> str:
    """The line that brings a llama.cpp for such a GPU: compiled where the tools for it are here, else prebuilt."""
    build, tool = _BUILDS[maker]
    if tool is None or shutil.which(tool) or shutil.which(tool, path=str(_CUDA)):
        return rebuild(f"-DLLAVA_BUILD=OFF {build}")
    return prebuilt("vulkan")
