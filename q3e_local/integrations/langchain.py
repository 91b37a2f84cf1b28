"""Classes for LangChain: `Q3EEmbeddings` tells questions and documents apart, `Q3ECompressor` ranks what was found.

    from q3e_local.integrations.langchain import Q3EEmbeddings

    store = InMemoryVectorStore.from_texts(["…", "…"], Q3EEmbeddings("qwen3-embedding:4b", dim=1024))

The async twins are LangChain's own, which call these methods in a thread. Knows LangChain's base classes, and
embedders and rerankers by their public calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from q3e_local import DEFAULT_MODEL, DEFAULT_RERANKER, RankModel, TextModel, by_name
from q3e_local.errors import MissingPackageError

try:
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
except ModuleNotFoundError as error:
    raise MissingPackageError("LangChain's classes", "langchain-core") from error


class Q3EEmbeddings(Embeddings):
    """A model for LangChain. A question gets the model's instruction, or yours; a document gets none.

    `model` is a name, or a model that is open already and that the caller closes. A name is loaded at the first text,
    or with `server` a running server computes; it stays until the program ends. Texts that are too long are cut with
    `truncate`, else they raise TextTooLongError.
    """

    def __init__(
        self,
        model: str | TextModel = DEFAULT_MODEL,
        *,
        dim: int | None = None,
        instruction: str | None = None,
        truncate: bool = False,
        server: str | None = None,
        cache: bool | str | None = None,
    ) -> None:
        self.model, self.dim, self.instruction, self.truncate = model, dim, instruction, truncate
        self.server, self.cache = server, cache

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of `dim` numbers for each text. Raises what `by_name.embedder` raises, OptionError, TextError."""
        result = self._embedder().embed_documents(texts, self.dim, truncate=self.truncate)
        vectors: list[list[float]] = result.vectors.tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question. Raises what `embed_documents` raises."""
        result = self._embedder().embed_query(text, self.dim, instruction=self.instruction, truncate=self.truncate)
        vector: list[float] = result.vectors[0].tolist()
        return vector

    def _embedder(self) -> TextModel:
        if isinstance(self.model, TextModel):
            return self.model
        return by_name.embedder(self.model, self.server, self.cache)


class Q3ECompressor(BaseDocumentCompressor):
    """A reranker for LangChain: the `top_n` best documents, with `relevance_score` (0 to 1) in their metadata.

    `reranker` is a name or an open reranker, as in Q3EEmbeddings.
    """

    model_config: ClassVar[Any] = {"arbitrary_types_allowed": True}

    reranker: str | RankModel = DEFAULT_RERANKER
    top_n: int | None = 3
    instruction: str | None = None
    server: str | None = None
    cache: bool | str | None = None

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        """The best documents, best first; those that were given stay as they are.

        Raises what `by_name.reranker` raises, OptionError, TextError.
        """
        reranker = self.reranker
        if isinstance(reranker, str):
            reranker = by_name.reranker(reranker, self.server, self.cache)
        texts = [document.page_content for document in documents]
        return [
            documents[ranked.index].model_copy(
                update={"metadata": {**documents[ranked.index].metadata, "relevance_score": ranked.score}}
            )
            for ranked in reranker.rank(query, texts, self.instruction, self.top_n)
        ]
