"""Qwen3-Embedding on a laptop: right vectors, fast, offline.

    import q3e_local

    with q3e_local.load("qwen3-embedding:4b") as embedder:
        notes = embedder.embed_documents(["…", "…"], dim=1024)
        question = embedder.embed_query("what did we decide about the budget?", dim=1024)
        scores = question.vectors @ notes.vectors.T

These are the public names, and where each lives; importing them loads neither llama.cpp nor numpy nor a server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Where each public name lives. A name is loaded when it is first used, so that the command line starts quickly.
_HOMES = {
    "DEFAULT_MODEL": "models.catalog",
    "DEFAULT_RERANKER": "models.kinds",
    "EmbedBatches": "batches.embed_batches",
    "EmbedRequest": "embedding.request",
    "EmbedResult": "embedding.request",
    "Embedded": "embedding.request",
    "Embedder": "embedding.embedder",
    "Engine": "embedding.engine",
    "EngineConfig": "embedding.engine",
    "Progress": "embedding.stream",
    "RankModel": "reranking.rank_model",
    "Ranked": "reranking.rank_model",
    "RankRequest": "reranking.preparing",
    "Reranker": "reranking.reranker",
    "Q3EError": "errors",
    "TextModel": "embedding.text_model",
    "VectorIndex": "search.index",
    "connect": "opening",
    "connect_reranker": "opening",
    "load": "opening",
    "load_reranker": "opening",
}

if TYPE_CHECKING:  # the same for type checkers; `as` makes a name public
    from q3e_local.batches.embed_batches import EmbedBatches as EmbedBatches
    from q3e_local.embedding.embedder import Embedder as Embedder
    from q3e_local.embedding.engine import Engine as Engine
    from q3e_local.embedding.engine import EngineConfig as EngineConfig
    from q3e_local.embedding.request import Embedded as Embedded
    from q3e_local.embedding.request import EmbedRequest as EmbedRequest
    from q3e_local.embedding.request import EmbedResult as EmbedResult
    from q3e_local.embedding.stream import Progress as Progress
    from q3e_local.embedding.text_model import TextModel as TextModel
    from q3e_local.errors import Q3EError as Q3EError
    from q3e_local.models.catalog import DEFAULT_MODEL as DEFAULT_MODEL
    from q3e_local.models.kinds import DEFAULT_RERANKER as DEFAULT_RERANKER
    from q3e_local.opening import connect as connect
    from q3e_local.opening import connect_reranker as connect_reranker
    from q3e_local.opening import load as load
    from q3e_local.opening import load_reranker as load_reranker
    from q3e_local.reranking.preparing import RankRequest as RankRequest
    from q3e_local.reranking.rank_model import Ranked as Ranked
    from q3e_local.reranking.rank_model import RankModel as RankModel
    from q3e_local.reranking.reranker import Reranker as Reranker
    from q3e_local.search.index import VectorIndex as VectorIndex
else:
    __all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'q3e_local' has no attribute {name!r}")
    return getattr(importlib.import_module(f"q3e_local.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
