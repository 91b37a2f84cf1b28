"""An embedding function for Chroma, which tells questions and documents apart: `Q3EEmbeddingFunction`.

    from q3e_local.integrations.chroma import Q3EEmbeddingFunction

    notes = client.create_collection("notes", embedding_function=Q3EEmbeddingFunction("qwen3-embedding:4b"))

Chroma keeps the names with the collection: once this module is imported, `client.get_collection("notes")` embeds with
the same model. Knows Chroma's protocol, and embedders by their public calls.
"""

from __future__ import annotations

from typing import Any

from q3e_local import DEFAULT_MODEL, EmbedRequest, TextModel, by_name
from q3e_local.errors import MissingPackageError, OptionError

try:
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings
    from chromadb.utils.embedding_functions import register_embedding_function
except ModuleNotFoundError as error:
    raise MissingPackageError("an embedding function for Chroma", "chromadb") from error


class Q3EEmbeddingFunction(EmbeddingFunction[Documents]):
    """A model for a collection of Chroma. A question gets the model's instruction, or yours; a document gets none.

    The model is loaded at the first text, or with `server` a running server computes; it stays until the program
    ends. Texts that are too long are cut with `truncate`, else they raise TextTooLongError.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        dim: int | None = None,
        instruction: str | None = None,
        truncate: bool = False,
        server: str | None = None,
        cache: bool | str | None = None,
    ) -> None:
        self.model, self.dim, self.instruction, self.truncate = model, dim, instruction, truncate
        self.server, self.cache = server, cache

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002 (Chroma's name)
        """A vector float32 (dim,) for each document. Raises OptionError, TextError, and what `load` raises."""
        return [*self._embedder().embed_documents(input, self.dim, truncate=self.truncate).vectors]

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002
        """The vector of each question. Raises what embedding documents raises."""
        request = EmbedRequest(input, "query", instruction=self.instruction, dim=self.dim, truncate=self.truncate)
        return [*self._embedder().embed(request).vectors]

    @staticmethod
    def name() -> str:
        """What Chroma writes beside the settings, to find this class again."""
        return "q3e-local"

    def default_space(self) -> str:
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """The settings, as a collection keeps them."""
        names = ("model", "dim", "instruction", "truncate", "server", "cache")
        return {name: getattr(self, name) for name in names}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Q3EEmbeddingFunction:
        """The function with these settings."""
        return Q3EEmbeddingFunction(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raises OptionError for another model or dim: the collection's vectors are of the old one."""
        for name in ("model", "dim"):
            old, new = old_config.get(name), new_config.get(name, old_config.get(name))
            if new != old:
                raise OptionError(f"the collection has vectors of {name} {old}, not {new}; make a new collection")

    def _embedder(self) -> TextModel:
        return by_name.embedder(self.model, self.server, self.cache)


register_embedding_function(Q3EEmbeddingFunction)
