"""Servers of stores, each a process of its own on loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens on this port, until the block ends."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that other users can reach, as those below pytest's cannot: PostgreSQL does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix="q3e-pg-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def chroma(folder: Path, port: int) -> list[str]:
    """The command that runs Chroma's server."""
    return [str(BIN / "chroma"), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]


def milvus(folder: Path, port: int) -> list[str]:
    """The command that runs Milvus Lite as a server: what it speaks is Milvus' own protocol."""
    return [str(BIN / "milvus-lite"), "server", "--data-dir", str(folder), "--port", str(port)]
