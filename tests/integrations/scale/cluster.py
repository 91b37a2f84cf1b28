"""A Ray cluster of two nodes on this machine, and processes that a test started: their trees, where they talk to."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

RAY = Path(sys.executable).with_name("ray")
# Ray takes 127.0.0.1 for a name of the machine and goes to the network card; so each node has another address of lo.
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
_NODE = ["--num-cpus=1", "--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0", "--block"]
# A lost node is noticed within seconds.
_IMPATIENT = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}


@contextmanager
def ray_cluster() -> Iterator[tuple[str, list[psutil.Process]]]:
    """A cluster's address, and its two nodes, each with one core: the head, and one that a test may kill."""
    with socket.socket() as free:
        free.bind((HEAD, 0))
        port = free.getsockname()[1]
    address = f"{HEAD}:{port}"
    folder = tempfile.mkdtemp(prefix="q3e-ray-", dir="/tmp")  # sockets in it must have short names
    head = [
        "--head",
        f"--port={port}",
        f"--node-ip-address={HEAD}",
        f"--temp-dir={folder}",
        "--include-dashboard=false",
    ]
    nodes: list[psutil.Process] = []
    try:
        for place in (head, [f"--address={address}", f"--node-ip-address={SECOND}"]):
            command = [RAY, "start", *place, *_NODE]
            nodes.append(psutil.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | _IMPATIENT))
            until(lambda: n_active(address) == len(nodes), 120, "a node of Ray does not start")
        yield address, nodes
    finally:
        for node in reversed(nodes):
            kill(node)
        shutil.rmtree(folder, ignore_errors=True)


def n_active(address: str) -> int:
    """How many nodes of a cluster are alive."""
    said = subprocess.run([RAY, "status", f"--address={address}"], capture_output=True, text=True, check=False).stdout
    return said.partition("Pending:")[0].count(" node_")


def tree(process: psutil.Process) -> list[psutil.Process]:
    """A process that a test started, and all that it has started."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(process: psutil.Process) -> None:
    """End it and what it has started at once, as a machine that loses its power."""
    for each in tree(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def elsewhere(processes: list[psutil.Process]) -> list[str]:
    """The addresses outside of this machine's loopback that these processes are connected to."""
    connections = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections += process.net_connections(kind="inet")
    peers = {each.raddr.ip.removeprefix("::ffff:") for each in connections if each.raddr}
    return sorted(peer for peer in peers if not peer.startswith("127.") and peer != "::1")


def until(reached: Callable[[], bool], seconds: float, why: str) -> None:
    """Wait for something. Fails with the reason when the time is over."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, why
        time.sleep(0.2)
