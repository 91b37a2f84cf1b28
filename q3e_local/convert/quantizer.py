"""Run llama.cpp's quantizer in a process of its own, and tell how far it is.

Knows the lines that process writes, and which types of file there are; leaves llama.cpp itself to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from gguf import LlamaFileType

from q3e_local import machine
from q3e_local.errors import ConversionError
from q3e_local.gguf.header import Header
from q3e_local.wording.endings import ended

FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q6_k": LlamaFileType.MOSTLY_Q6_K,
    "q5_k_m": LlamaFileType.MOSTLY_Q5_K_M,
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
}
# Bits of a weight, rounded up over all sizes of model: the larger the model, the smaller the token table's share.
BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.51, "q6_k": 6.58, "q5_k_m": 5.95, "q4_k_m": 5.3}

_REMEMBERED = 20  # lines of what it said last, for an error


def run_quantizer(source: Header, target: Path, quantization: str, told: Callable[[int, int], None]) -> None:
    """Quantize `source` into the new file `target`. `told` is given bytes read and bytes in all.

    Raises ConversionError with llama.cpp's own words. However this ends, the process has ended too.
    """
    total, done = sum(tensor.size_bytes for tensor in source.tensors.values()), 0
    said: deque[str] = deque(maxlen=_REMEMBERED)
    command = [sys.executable, "-P", "-m", "q3e_local.llama.quantize"]
    # The target without its folder: llama.cpp opens it by a narrow name, which on Windows holds no foreign letters.
    command += [str(source.path.absolute()), target.name]
    command += [str(int(FILE_TYPES[quantization])), str(machine.physical_cores())]
    child = _start(command, target.parent)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            word, _, rest = line.rstrip().partition(" ")
            if word == "done" and rest in source.tensors:
                done += source.tensors[rest].size_bytes
                told(done, total)
            else:
                said.append(line.strip())
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
    if code != 0:
        failed = [line.removeprefix("failed ") for line in said if line.startswith("failed ")]
        reason = "; ".join(failed or [line for line in said if line][-3:]) or "it said nothing"
        raise ConversionError(f"llama.cpp's quantizer {ended(code)}: {reason}")


def _start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(  # noqa: S603 - our own module
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise ConversionError(f"cannot start llama.cpp's quantizer with {command[0]}: {error}") from None


def _environment() -> dict[str, str]:
    """This process's, with its own way of finding modules, and llama.cpp's debugger on abort left out."""
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    return os.environ | {"PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8", "GGML_NO_BACKTRACE": "1"}
