"""GPUs, and where the layers of a model are on them: `Device` and `Placement`, in facts and in words.

Knows nothing of how that is decided: planning.py does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

from q3e_local.llama.settings.defaults import Host

# Beside what is planned for, a driver takes memory for programs and for products of large matrices while it computes,
# where a refusal ends the process, and the windows of other programs grow. llama.cpp's own --fit leaves a GiB too.
_MARGIN_BYTES = 1 << 30
_MARGIN_SHARE = 8  # of a small card a GiB would be too much: an eighth of it at most

CPU = "CPU"


@dataclass(frozen=True)
class Device:
    """A GPU, and its memory in bytes when it was asked.

    `name` is llama.cpp's, such as `CUDA0`; `description` the maker's, such as `NVIDIA GeForce RTX 3060`; `backend` is
    the part of llama.cpp that drives it: CUDA, Vulkan, Metal, ROCm, RPC. One that hides its memory has 0 of 0 bytes.
    """

    name: str
    description: str
    backend: str
    kind: Literal["discrete", "integrated"]
    free_bytes: int
    total_bytes: int
    card: str = ""  # where it is plugged in, if that is known: two backends may drive the same card

    @property
    def is_unified(self) -> bool:
        """Whether its memory is the machine's, so that what it takes is missing there."""
        # Metal's devices say that their memory is their own; on Apple's chips it is the machine's.
        return self.kind == "integrated" or self.backend.startswith(("Metal", "MTL"))

    @property
    def room_bytes(self) -> int | None:
        """What may be planned for; None: not known."""
        if not self.total_bytes:
            return None
        return max(0, self.free_bytes - min(_MARGIN_BYTES, self.total_bytes // _MARGIN_SHARE))

    def __str__(self) -> str:
        free, total = self.free_bytes / 1e9, self.total_bytes / 1e9
        shared = ", shared with the CPU" if self.is_unified else ""
        return f"{self.name}: {self.description}, {self.backend}, {free:.1f} of {total:.1f} GB free{shared}"


@dataclass(frozen=True)
class Placement:
    """Where the layers are: the last `n_on_gpu` of them on these devices, the others on the CPU."""

    n_layers: int
    n_on_gpu: int = 0
    devices: tuple[Device, ...] = ()
    split: tuple[int, ...] = ()  # layers on each device, with the vocabulary projection as one behind the last
    shares: tuple[int, ...] = ()  # bytes of each device's memory, for weights and the context for batches
    why: str = ""  # not all layers are on a GPU; empty where all are
    is_short: bool = False  # whether that is for want of memory

    @property
    def on_gpu(self) -> bool:
        """Whether any layer is on a GPU."""
        return self.n_on_gpu > 0

    @property
    def all_on_gpu(self) -> bool:
        """Whether no layer is left on the CPU."""
        return self.n_on_gpu == self.n_layers

    def host(self, n_cores: int, kernels: str | None = None) -> Host:
        """What default settings depend on, on a machine of so many cores where this variant of ours computes."""
        return Host(n_cores, self.on_gpu, self.all_on_gpu, kernels)

    @property
    def n_bytes(self) -> int:
        """Of the devices' memory in all."""
        return sum(self.shares)

    @property
    def takes(self) -> list[tuple[Device, int]]:
        """Each device, and the bytes that the model takes of its memory."""
        return list(zip(self.devices, self.shares, strict=True))

    @property
    def _layers(self) -> list[int]:
        """Layers on each device, without the projection."""
        return [min(end, self.n_on_gpu) - begin for begin, end in pairwise(accumulate(self.split, initial=0))]

    @property
    def is_unified(self) -> bool:
        """Whether the memory of the devices is the machine's."""
        return any(device.is_unified for device in self.devices)

    @property
    def n_gpu_layers(self) -> int:
        """As llama.cpp counts: the vocabulary projection is a layer behind the others, and the first to go."""
        return self.n_on_gpu + 1 if self.on_gpu else 0

    @property
    def place(self) -> str:
        """What decides how fast it computes and with which kernels: CPU, or devices and how many of the layers."""
        if not self.on_gpu:
            return CPU
        layers = "all layers" if self.all_on_gpu else f"{self.n_on_gpu} of {self.n_layers} layers"
        return f"{' + '.join(f'{device.description} ({device.backend})' for device in self.devices)}, {layers}"

    @property
    def explained(self) -> str:
        """In a line: `36 of 36 layers on NVIDIA GeForce RTX 3060, 3.1 of 11.2 GB`, and why if not all are there."""
        why = f" ({self.why})" if self.why else ""
        if not self.on_gpu:
            return f"all {self.n_layers} layers on the CPU{why}"
        names = " and ".join(device.description for device in self.devices)
        total = sum(device.total_bytes for device in self.devices)
        taken = self.n_bytes / 1e9
        memory = f", {taken:.{1 if taken >= 0.1 else 2}f} of {total / 1e9:.1f} GB" if total else ""
        return f"{self.n_on_gpu} of {self.n_layers} layers on {names}{memory}{why}"

    def fields(self) -> dict[str, Any]:
        """For JSON. `bytes` is what the model takes of a device, the others are of when the device was asked."""
        devices = [
            {
                "name": device.name,
                "description": device.description,
                "driver": device.backend,
                "kind": device.kind,
                "layers": n,
                "bytes": share,
                "free_bytes": device.free_bytes,
                "total_bytes": device.total_bytes,
            }
            for device, n, share in zip(self.devices, self._layers, self.shares, strict=True)
        ]
        return {"layers": self.n_layers, "on_gpu": self.n_on_gpu, "why": self.why, "devices": devices}

    def on_cpu(self, why: str) -> Placement:
        """All layers on the CPU."""
        return Placement(self.n_layers, why=why)
