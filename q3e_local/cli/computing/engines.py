"""What computes for a command: llama.cpp in this process; where a GPU may compute, in a process of its own.

Knows which of both; nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from q3e_local.embedding.engine import named_devices

if TYPE_CHECKING:
    from q3e_local import MakeEngine


def apart(options: Mapping[str, Any]) -> MakeEngine | None:
    """What makes an engine in a process of its own, with these options of EngineConfig; None: llama.cpp is here.

    An abort in a GPU's driver costs a batch there, which is computed again, and not the job.
    """
    if options.get("n_gpu_layers") == 0 or named_devices(options.get("device")) == ():
        return None
    from q3e_local.llama import forecast  # loads what a command's help can do without

    if not forecast.may_offload():
        return None
    from q3e_local.server.workers.steady import SteadyEngine

    return SteadyEngine
