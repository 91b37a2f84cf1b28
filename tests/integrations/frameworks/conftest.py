"""The models that come with the program, in the classes of frameworks; a home of the tests' own."""

from __future__ import annotations

import os
import tempfile

# llm reads them when it is imported, and keeps its database there.
os.environ["HOME"] = os.environ["LLM_USER_PATH"] = tempfile.mkdtemp(prefix="q3e-frameworks-")
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator

import pytest

import q3e_local


@pytest.fixture(scope="session")
def embedder() -> Iterator[q3e_local.Embedder]:
    with q3e_local.load("demo") as embedder:
        yield embedder


@pytest.fixture(scope="session")
def reranker() -> Iterator[q3e_local.Reranker]:
    with q3e_local.load_reranker("demo-reranker") as reranker:
        yield reranker
