"""GPUs that nobody has, for arithmetic and the order of fallbacks: they need no llama.cpp that was built for one."""

from __future__ import annotations

from typing import Any

import pytest

from q3e_local.llama import binding, devices
from q3e_local.llama.settings.placement import Device

GB = 10**9


def device(name: str = "CUDA0", free: float = 11.2, total: float = 12.0, **others: Any) -> Device:
    """A card; memory in GB."""
    facts = {"description": "NVIDIA GeForce RTX 3060", "backend": "CUDA", "kind": "discrete"} | others
    return Device(name=name, free_bytes=int(free * GB), total_bytes=int(total * GB), **facts)


def pretend(monkeypatch: pytest.MonkeyPatch, *here: Device) -> list[Device]:
    """Make engines believe that these devices are here; the CPU computes. Returns the list, which may be changed."""
    devices_here = list(here)
    monkeypatch.setattr(binding, "can_offload", lambda: True)
    monkeypatch.setattr(devices, "devices", lambda: list(devices_here))
    monkeypatch.setattr(devices, "pointers", lambda known: [])
    return devices_here
