"""Classes for LangChain: `Q3EEmbeddings` tells questions and documents apart, `Q3ECompressor` ranks what was found.

    import q3e_local
    from q3e_local.integrations.langchain import Q3EEmbeddings

    with q3e_local.load("qwen3-embedding:4b") as embedder:
        store = InMemoryVectorStore.from_texts(["…", "…"], Q3EEmbeddings(embedder, dim=1024))

The async twins are LangChain's own, which call these methods in a thread. Knows LangChain's base classes, and
embedders and rerankers by their public calls; loads none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from q3e_local import Embedder, Reranker
from q3e_local.errors import MissingPackageError

try:
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
except ModuleNotFoundError as error:
    raise MissingPackageError("LangChain's classes", "langchain-core") from error


class Q3EEmbeddings(Embeddings):
    """An embedder for LangChain. A question gets the model's instruction, or yours; a document gets none.

    Texts that are too long are cut with `truncate`, else they raise TextTooLongError. The caller closes the embedder.
    """

    def __init__(
        self, embedder: Embedder, *, dim: int | None = None, instruction: str | None = None, truncate: bool = False
    ) -> None:
        self.embedder, self.dim, self.instruction, self.truncate = embedder, dim, instruction, truncate

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of `dim` numbers for each text. Raises OptionError, TextError."""
        vectors: list[list[float]] = self.embedder.embed_documents(
            texts, self.dim, truncate=self.truncate
        ).vectors.tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question. Raises OptionError, TextError."""
        result = self.embedder.embed_query(text, self.dim, instruction=self.instruction, truncate=self.truncate)
        vector: list[float] = result.vectors[0].tolist()
        return vector


class Q3ECompressor(BaseDocumentCompressor):
    """A reranker for LangChain: the `top_n` best documents, with `relevance_score` (0 to 1) in their metadata.

    The caller closes the reranker.
    """

    model_config: ClassVar[Any] = {"arbitrary_types_allowed": True}

    reranker: Reranker
    top_n: int | None = 3
    instruction: str | None = None

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        """The best documents, best first; those that were given stay as they are. Raises OptionError, TextError."""
        texts = [document.page_content for document in documents]
        return [
            documents[ranked.index].model_copy(
                update={"metadata": {**documents[ranked.index].metadata, "relevance_score": ranked.score}}
            )
            for ranked in self.reranker.rank(query, texts, self.instruction, self.top_n)
        ]
