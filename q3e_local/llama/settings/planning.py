"""Which layers of a model go to which GPU, by arithmetic on the memory that each of them has free.

Touches neither llama.cpp nor the machine: devices.py asks for devices, loading.py does what is planned here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from q3e_local.embedding.engine import NO_DEVICE, EngineConfig
from q3e_local.errors import OptionError
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama.settings.defaults import Tuned
from q3e_local.llama.settings.memory import KEPT_BYTES_MAX, ContextPlan, needed_bytes
from q3e_local.llama.settings.placement import Device, Placement
from q3e_local.llama.settings.sharing import shared_out


def check_without_gpus(config: EngineConfig) -> None:
    """Raise OptionError where options ask for a GPU, of a llama.cpp that was built without any."""
    for option, none in (("n_gpu_layers", 0), ("device", NO_DEVICE)):
        if (value := getattr(config, option)) is not None:
            raise OptionError(
                f"{option} must be {none}, got {value}: this llama.cpp was built without a GPU; "
                "docs/install.md says how to have one that was built for it",
                option,
            )


def chosen(devices: Sequence[Device], names: Sequence[str] | None) -> list[Device]:
    """The devices of these names, in their order; of None those that llama.cpp would take.

    Integrated GPUs only where there is no other: they compute with the memory that the CPU is slow with too. A card
    that two backends drive counts once, by the first of them. Raises OptionError with the names that there are.
    """
    if names is None:
        discrete = {device.card or device.name: device for device in reversed(devices) if device.kind == "discrete"}
        return list(discrete.values())[::-1] or list(devices)[:1]
    known = {device.name.lower(): device for device in devices}
    for name in names:
        if name.lower() not in known:
            there = "; ".join(map(str, devices)) or "none: a driver may be missing"
            raise OptionError(
                f"device must be one that llama.cpp sees here, got {name!r}; there is {there}", "device"
            )
    return list(dict.fromkeys(known[name.lower()] for name in names))


def plan(info: ModelInfo, context: ContextPlan, devices: Sequence[Device], n_wanted: int | None = None) -> Placement:
    """The fewest devices that hold all layers, the one with most memory free first; else as many layers as fit.

    `context` is what is computed with beside the weights. `n_wanted`: so many layers, whether they fit or not.
    """
    n_layers = info.n_layer
    if not devices or n_wanted == 0:
        return Placement(n_layers, why="as asked" if n_wanted == 0 else "no GPU")
    by_room = sorted(devices, key=lambda device: device.free_bytes if device.total_bytes else 1 << 62, reverse=True)
    n = n_layers if n_wanted is None else min(n_wanted, n_layers)
    some = _fewest(info, context, by_room, n)
    if some or n_wanted is not None:
        return _placed(info, context, some or tuple(by_room), n, "as asked" if n < n_layers else "")
    free = sum(device.free_bytes for device in by_room) / 1e9
    why = f"{device_bytes(info, context, n_layers, 1) / 1e9:.1f} GB are needed for all, {free:.1f} GB are free"
    for n in range(n_layers - 1, 0, -1):
        if some := _fewest(info, context, by_room, n):
            return replace(_placed(info, context, some, n, why), is_short=True)
    return Placement(n_layers, why=why, is_short=True)


def unless_beaten(placement: Placement, config: EngineConfig, tuned: Tuned | None) -> Placement:
    """The CPU in its place, where tuning found that faster and no option asks for the GPU."""
    is_asked_for = config.n_gpu_layers is not None or config.devices is not None
    if not placement.on_gpu or is_asked_for or tuned is None or tuned.n_gpu_layers != 0:
        return placement
    return placement.on_cpu(f"the CPU was faster when tuned on {tuned.day}")


def fewer(placement: Placement, info: ModelInfo, context: ContextPlan, devices: Sequence[Device]) -> Placement:
    """The next to try where memory was refused: what fits now, at most half of the layers, and in the end none.

    `devices` are those of the placement, asked again.
    """
    n = placement.n_on_gpu // 2
    while n and not _fits(info, context, devices, n):
        n -= 1
    why = "for want of GPU memory"
    less = _placed(info, context, tuple(devices), n, why) if n else placement.on_cpu(why)
    return replace(less, is_short=True)


def steps_down(
    placement: Placement, info: ModelInfo, context: ContextPlan, devices: Sequence[Device]
) -> Iterator[tuple[Placement, tuple[Device, ...]]]:
    """All that `fewer` would come to, one after the other, with the devices as they are then.

    `devices` are those of the placement, as they are without this model.
    """
    while placement.on_gpu:
        placement = fewer(placement, info, context, devices)
        yield placement, freed(placement.devices, [(device, -share) for device, share in placement.takes])


def freed(devices: Sequence[Device], takes: Iterable[tuple[Device, int]]) -> tuple[Device, ...]:
    """The devices once so many bytes more are free on each."""
    n_bytes: dict[str, int] = {}
    for device, share in takes:
        n_bytes[device.name] = n_bytes.get(device.name, 0) + share
    return tuple(
        replace(device, free_bytes=max(0, device.free_bytes + n_bytes.get(device.name, 0))) for device in devices
    )


def with_context(placement: Placement, info: ModelInfo, context: ContextPlan) -> Placement:
    """The same layers on the same devices, beside another context for batches than was planned."""
    return replace(placement, shares=_shares(info, context, placement.split, placement.n_on_gpu))


def context_shares(info: ModelInfo, context: ContextPlan, placement: Placement) -> tuple[int, ...]:
    """What a context takes of each device of the placement, beside the weights there."""
    without_weights = replace(info, size_bytes=0, layer_bytes=(), output_bytes=0)
    return _shares(without_weights, context, placement.split, placement.n_on_gpu)


def device_bytes(info: ModelInfo, context: ContextPlan, n_on_gpu: int, n_devices: int) -> int:
    """What so many layers take of the memory of devices: weights, keys and values, and buffers on each device."""
    if not n_on_gpu:
        return 0
    weights = sum(info.layer_bytes[-n_on_gpu:]) + info.output_bytes
    if not info.layer_bytes:  # a model that is only planned
        weights = info.size_bytes * n_on_gpu // info.n_layer
    without_cells = replace(context, kv_on_gpu=False).device_bytes(info, n_on_gpu)
    return weights + context.device_bytes(info, n_on_gpu) + (n_devices - 1) * without_cells


def ram_bytes(info: ModelInfo, placement: Placement, batches: ContextPlan) -> int:
    """Memory of the machine that an engine takes with its layers so: weights, context for batches, kept prefixes."""
    if not placement.on_gpu or placement.is_unified:
        return needed_bytes(info, batches)
    n = placement.n_on_gpu
    on_gpu = sum(info.layer_bytes[-n:]) or info.size_bytes * n // info.n_layer
    return info.size_bytes - on_gpu + batches.host_bytes(info, n) + (KEPT_BYTES_MAX if batches.tap else 0)


def _fewest(info: ModelInfo, context: ContextPlan, by_room: Sequence[Device], n: int) -> tuple[Device, ...]:
    """The first devices that hold so many layers; none where all of them do not."""
    firsts = (tuple(by_room[:count]) for count in range(1, len(by_room) + 1))
    return next((some for some in firsts if _fits(info, context, some, n)), ())


def _fits(info: ModelInfo, context: ContextPlan, devices: Sequence[Device], n_on_gpu: int) -> bool:
    rooms = [device.room_bytes for device in devices]
    known = [room for room in rooms if room is not None]
    if len(known) < len(rooms):
        return True
    if device_bytes(info, context, n_on_gpu, len(devices)) > sum(known):
        return False
    # llama.cpp shares layers out by the memory that is free: a small card may get more than fits beside its buffers.
    takes = _placed(info, context, tuple(devices), n_on_gpu, "").takes
    return len(devices) == 1 or all(share <= device.free_bytes for device, share in takes)


def _placed(info: ModelInfo, context: ContextPlan, devices: tuple[Device, ...], n: int, why: str) -> Placement:
    free = [device.free_bytes if device.total_bytes else None for device in devices]
    split = tuple(shared_out(free, n + 1))
    return Placement(info.n_layer, n, devices, split, _shares(info, context, split, n), why)


def _shares(info: ModelInfo, context: ContextPlan, split: Sequence[int], n_on_gpu: int) -> tuple[int, ...]:
    """What `device_bytes` says, for each of the devices."""
    compute = replace(context, kv_on_gpu=False).device_bytes(info, n_on_gpu)
    weights = info.layer_bytes[-n_on_gpu:]

    def of_first(n: int) -> int:
        """The weights, keys and values of the first so many of the layers on GPUs; the projection is the last."""
        layers = min(n, n_on_gpu)
        kv = context.device_bytes(info, layers) - compute if layers else 0
        in_file = sum(weights[:layers]) if weights else info.size_bytes * layers // info.n_layer
        return in_file + kv + (info.output_bytes if n > n_on_gpu else 0)

    ends = (of_first(n) for n in accumulate(split, initial=0))
    return tuple(end - begin + compute for begin, end in pairwise(ends))
