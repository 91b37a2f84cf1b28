"""Indexes that a server of a test has, and searches over HTTP in them. The model is the demo, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from command import demo

from q3e_local import Embedder, VectorIndex

NOTES = {
    "garden": "We decided that the budget of the garden is 300 euros.",
    "oak": "The oak PRJ-2041 is to be cut in spring.",
    "chinese": "我们决定花园的预算是三百欧元。",
    "kitchen": "The kitchen gets a new window, and no budget at all.",
}
FILES = {
    "minutes/a.md": "# Money\n\nThe budget is small.\n\n# Trees\n\nThe oak stays.\n",
    "b.txt": "The oak falls.\n",
}


def make(path: Path, texts: dict[str, str], dim: int | None = None, embedder: Embedder | None = None) -> Path:
    """An index of added texts."""
    with VectorIndex(path, embedder or demo(), dim) as index:
        index.add(list(texts.values()), list(texts))
    return path


def search(http: httpx.Client, query: str, index: str | None = "notes", **fields: Any) -> dict[str, Any]:
    answer = http.post("/api/search", json={"query": query, "index": index, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(http: httpx.Client, query: str, index: str | None = None, **fields: Any) -> list[str]:
    return [hit["id"] for hit in search(http, query, index, **fields)["hits"]]
