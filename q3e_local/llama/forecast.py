"""Where the layers of a model will go, as far as that is known in a process that has not loaded llama.cpp.

A child process asks llama.cpp for its devices: a driver keeps memory for as long as the process runs that asked it,
and may hang, or end that process.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import CrashError, EngineError
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import library
from q3e_local.llama.child import Child
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.defaults import N_BATCH_ON_GPU
from q3e_local.llama.settings.memory import as_asked
from q3e_local.llama.settings.placement import Device, Placement
from q3e_local.llama.settings.planning import check_without_gpus, chosen, plan, unless_beaten

logger = logging.getLogger(__name__)

# Drivers that nothing used for a while start within seconds, those of many cards within tens of seconds.
ANSWER_S = 60.0

# A backend of ggml's is a library of its own in the wheel.
_ON_GPU = re.compile(r"(lib)?ggml-(cann|cuda|hip|metal|musa|opencl|rpc|sycl|vulkan|webgpu|zdnn)\b")


class NoAnswerError(EngineError):
    """GPUs cannot be asked, because a driver hangs, or ends the process that asks."""


def may_offload() -> bool:
    """Whether the llama.cpp that is loaded here has a backend for GPUs. Loads nothing."""
    return any(_ON_GPU.match(file.name) for file in library.files("*ggml-*"))


def may_use(config: EngineConfig) -> bool:
    """Whether an engine with these options may compute on a GPU."""
    return config.n_gpu_layers != 0 and config.devices != () and may_offload()


def check(config: EngineConfig) -> None:
    """Raise OptionError for a device that is not here, or layers where llama.cpp was built without a GPU.

    Asks for GPUs only where options name them: a driver may be slow to start. Raises what `ask` raises.
    """
    if config.n_gpu_layers == 0 or config.devices == ():
        return
    if not may_offload():
        check_without_gpus(config)
    elif config.devices is not None:
        chosen(ask(), config.devices)


def ask() -> list[Device]:
    """The GPUs that llama.cpp finds here, and their memory.

    Raises EngineError where it cannot be loaded, and NoAnswerError.
    """
    with Child(_Asked) as child:
        try:
            found: list[Device] = child.ask("devices", timeout_s=ANSWER_S)
        except TimeoutError:
            why = f"no GPU answered within {ANSWER_S:g} s, so that a driver seems to hang"
        except CrashError as crash:
            why = f"GPUs cannot be asked, as that ends llama.cpp's process ({crash.cause})"
        else:
            return found
    raise NoAnswerError(f"{why}; --device none does not ask, q3e-local doctor says more")


def devices() -> list[Device]:
    """The same; none, after a warning, where they do not answer."""
    try:
        return ask() if may_offload() else []
    except NoAnswerError as error:
        logger.warning("the CPU computes: %s", error)
        return []


def expected(info: ModelInfo, config: EngineConfig, here: Sequence[Device] | None = None) -> Placement:
    """Where the layers would go with these GPUs; None: those of now. Raises OptionError for one not among them."""
    if config.n_gpu_layers == 0 or config.devices == ():
        return Placement(info.n_layer)
    context = as_asked(config, config.n_batch or N_BATCH_ON_GPU)
    some = chosen(devices() if here is None else here, config.devices)
    placement = plan(info, context, some, config.n_gpu_layers)
    return unless_beaten(placement, config, kept.tuned_before_loading(info.digest, placement))


class _Asked:
    """llama.cpp, in the child."""

    def devices(self) -> list[Device]:
        with library.importing():
            from q3e_local.llama import devices

        return devices.devices()
