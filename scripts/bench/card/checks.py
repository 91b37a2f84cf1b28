"""What must hold on a card: the tap, vectors beside the CPU's, long texts, a killed process, memory that others take.

Each check yields a row that says whether it held and by which figures; None where it could not be tried.
"""

from __future__ import annotations

import ctypes
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from q3e_local import machine
from q3e_local.checks.bench import Texts
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import binding, devices
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.settings.placement import Device
from q3e_local.server.workers.steady import SteadyEngine

# The CPU quantizes activations to 8 bits, a GPU does not: 0.9991 at least was seen of 4-bit weights on Vulkan.
_LEAST_COSINE = 0.99
_LENGTHS = (5, 16, 40, 128, 300)
_LONG, _LONGEST = 2_048, 32_768
_CHUNK, _SMALLEST_CHUNK = 256 << 20, 1 << 20  # of memory that is taken
_SPARE = 64 << 20  # that a driver needs to answer at all

Row = dict[str, Any]


def machine_facts(options: Row) -> Iterator[Row]:
    """The machine, its devices and their driver, and the versions."""
    facts = {
        "CPU": f"{machine.cpu_name()}, {machine.physical_cores()} cores, {machine.total_memory() / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "llama-cpp-python": f"{version('llama-cpp-python')}: {binding.system_info()}",
    }
    for device in devices.devices():
        facts[device.name] = str(device)
    if (program := shutil.which("nvidia-smi")) is not None:
        query = [program, "--query-gpu=name,driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
        facts["nvidia-smi"] = "; ".join(said.stdout.splitlines()) or said.stderr.strip()
    yield {"kind": "machine", "facts": facts}


def tap(options: Row) -> Iterator[Row]:
    """Whether hidden states are read before the vocabulary's projection, and nothing is computed behind them."""
    with LlamaEngine(Path(options["path"]), _config(options)) as engine:
        ids = engine.tokenize("A text on a card.")
        for n in (1, 40):
            engine.decode([[*ids, engine.eos_id]] * n)
        after = engine.counts.after_tap
        said = f"{engine.placement.explained}; computed behind it: {', '.join(map(str, after)) or 'nothing'}"
        yield _row(options, "tap", engine.tap and not after, said)


def parity(options: Row) -> Iterator[Row]:
    """Cosines to the CPU's vectors, of texts alone and in a batch."""
    texts = [text for place, n in enumerate(_LENGTHS) for text in _texts(options, place, 2, n)]
    on_cpu = _vectors(options, EngineConfig(n_gpu_layers=0), texts)
    with LlamaEngine(Path(options["path"]), _config(options)) as engine:
        embedder = Embedder(engine, options["model"])
        together = embedder.embed_documents(texts).vectors
        alone = np.concatenate([embedder.embed_documents([text]).vectors for text in texts])
        where = engine.placement.explained
    cosines, apart = _cosines(together, on_cpu), _cosines(together, alone)
    said = f"{where}; to the CPU {cosines.min():.6f} at least, {cosines.mean():.6f} in the mean of {len(texts)} texts"
    ok = bool(min(cosines.min(), apart.min()) >= _LEAST_COSINE)
    yield _row(options, "parity with the CPU", ok, f"{said}; alone to in a batch {apart.min():.6f}")


def long(options: Row) -> Iterator[Row]:
    """A long text beside the CPU's, in pieces of two sizes, and the longest that the model takes."""
    path = Path(options["path"])
    n_longest = min(_LONGEST, inspect(path).n_ctx_train)
    (text,), (longest,) = _texts(options, 1, 1, _LONG), _texts(options, 2, 1, n_longest)
    small, large = (_vectors(options, _config(options, n_batch=n), [text]) for n in (512, _LONG))
    on_cpu = _vectors(options, EngineConfig(n_gpu_layers=0), [text])
    pieces, cosine = _cosines(small, large)[0], _cosines(large, on_cpu)[0]
    said = f"{_LONG:,} tokens: {cosine:.6f} to the CPU, {pieces:.6f} between pieces of 512 and one"
    yield _row(options, "a long text", bool(min(cosine, pieces) >= _LEAST_COSINE), said)
    with LlamaEngine(path, _config(options)) as engine:
        vectors = Embedder(engine, options["model"]).embed_documents([longest]).vectors
        ok = bool(np.isfinite(vectors).all())
        yield _row(options, "the longest text", ok, f"{n_longest:,} tokens; {engine.placement.explained}")


def kill(options: Row) -> Iterator[Row]:
    """The process with the model is killed in the middle of a job, which loses nothing and doubles nothing."""
    texts = _texts(options, 3, 64, 64)
    expected = _vectors(options, _config(options, n_batch=512), texts)
    n_killed = 0
    with closing(SteadyEngine(Path(options["path"]), _config(options, n_batch=512))) as engine:

        def progress(n_texts: int, n_tokens: int) -> None:
            nonlocal n_killed
            if 0 < n_texts < len(texts) and not n_killed and (pid := engine._worker.pid) is not None:
                n_killed += 1
                _kill(pid)

        vectors = Embedder(engine, options["model"]).embed_documents(texts, progress=progress).vectors
        where = engine.placement.explained
    cosine = _cosines(vectors, expected).min()
    said = f"{len(texts)} texts, killed {n_killed} times: {cosine:.6f} to undisturbed; then {where}"
    yield _row(options, "a killed process", bool(n_killed == 1 and cosine >= _LEAST_COSINE), said)


def full(options: Row) -> Iterator[Row]:
    """Another program takes the memory: before the model is loaded, and while it computes."""
    name = "memory that others take"
    found = [device for device in devices.devices() if device.name == options["device"]] or devices.devices()[:1]
    if options["device"] == "none" or not found:
        yield _row(options, name, None, "no GPU computes here")
        return
    (device,) = found
    if device.is_unified or device.backend == "RPC":
        yield _row(options, name, None, f"the memory of {device.name} is the machine's, which others need")
        return
    path = Path(options["path"])
    texts = _texts(options, 4, 8, 64)
    (long_text,) = _texts(options, 5, 1, 8_192)
    with LlamaEngine(path, _config(options)) as engine:
        embedder = Embedder(engine, options["model"])
        expected, expected_long = (embedder.embed_documents(some).vectors for some in (texts, [long_text]))
        n_bytes = engine.placement.n_bytes
    margin = min(1 << 30, device.total_bytes // 8)
    with (
        _taken(options, device.name, leave=margin + n_bytes * 6 // 10),
        closing(SteadyEngine(path, _config(options))) as tight,
    ):
        vectors = Embedder(tight, options["model"]).embed_documents(texts).vectors
        where = tight.placement
    cosine = _cosines(vectors, expected).min()
    said = f"six tenths of what it needs were free: {where.explained}; cosine {cosine:.6f}"
    yield _row(options, name, bool(cosine >= _LEAST_COSINE and not where.all_on_gpu), said)
    with closing(SteadyEngine(path, _config(options))) as steady:
        embedder = Embedder(steady, options["model"])
        embedder.embed_documents(texts)
        with _taken(options, device.name, leave=_SPARE):
            vectors = embedder.embed_documents([long_text]).vectors
            short = embedder.embed_documents(texts).vectors
            explained = steady.placement.explained
    cosine = min(_cosines(vectors, expected_long).min(), _cosines(short, expected).min())
    said = f"all but {_SPARE >> 20} MiB were taken of a loaded model: {explained}; cosine {cosine:.6f}"
    yield _row(options, f"{name} later", bool(cosine >= _LEAST_COSINE), said)


def hold(options: Row) -> Iterator[Row]:
    """Take memory of a device, all but `leave` bytes, until stdin ends."""
    device, pointer = _found(options["device"])
    kind = binding.function("ggml_backend_dev_buffer_type", ctypes.c_void_p, ctypes.c_void_p)(pointer)
    take = binding.function("ggml_backend_buft_alloc_buffer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    n_free, n_taken, size = device.free_bytes, 0, _CHUNK
    while size >= _SMALLEST_CHUNK:
        # What others take counts too. A device that does not count what it gave is believed no further than this.
        free = min(_found(options["device"])[0].free_bytes, n_free - n_taken)
        if free - options["leave"] >= size and take(kind, size):
            n_taken += size
        else:
            size //= 2
    yield {"kind": "held", "bytes": n_taken}
    sys.stdin.read()


def _kill(pid: int) -> None:
    """As an abort in a driver ends it."""
    import psutil

    psutil.Process(pid).kill()


def _found(name: str) -> tuple[Device, int]:
    """A device as it is now, and ggml's pointer to it."""
    (device,) = (device for device in devices.devices() if device.name == name)
    return device, devices.pointers([device])[0]


@contextmanager
def _taken(options: Row, device: str, leave: int) -> Iterator[None]:
    """As long as the block runs, another process holds all but `leave` bytes of the device."""
    wanted = json.dumps({"device": device, "leave": leave})
    child = [sys.executable, str(Path(__file__).with_name("child.py")), "hold", wanted]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            if "held" not in holder.stdout.readline():
                raise RuntimeError(f"no memory of {device} could be taken")
            yield
        finally:
            holder.kill()


def _config(options: Row, **others: Any) -> EngineConfig:
    return EngineConfig(device=options["device"], **others)


def _texts(options: Row, seed: int, n_texts: int, n_tokens: int) -> list[str]:
    """Texts of the model's own words, end token included; the same in each process."""
    with LlamaEngine(Path(options["path"]), EngineConfig(n_gpu_layers=0, n_batch=64)) as engine:
        return Texts(Path(options["path"]), engine.tokenize, seed)(n_texts, n_tokens)


def _vectors(options: Row, config: EngineConfig, texts: list[str]) -> Any:
    with LlamaEngine(Path(options["path"]), config) as engine:
        return Embedder(engine, options["model"]).embed_documents(texts).vectors


def _cosines(ones: Any, others: Any) -> Any:
    return (ones * others).sum(axis=1)


def _row(options: Row, check: str, ok: bool | None, said: str) -> Row:
    return {"kind": "check", "model": options["model"], "check": check, "ok": ok, "said": said}
