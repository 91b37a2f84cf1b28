"""What the tests of models share: two sources on loopback of the file of tests/downloads.py, and a user's file."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from downloads import CONTENT, NAME, REPO, REVISION
from hub import REFUSED, Hub, go_online, serve
from world import World


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A network with no source but those that a test names."""
    go_online(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", REFUSED)
    monkeypatch.setenv("Q3E_MODELSCOPE_ENDPOINT", REFUSED)


def serving_at(variable: str) -> Any:
    """A fixture: a source that has the file, at the address that this variable names."""

    @pytest.fixture
    def source(network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
        with serve() as hub:
            hub.add(REPO, REVISION, NAME, CONTENT)
            monkeypatch.setenv(variable, hub.url)
            yield hub

    return source


hub = serving_at("HF_ENDPOINT")
modelscope = serving_at("Q3E_MODELSCOPE_ENDPOINT")


@pytest.fixture(params=["hub", "modelscope"])
def source(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server(source: str, request: pytest.FixtureRequest) -> Hub:
    """The server of the source under test; the other source refuses."""
    return request.getfixturevalue(source)


@pytest.fixture
def silent_host() -> Iterator[str]:
    """A host that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class Transfers(list[tuple[str, int, bool]]):
    """What a download reports: give `add` to it as `progress`."""

    def add(self, what: str, n_bytes: int, is_waiting: bool) -> None:
        self.append((what, n_bytes, is_waiting))

    def of(self, verb: str) -> list[int]:
        """The bytes in the reports that begin with this word."""
        return [n_bytes for what, n_bytes, _ in self if what.startswith(f"{verb} ")]


@pytest.fixture
def transfers() -> Transfers:
    return Transfers()


@pytest.fixture
def mine(world: World, tmp_path: Path) -> Path:
    """A model file of the user's own, that no card knows."""
    path = tmp_path / "my models" / "mine.gguf"
    path.parent.mkdir()
    shutil.copyfile(world.q8_0, path)
    with path.open("ab") as file:
        file.write(bytes(32))  # after the last tensor: another checksum, the same model
    return path
