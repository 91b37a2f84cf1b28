"""llama.cpp's RPC servers on loopback: GPUs as far as llama.cpp can tell, for builds with that backend.

What is behind one is not in this process: weights, keys and values, and tensors that are read. Its kernels are those
of the CPU. A server is a process of its own, whose memory may be limited.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama import binding, devices
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.settings.placement import Device

START = "ggml_backend_rpc_start_server"
CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def is_built_in() -> bool:
    """Whether this llama.cpp can have such devices."""
    with suppress(AttributeError):
        return binding.address(START) != 0
    return False


@contextmanager
def server(memory_bytes: int | None = None) -> Iterator[Device]:
    """A device, that of a server which runs until the block ends. `memory_bytes`: beyond that it refuses.

    llama.cpp never forgets a server, and ends the process that asks one which is gone: behind the block, devices.py
    does not see it any more.
    """
    endpoint = next(endpoint for endpoint in iter(_free_endpoint, "") if endpoint not in _gone)
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(endpoint, memory_bytes), daemon=True)
    process.start()
    try:
        host, _, port = endpoint.partition(":")
        for _ in range(600):
            with suppress(OSError), socket.create_connection((host, int(port)), 1):
                break
            time.sleep(0.1)
        register(endpoint)
        (device,) = (each for each in devices.devices() if each.description == endpoint)
        yield device
    finally:
        _gone.add(endpoint)
        process.kill()
        process.join()


def _free_endpoint() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def register(endpoint: str) -> None:
    """Make a server's devices known to llama.cpp in this process, for as long as it runs."""
    server = binding.function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)(endpoint.encode())
    binding.function("ggml_backend_register", None, ctypes.c_void_p)(server)


_gone: set[str] = set()
_pointers = devices._pointers


def _alive() -> list[int]:
    return [pointer for pointer in _pointers() if devices._text("ggml_backend_dev_description", pointer) not in _gone]


devices._pointers = _alive


def _serve(endpoint: str, memory_bytes: int | None) -> None:
    null = os.open(os.devnull, os.O_WRONLY)  # the server prints
    os.dup2(null, 1)
    os.dup2(null, 2)
    device = binding.function("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)(CPU)
    of_devices = (ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p))
    start = binding.function(START, None, ctypes.c_char_p, ctypes.c_char_p, *of_devices)
    if memory_bytes is not None:
        limit = memory_bytes + psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start(endpoint.encode(), None, 1, 1, (ctypes.c_void_p * 1)(device))


def open_on(endpoint: str, path: Path, config: EngineConfig) -> LlamaEngine:
    """What opens an engine in a worker's process, which must be told of the server first."""
    if config.n_gpu_layers != 0:
        register(endpoint)
    return LlamaEngine(path, config)
