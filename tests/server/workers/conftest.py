"""A worker on an engine that fails as real ones do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import open_faulty

from q3e_local.server.workers.liveness import Bounds
from q3e_local.server.workers.worker import WorkerEngine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model file. Its text decides how the engine loads: tests/faults.py has the words."""
    path = tmp_path / "faulty.gguf"
    path.write_text("fine", encoding="ascii")
    return path


@pytest.fixture
def bounds() -> Bounds:
    """When the worker counts as hung. A test module may override them."""
    return Bounds()


@pytest.fixture
def worker(path: Path, bounds: Bounds) -> Iterator[WorkerEngine]:
    worker = WorkerEngine(path, open_engine=open_faulty, bounds=bounds)
    yield worker
    worker.close()
