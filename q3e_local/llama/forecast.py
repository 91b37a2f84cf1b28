"""Where the layers of a model will go, as far as that is known in a process that has not loaded llama.cpp.

A child process asks llama.cpp for its devices: a driver keeps memory for as long as the process runs that asked it.
"""

from __future__ import annotations

import re

from q3e_local.embedding.engine import EngineConfig
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import library
from q3e_local.llama.child import Child
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.defaults import N_BATCH_ON_GPU
from q3e_local.llama.settings.memory import as_asked
from q3e_local.llama.settings.placement import Device, Placement, chosen, plan, unless_beaten

# A backend of ggml's is a library of its own in the wheel.
_ON_GPU = re.compile(r"(lib)?ggml-(cann|cuda|hip|metal|musa|opencl|rpc|sycl|vulkan|webgpu|zdnn)\b")


def may_offload() -> bool:
    """Whether the llama.cpp that is installed here has a backend for GPUs. Loads nothing."""
    return any(_ON_GPU.match(file.name) for file in library.files("*ggml-*"))


def devices() -> list[Device]:
    """The GPUs that llama.cpp finds here, and their memory. Raises EngineError where it cannot be loaded."""
    if not may_offload():
        return []
    with Child(_Asked) as child:
        found: list[Device] = child.ask("devices")
    return found


def expected(info: ModelInfo, config: EngineConfig) -> Placement:
    """Where the layers would go now. Raises OptionError for a device that is not here."""
    if config.n_gpu_layers == 0 or config.devices == ():
        return Placement(info.n_layer)
    context = as_asked(config, config.n_batch or N_BATCH_ON_GPU)
    placement = plan(info, context, chosen(devices(), config.devices), config.n_gpu_layers)
    return unless_beaten(placement, config, kept.tuned_before_loading(info.digest, placement))


class _Asked:
    """llama.cpp, in the child."""

    def devices(self) -> list[Device]:
        with library.importing():
            from q3e_local.llama import devices

        return devices.devices()
