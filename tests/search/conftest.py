"""What the tests of indexing share."""

from __future__ import annotations

from pathlib import Path

import pytest
from indexed_folder import IndexedFolder


@pytest.fixture
def world(tmp_path: Path) -> IndexedFolder:
    return IndexedFolder(tmp_path)
