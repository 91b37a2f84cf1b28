"""Qwen3-Embedding on a laptop: right vectors, fast, offline.

    import q3e_local

    with q3e_local.load("qwen3-embedding:4b") as embedder:
        notes = embedder.embed_documents(["…", "…"], dim=1024)
        question = embedder.embed_query("what did we decide about the budget?", dim=1024)
        scores = question.vectors @ notes.vectors.T

This is the one place that joins the parts; importing it loads neither llama.cpp nor a server.
"""

from __future__ import annotations

import os
from typing import Any

from q3e_local.catalog import DEFAULT_MODEL
from q3e_local.embedder import Embedded, Embedder, EmbedRequest, EmbedResult
from q3e_local.engine import Engine, EngineConfig
from q3e_local.errors import Q3EError

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_MODEL",
    "EmbedRequest",
    "EmbedResult",
    "Embedded",
    "Embedder",
    "Engine",
    "EngineConfig",
    "Q3EError",
    "load",
]


def load(model: str | os.PathLike[str] = DEFAULT_MODEL, **options: Any) -> Embedder:
    """Load a model by name or path. `options` are EngineConfig's: `n_threads`, `n_gpu_layers`, `n_batch`, ...

    Raises ModelError (unknown, not here, broken or of another kind), OptionError or NotEnoughMemoryError.
    """
    from q3e_local import store

    config = EngineConfig(**options)
    found = store.locate(model)
    # After everything that can fail quickly: importing llama.cpp takes a while.
    from q3e_local.llama.engine import LlamaEngine

    return Embedder(LlamaEngine(found.path, config), found.name, found.prompts)
