"""What the tests of search share: an empty index, and a folder that a test indexes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from indexed_folder import IndexedFolder
from made_indexes import SPACE

from q3e_local.search.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.q3e"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """An empty index at `path`."""
    with Database.create(path, SPACE) as database:
        yield database


@pytest.fixture
def world(tmp_path: Path) -> IndexedFolder:
    return IndexedFolder(tmp_path)
