"""The GPUs that llama.cpp can compute on: their names, drivers and memory.

Knows ggml's list of devices; nothing of models. What one of them has free changes from call to call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

from q3e_local import machine
from q3e_local.errors import EngineError
from q3e_local.llama import binding
from q3e_local.llama.settings.placement import Device

# ggml_backend_dev_type, in ggml-backend.h. An accelerator (BLAS, AMX) works with the CPU, and holds no layers.
_GPU, _INTEGRATED = 1, 2


def are_there() -> bool:
    """Whether llama.cpp finds a GPU here. Starts no driver."""
    return bool(_pointers())


def devices() -> list[Device]:
    """The GPUs that this build of llama.cpp finds here, in llama.cpp's order.

    A build for a GPU finds none where its driver is missing. Asking for a device's memory may start its driver, which
    takes some of it for as long as this process runs.
    """
    return [_device(pointer) for pointer in _pointers()]


def again(known: Sequence[Device]) -> tuple[Device, ...]:
    """The same devices with the memory that they have free now."""
    now = {device.name: device for device in devices()}
    return tuple(now.get(device.name, device) for device in known)


def gone(known: Sequence[Device]) -> str:
    """Those of these devices that are not here any more, in words; empty where all are. Of none, starts no driver."""
    return _named(known, {device.name for device in devices()}) if known else ""


def pointers(known: Sequence[Device]) -> list[int]:
    """ggml's pointers to these devices. Raises EngineError where one is gone."""
    here = {_text("ggml_backend_dev_name", pointer): pointer for pointer in _pointers()}
    if missing := _named(known, here):
        raise EngineError(f"{missing} is gone; q3e-local doctor lists the GPUs that are here")
    return [here[device.name] for device in known]


def _named(known: Sequence[Device], here: Container[str]) -> str:
    return " and ".join(f"{device.name} ({device.description})" for device in known if device.name not in here)


def _pointers() -> list[int]:
    count = binding.function("ggml_backend_dev_count", ctypes.c_size_t)
    get = binding.function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    kind = binding.function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    return [pointer for place in range(count()) if kind(pointer := get(place)) in (_GPU, _INTEGRATED)]


class _Caps(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_bool) for name in ("async", "host_buffer", "buffer_from_host_ptr", "events", "mmap_support")
    )


class _Props(ctypes.Structure):
    """ggml_backend_dev_props of ggml-backend.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", _Caps),
    )


def _device(pointer: int) -> Device:
    of = binding.function("ggml_backend_dev_backend_reg", ctypes.c_void_p, ctypes.c_void_p)(pointer)
    props = _Props()
    binding.function("ggml_backend_dev_get_props", None, ctypes.c_void_p, ctypes.POINTER(_Props))(
        pointer, ctypes.byref(props)
    )
    device = Device(
        _words(props.name),
        _words(props.description),
        _text("ggml_backend_reg_name", of),
        "integrated" if props.type == _INTEGRATED else "discrete",
        props.memory_free,
        props.memory_total,
        _words(props.device_id),
    )
    if device.is_unified:  # a driver knows only what it gave away itself
        return replace(device, free_bytes=min(device.free_bytes, machine.available_memory()))
    return device


def _text(function: str, pointer: Any) -> str:
    return _words(binding.function(function, ctypes.c_char_p, ctypes.c_void_p)(pointer))


def _words(said: bytes | None) -> str:
    return bytes(said or b"").decode("utf-8", "replace").strip()
