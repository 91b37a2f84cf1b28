"""What tests of commands share: four notes and an index of them, and the demo model, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import demo, run, write
from notes import NOTES


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notes in the current folder, which no index has yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    write(tmp_path / "notes", NOTES)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of its notes, for tests that change neither."""
    folder = tmp_path_factory.mktemp("shared")
    write(folder / "notes", NOTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("Q3E_HOME", str(folder / "home"))
        assert run("index", folder / "notes", "-m", "demo", "-q").exit_code == 0
    return folder


@pytest.fixture
def indexed(notes: None, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of `shared`, in the current folder."""
    monkeypatch.chdir(shared)
    monkeypatch.setenv("Q3E_HOME", str(shared / "home"))


@pytest.fixture
def own(notes: None) -> None:
    """An index of the notes that a test may change."""
    assert run("index", "notes", "-m", "demo", "-q").exit_code == 0


@pytest.fixture
def demo_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the test runs in. Every command finds the model loaded, and uses no cache."""
    embedder = demo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_MODEL", "demo")
    monkeypatch.setenv("Q3E_CACHE", "off")
    monkeypatch.setattr(embedder, "close", lambda: None)
    monkeypatch.setattr("q3e_local.load", lambda model, **options: embedder)
    return tmp_path
