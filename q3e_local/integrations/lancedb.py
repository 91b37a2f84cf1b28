"""An embedding function for LanceDB's registry, which tells questions and documents apart: `Q3EEmbeddings`.

    from lancedb.pydantic import LanceModel, Vector
    from q3e_local.integrations.lancedb import Q3EEmbeddings

    model = Q3EEmbeddings.create(model="qwen3-embedding:4b", dim=1024)

    class Note(LanceModel):
        text: str = model.SourceField()
        vector: Vector(model.ndims()) = model.VectorField()

LanceDB keeps the names with the table: once this module is imported, `open_table` embeds with the same model. Knows
LanceDB's base class, and embedders by their public calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from q3e_local import DEFAULT_MODEL, EmbedRequest, TextModel, by_name
from q3e_local.errors import MissingPackageError

try:
    from lancedb.embeddings import TextEmbeddingFunction, register
except ModuleNotFoundError as error:
    raise MissingPackageError("an embedding function for LanceDB", "lancedb") from error


class Q3EEmbeddings(TextEmbeddingFunction):
    """A model for a table of LanceDB. A question gets the model's instruction, or yours; a document gets none.

    Make it by `create`, which keeps the settings for the table. The model is loaded at the first text, or with
    `server` a running server computes; it stays until the program ends. Texts that are too long are cut with
    `truncate`, else they raise TextTooLongError.
    """

    model: str = DEFAULT_MODEL
    dim: int | None = None
    instruction: str | None = None
    truncate: bool = False
    server: str | None = None
    cache: bool | str | None = None

    def ndims(self) -> int:
        """How many numbers a vector has. Raises OptionError, and what `load` raises."""
        return self._embedder().dim(EmbedRequest((), dim=self.dim))

    def compute_query_embeddings(self, query: Any, *arguments: Any, **options: Any) -> list[np.ndarray]:
        """The vector of the question, or of each of several. Raises what `generate_embeddings` raises."""
        texts = self.sanitize_input(query)
        request = EmbedRequest(texts, "query", instruction=self.instruction, dim=self.dim, truncate=self.truncate)
        return [*self._embedder().embed(request).vectors]

    def generate_embeddings(self, texts: Iterable[str], *arguments: Any, **options: Any) -> list[np.ndarray]:
        """The vector of each document. Raises OptionError, TextError, and what `load` raises."""
        return [*self._embedder().embed_documents(texts, self.dim, truncate=self.truncate).vectors]

    # LanceDB tries seven times again what fails, with pauses. Here it would fail again: a busy server is waited for
    # before an error is raised.

    def compute_query_embeddings_with_retry(self, *arguments: Any, **options: Any) -> list[np.ndarray]:
        return self.compute_query_embeddings(*arguments, **options)

    def compute_source_embeddings_with_retry(self, *arguments: Any, **options: Any) -> list[np.ndarray]:
        vectors: list[np.ndarray] = self.compute_source_embeddings(*arguments, **options)
        return vectors

    def _embedder(self) -> TextModel:
        return by_name.embedder(self.model, self.server, self.cache)


register("q3e-local")(Q3EEmbeddings)
