"""What tests of commands share: a folder to run in, four notes and an index of them, the demo model, and gates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command import demo, run, write
from notes import NOTES
from screen import Gates

from q3e_local.llama.engine import LlamaEngine

TABLE = "id;text;label;date\n1;one;good;2024-01-31\n2;;bad;\n3;three;;2024-02-01\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs with a relative path land in the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is computed by itself, so that what shares its batch changes no byte of an output."""
    decode = LlamaEngine.decode

    def one_by_one(
        engine: LlamaEngine, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None, *more: object
    ) -> np.ndarray:
        return np.concatenate([decode(engine, [ids]) for ids in sequences])

    monkeypatch.setattr(LlamaEngine, "decode", one_by_one)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notes in the current folder, which no index has yet."""
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
def own_index(notes: None) -> None:
    """An index of the notes that a test may change."""
    assert run("index", "notes", "-m", "demo", "-q").exit_code == 0


@pytest.fixture
def demo_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command finds the demo model loaded, and uses no cache."""
    embedder = demo()
    monkeypatch.setenv("Q3E_MODEL", "demo")
    monkeypatch.setenv("Q3E_CACHE", "off")
    monkeypatch.setattr(embedder, "close", lambda: None)
    monkeypatch.setattr("q3e_local.load", lambda model, **options: embedder)


@pytest.fixture
def table(tmp_path: Path, demo_loaded: None) -> str:
    """A table in `t.csv`, the text of whose second row is blank, for commands that find the demo model loaded."""
    write(tmp_path, {"t.csv": TABLE})
    return TABLE


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    """A model whose batches wait, each for its gate."""
    return Gates(tmp_path / "gates")
