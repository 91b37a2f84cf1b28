"""Run llama.cpp's quantizer in a process of its own, and report how far it is.

Knows the lines that the process writes, and which types of file there are; does not call llama.cpp.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from gguf import GGMLQuantizationType, LlamaFileType

from q3e_local import machine
from q3e_local.errors import ConversionError
from q3e_local.gguf.header import Header
from q3e_local.gguf.model_kind import HEAD, OUTPUT, ModelKind
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


def run_quantizer(
    source: Header, target: Path, quantization: str, kind: ModelKind, progress: Callable[[int, int], None]
) -> None:
    """Quantize `source` into the new file `target`. `progress` gets the bytes read and all there are.

    A reranker's head stays F32 in a quantized file.
    Raises ConversionError with llama.cpp's words. However this ends, the process has ended too.
    """
    total, done = sum(tensor.size_bytes for tensor in source.tensors.values()), 0
    said: deque[str] = deque(maxlen=20)  # its latest lines, for an error
    command = [sys.executable, "-P", "-m", "q3e_local.llama.quantize"]
    # The target without its folder: llama.cpp opens it by a narrow name, which on Windows holds no foreign letters.
    command += [str(source.path.absolute()), target.name]
    command += [str(int(FILE_TYPES[quantization])), str(machine.physical_cores())]
    command += [f"{pattern}={int(kind)}" for pattern, kind in _types(source, quantization, kind).items()]
    with _start(command, target.parent) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                word, _, rest = line.rstrip().partition(" ")
                if word == "done" and rest in source.tensors:
                    done += source.tensors[rest].size_bytes
                    progress(done, total)
                else:
                    said.append(line.strip())
            code = child.wait()
        finally:
            child.kill()
    if code != 0:
        failed = [line.removeprefix("failed ") for line in said if line.startswith("failed ")]
        reason = "; ".join(failed or [line for line in said if line][-3:]) or "it said nothing"
        raise ConversionError(f"llama.cpp's quantizer {ended(code)}: {reason}")


def _types(source: Header, quantization: str, kind: ModelKind) -> dict[str, GGMLQuantizationType]:
    """The types of tensors that llama.cpp would choose otherwise, by the pattern of their names."""
    types: dict[str, GGMLQuantizationType] = {}
    if kind == "embedder":
        return types
    if HEAD in source.tensors:
        types[re.escape(HEAD)] = GGMLQuantizationType.F32
    if quantization in ("q4_k_m", "q5_k_m") and OUTPUT in source.tensors:
        # Beside a projection, which is left out afterwards, it stores the token table more coarsely.
        types["token_embd"] = GGMLQuantizationType.Q6_K
    return types


def _start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    modules = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)  # found as this process finds them
    without_debugger = {"GGML_NO_BACKTRACE": "1"}  # which llama.cpp would start when it aborts
    try:
        return subprocess.Popen(  # noqa: S603 - our own module
            command,
            cwd=folder,
            env=os.environ | without_debugger | {"PYTHONPATH": modules, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise ConversionError(f"cannot start llama.cpp's quantizer with {command[0]}: {error}") from None
