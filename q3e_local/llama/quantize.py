"""The program `python -m q3e_local.llama.quantize IN OUT FILE_TYPE THREADS PATTERN=TYPE…`: llama.cpp's quantizer.

A process of its own, because llama.cpp can neither be interrupted nor survive its asserts, and keeps what it
allocates. On stdout: `done NAME` after each tensor, and `failed REASON`. It ends when its stdin ends, and so never
outlives the process that started it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping

_TENSOR = re.compile(r"\[ *\d+/ *\d+\] +(\S+) .*size = ")
# Of buffers for rows on their way from one type to another. The source is mapped, and does not count.
_MAX_BUF_SIZE = 128 << 20


class _Progress(logging.Handler):
    """llama.cpp reports a tensor in one line, which is complete when the tensor is."""

    def emit(self, record: logging.LogRecord) -> None:
        line = _TENSOR.search(record.getMessage())
        if line:
            _say(f"done {line[1]}")


def main(arguments: list[str]) -> int:
    """Quantize, and answer with the exit code."""
    source, target, file_type, n_threads, *types = arguments
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    from q3e_local.llama.native_log import NativeError, logger

    logger.addHandler(_Progress())
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        by_pattern = {pattern: int(kind) for pattern, _, kind in (each.rpartition("=") for each in types)}
        _quantize(source, target, int(file_type), int(n_threads), by_pattern)
    except NativeError as error:
        _say(f"failed {error}")
        return 1
    return 0


def _quantize(source: str, target: str, file_type: int, n_threads: int, types: Mapping[str, int]) -> None:
    """Write `source` once more, as llama.cpp's `file_type`. Its progress goes to the log, line by line.

    `types` are ggml's types of tensors that differ from the file type's, by the pattern of their names; llama.cpp
    follows them only where the file type is a quantized one.
    """
    from q3e_local.llama.binding import lib, native_log

    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.max_buf_size = file_type, n_threads, _MAX_BUF_SIZE
    overrides = (lib.llama_model_tensor_override * (len(types) + 1))()  # the last one, of zeros, is the end
    for override, (pattern, kind) in zip(overrides, types.items(), strict=False):
        override.pattern, override.type = pattern.encode("utf-8"), kind
    params.tt_overrides = ctypes.cast(overrides, ctypes.POINTER(lib.llama_model_tensor_override))
    if lib.llama_model_quantize(source.encode("utf-8"), target.encode("utf-8"), params) != 0:
        raise native_log.failure("quantizing failed")


def _end_with_stdin() -> None:
    # Not through sys.stdin: its lock, held by a waiting thread, is fatal when the interpreter ends.
    while os.read(0, 4096):
        pass
    os._exit(1)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
