"""A file that lands whole, a lock against other processes, the file beside a `.npy`, and the SHA-256 of a file.

Knows paths and bytes; nothing of what is in the files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def landing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes are under the path once the block ends well; else all is as it was before.

    Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # or a power cut may leave the name with nothing under it
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def land(path: Path, text: str) -> None:
    """Write a small file whole, as UTF-8, and make its folder where that is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with landing(path) as stream:
        stream.write(text.encode("utf-8"))


@contextmanager
def alone(
    lock: Path, on_wait: Callable[[], None] = lambda: None, *, wait_s: float = -1, mode: int = 0o644
) -> Iterator[None]:
    """Hold a lock against other processes until the block ends. The folder of the lock file is made if missing.

    Where another process holds the lock, calls `on_wait`, which may raise, and waits: for ever, or `wait_s` seconds.
    Raises OSError, and of that TimeoutError when the wait is over.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock, mode=mode)
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.acquire(timeout=0)
    except Timeout:
        on_wait()
        held.acquire(timeout=wait_s)
    try:
        yield
    finally:
        held.release()


def rows_file(path: Path) -> Path:
    """Where the lines about the rows of a `.npy` are: `NAME.npy.rows.jsonl` beside it."""
    return path.with_name(f"{path.name}.rows.jsonl")


def sha256(path: Path, on_bytes: Callable[[int], None] = lambda n_bytes: None) -> str:
    """The file's SHA-256 in hex. Calls `on_bytes` after each piece with how many bytes were read."""
    digest, n_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(4 << 20):
            digest.update(piece)
            n_bytes += len(piece)
            on_bytes(n_bytes)
    return digest.hexdigest()
