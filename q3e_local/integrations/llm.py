"""Embedding models for simonw's `llm`, which finds this module by its entry point: nothing has to be imported.

    llm embed -m q3e-local/qwen3-embedding:4b -c "any text"
    llm embed-multi notes --files ~/notes '*.md' -m q3e-local/demo

`llm` does not tell questions and documents apart. A model's name embeds documents, and the same name with `-query`
behind it questions. With `Q3E_SERVER`, a running server computes, or several. Knows llm's plugin hooks, and embedders
by their public calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from q3e_local import EmbedRequest, by_name
from q3e_local.errors import MissingPackageError, Q3EError

try:
    import llm
except ModuleNotFoundError as error:
    raise MissingPackageError("a plugin of llm", "llm") from error

MODELS = ("qwen3-embedding:0.6b", "qwen3-embedding:4b", "qwen3-embedding:8b", "demo")


def register_embedding_models(register: Callable[..., None]) -> None:
    """Name the models to llm. None is loaded, nor need be here."""
    for name in MODELS:
        register(Q3EModel(name))
        register(Q3EModel(f"{name}-query"))


llm.hookimpl(register_embedding_models)  # marks the function, by which llm finds it


class Q3EModel(llm.EmbeddingModel):
    """A model of ours as llm calls it. It is loaded at the first text, and stays until the program ends."""

    supports_text = True
    batch_size = 64

    def __init__(self, name: str) -> None:
        self.name, self.model_id = name, f"q3e-local/{name}"

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Iterator[list[float]]:
        """A vector for each text. Raises llm.ModelError where the model is not here or cannot embed a text."""
        try:
            servers = tuple(filter(None, map(str.strip, os.environ.get("Q3E_SERVER", "").split(","))))
            model = by_name.embedder(self.name, servers)
            vectors = model.embed(EmbedRequest([str(item) for item in items])).vectors
        except Q3EError as error:
            raise llm.ModelError(str(error)) from error
        yield from vectors.tolist()
