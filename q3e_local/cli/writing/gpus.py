"""Which GPUs compute, in words: for people who look at what a server or a measurement says in JSON.

Knows `Placement.fields()`, which crosses from a server; nothing of devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from q3e_local.wording.counts import size


def on_gpus(placement: Mapping[str, Any] | None) -> list[str]:
    """A line for each GPU that has layers. `placement` is None where another program's server answers."""
    if placement is None:
        return []
    n_layers = placement["layers"]
    return [
        f"{device['layers']} of {n_layers} layers on {device['name']}, {device['description']} ({device['driver']}): "
        f"{size(device['bytes'])}{_of(device)}"
        for device in placement["devices"]
    ]


def _of(device: Mapping[str, Any]) -> str:
    if not device["total_bytes"]:
        return "; its driver does not tell how much it has"
    return f" of its {size(device['total_bytes'])}, of which {size(device['free_bytes'])} were free when it was asked"
