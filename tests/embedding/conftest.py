"""Fixtures of these tests: an embedder on an engine whose vectors can be predicted by eye."""

from __future__ import annotations

import pytest
from fake import FakeEngine

from q3e_local.embedding.embedder import Embedder


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def embedder(engine: FakeEngine) -> Embedder:
    return Embedder(engine, "fake")
