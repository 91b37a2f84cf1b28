"""What ggml says of a device is read as its header has it. Every build has a device that can be asked: the CPU."""

from __future__ import annotations

import ctypes

import psutil
import pytest
from gpus import device

from q3e_local import machine
from q3e_local.errors import EngineError
from q3e_local.llama import binding, devices

CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def test_a_devices_facts_are_those_that_ggml_has_functions_for():
    of_cpu = binding.function("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)(CPU)
    found = devices._device(of_cpu)
    assert (found.name, found.backend, found.card) == ("CPU", "CPU", "")
    description = binding.function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)(of_cpu)
    assert found.description == description.decode().strip()
    assert found.total_bytes == psutil.virtual_memory().total
    assert 0 < found.free_bytes <= found.total_bytes


def test_a_device_that_is_gone_is_an_error_with_its_name():
    with pytest.raises(EngineError, match=r"^CUDA7 \(NVIDIA GeForce RTX 3060\) is gone; q3e-local doctor lists"):
        devices.pointers([device("CUDA7")])


def test_the_cpu_is_no_gpu():
    assert "CPU" not in [each.name for each in devices.devices()]
    assert devices.are_there() == bool(devices.devices())


def test_memory_that_is_the_machines_is_free_as_far_as_the_machine_says(monkeypatch):
    of_cpu = binding.function("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)(CPU)
    monkeypatch.setattr(machine, "available_memory", lambda: 1000)
    monkeypatch.setattr(devices, "_text", lambda *_: "MTL")  # its driver
    assert devices._device(of_cpu).free_bytes == 1000
    monkeypatch.setattr(devices, "_text", lambda *_: "CUDA")
    assert devices._device(of_cpu).free_bytes > 1000


def test_devices_that_were_known_are_asked_again_and_one_that_is_gone_stays_as_it_was(monkeypatch):
    known = (device("CUDA0", free=8), device("CUDA1", free=8))
    monkeypatch.setattr(devices, "devices", lambda: [device("CUDA1", free=2)])
    assert devices.again(known) == (known[0], device("CUDA1", free=2))
