"""What the tests of model files share."""

from __future__ import annotations

from pathlib import Path

import pytest
from rewriting import small_gguf


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_gguf(tmp_path_factory.mktemp("small"))
