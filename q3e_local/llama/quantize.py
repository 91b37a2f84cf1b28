"""The program `python -m q3e_local.llama.quantize IN OUT FILE_TYPE THREADS PATTERN=TYPE…`: llama.cpp's quantizer.

A process of its own, because llama.cpp can neither be interrupted nor survive its asserts, and keeps what it
allocates. On stdout: `done NAME` after each tensor, and `failed REASON`. It ends when its stdin ends, and so never
outlives the process that started it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading

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
    from q3e_local.llama import binding, native_log

    native_log.logger.addHandler(_Progress())
    native_log.logger.setLevel(logging.DEBUG)
    native_log.logger.propagate = False
    try:
        by_pattern = {pattern: int(kind) for pattern, _, kind in (each.rpartition("=") for each in types)}
        binding.quantize(source, target, int(file_type), int(n_threads), _MAX_BUF_SIZE, by_pattern)
    except binding.NativeError as error:
        _say(f"failed {error}")
        return 1
    return 0


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
