"""What every kind of contender in a child process shares: how it is asked, and how it says that it cannot run.

Knows no runtime. Imports NumPy alone, as a contender's Python may have nothing else of this project's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Embed = Callable[[dict[str, Any]], tuple[Any, int]]  # a request to vectors and tokens
Started = tuple[Embed, dict[str, Any]]  # and the settings it runs with


class NotHereError(Exception):
    """This contender cannot run here; the text says why."""


def prompted(request: dict[str, Any]) -> list[str]:
    """Texts as those see them who know nothing of instructions."""
    instruction = request.get("instruction")
    prefix = "" if instruction is None else f"Instruct: {instruction}\nQuery:"
    return [prefix + text for text in request["texts"]]


def on_ids(last_hidden: Callable[[Any], Any]) -> Embed:
    """An `Embed` of a bare model: tokenizing is not counted against it. `last_hidden` takes ids of one length."""

    def embed(request: dict[str, Any]) -> tuple[Any, int]:
        ids = np.array(request["ids"], np.int64)  # fails for texts of several lengths: nothing is padded
        n_batch = request.get("n_batch") or len(ids)
        hidden = [last_hidden(ids[start : start + n_batch]) for start in range(0, len(ids), n_batch)]
        vectors = np.concatenate(hidden).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), ids.size

    return embed
