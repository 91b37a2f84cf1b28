"""Ollama's client, and the model that llama-server's and TEI's clients do not name."""

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
    """Load the demo model: requests that name no model are answered by the loaded model."""
    http.post("/api/embed", json={"model": "demo"})
