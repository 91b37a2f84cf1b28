"""Whether there is memory for a context just now: in the machine, and on the GPUs that have layers of the model.

Asks both for what is free; leaves arithmetic to settings/, and what to do to contexts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from q3e_local import machine
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import devices
from q3e_local.llama.settings.memory import ContextPlan
from q3e_local.llama.settings.placement import Device, Placement
from q3e_local.llama.settings.planning import context_shares
from q3e_local.wording.counts import size


@dataclass(frozen=True)
class Lack:
    """What is needed and what is free, in words. `of_gpu`: the machine's own memory may be enough."""

    text: str
    of_gpu: bool


class ContextMemory:
    """The memory that is free beside the weights of a model that lies so."""

    def __init__(self, info: ModelInfo, placement: Placement, here: Sequence[Device] | None = None) -> None:
        """`here`: the devices of the placement, as they will be then; None: as they are each time."""
        self._info, self._placement, self._here = info, placement, here

    def needs(self, plan: ContextPlan) -> str:
        """What the plan takes, in words."""
        placement = self._placement
        if not placement.on_gpu:
            return f"{size(plan.n_bytes(self._info))} beside the model"
        names = " and ".join(device.description for device in placement.devices)
        return f"{size(sum(context_shares(self._info, plan, placement)))} beside the model on {names}"

    def lack(
        self, plan: ContextPlan, instead_of: ContextPlan | None = None, *, is_planned: bool = False
    ) -> Lack | None:
        """Where there is too little for the plan, and how much; None where it is enough.

        `instead_of` is a context that will be freed before. `is_planned`: the placement reckoned with this context
        and left a margin, of which the driver may have taken its part since.
        """
        placement = self._placement
        n = placement.n_on_gpu
        in_ram = plan.n_bytes if placement.is_unified else lambda info: plan.host_bytes(info, n)
        freed_in_ram = 0
        if instead_of is not None:
            before = instead_of
            freed_in_ram = before.n_bytes(self._info) if placement.is_unified else before.host_bytes(self._info, n)
        needed, available = in_ram(self._info), machine.available_memory() + freed_in_ram
        if needed > available:
            return Lack(f"{size(needed)} beside the model, {size(available)} are free", of_gpu=False)
        now = (self._here if self._here is not None else devices.again(placement.devices)) if n else ()
        rooms = [device.room_bytes for device in now]
        known = [room for room in rooms if room is not None]
        if not rooms or len(known) < len(rooms):
            return None
        shares = context_shares(self._info, plan, placement)
        freed = (0,) * len(now) if instead_of is None else context_shares(self._info, instead_of, placement)
        for device, room, needed, given_back in zip(now, known, shares, freed, strict=True):
            available = (device.free_bytes if is_planned else room) + given_back
            if needed > available:
                name = device.description
                text = f"{size(needed)} beside the model on {name}, where {size(available)} are to be had"
                return Lack(text, of_gpu=not placement.is_unified)
        return None
