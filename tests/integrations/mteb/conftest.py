"""The demo model as mteb's encoder, and tasks that are made here: nothing is asked of a hub."""

from __future__ import annotations

import os
import tempfile

# mteb and its data sets' library read these when they are imported.
os.environ["HOME"] = tempfile.mkdtemp(prefix="q3e-mteb-")
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "MTEB_CACHE": os.environ["HOME"]}

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import q3e_local

sys.path.insert(0, str(Path(__file__).parent))

from local_tasks import metadata


@pytest.fixture(scope="session")
def embedder() -> Iterator[q3e_local.Embedder]:
    with q3e_local.load("demo") as embedder:
        yield embedder


@pytest.fixture
def task() -> dict[str, Any]:
    """What mteb says about a task with every call."""
    of_task = metadata("Q3ETask", prompt={"query": "Find the note"})
    return {"task_metadata": of_task, "hf_split": "test", "hf_subset": "default"}
