"""What the tests of models share: two sources on loopback of the file of tests/downloads.py, and a user's file."""

from __future__ import annotations

import shutil
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


@pytest.fixture
def hub(network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as hub:
        hub.add(REPO, REVISION, NAME, CONTENT)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def modelscope(network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as hub:
        hub.add(REPO, REVISION, NAME, CONTENT)
        monkeypatch.setenv("Q3E_MODELSCOPE_ENDPOINT", hub.url)
        yield hub


@pytest.fixture(params=["hub", "modelscope"])
def source(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server(source: str, request: pytest.FixtureRequest) -> Hub:
    """The server of the source under test; the other source refuses."""
    return request.getfixturevalue(source)


@pytest.fixture
def mine(world: World, tmp_path: Path) -> Path:
    """A model file of the user's own, that no card knows."""
    path = tmp_path / "my models" / "mine.gguf"
    path.parent.mkdir()
    shutil.copyfile(world.q8_0, path)
    with path.open("ab") as file:
        file.write(bytes(32))  # after the last tensor: another checksum, the same model
    return path
