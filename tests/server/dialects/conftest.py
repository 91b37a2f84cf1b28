"""Ollama's own client, and the one model that servers of other dialects have."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import ollama
import pytest


@pytest.fixture
def client(http: httpx.Client) -> Iterator[ollama.Client]:
    client = ollama.Client(host=str(http.base_url), trust_env=False)
    yield client
    client._client.close()  # ollama's client has no way to be closed


@pytest.fixture
def _loaded(http: httpx.Client) -> None:
    """llama-server and TEI serve one model; here it is the one that is loaded."""
    http.post("/api/embed", json={"model": "demo"})
