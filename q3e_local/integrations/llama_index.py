"""Classes for LlamaIndex: `Q3EEmbedding` tells questions and documents apart, `Q3ERerank` orders what was found.

    from q3e_local.integrations.llama_index import Q3EEmbedding

    index = VectorStoreIndex.from_documents(documents, embed_model=Q3EEmbedding(model_name="qwen3-embedding:4b"))

Knows LlamaIndex's base classes, and embedders and rerankers by their public calls.
"""

from __future__ import annotations

import asyncio
from typing import Any

from q3e_local import DEFAULT_MODEL, DEFAULT_RERANKER, TextModel, by_name
from q3e_local.errors import MissingPackageError, OptionError

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
except ModuleNotFoundError as error:
    raise MissingPackageError("LlamaIndex's classes", "llama-index-core") from error


class Q3EEmbedding(BaseEmbedding):
    """A model for LlamaIndex. A question gets the model's instruction, or yours; a document gets none.

    The model is loaded at the first text, or with `server` a running server computes; it stays until the program
    ends. Texts that are too long are cut with `truncate`, else they raise TextTooLongError.
    """

    model_name: str = DEFAULT_MODEL
    dim: int | None = None
    instruction: str | None = None
    truncate: bool = False
    server: str | None = None
    cache: bool | str | None = None
    embed_batch_size: int = Field(default=256, gt=0, le=2048)  # batches for the model are made of these by tokens

    def model_post_init(self, context: Any) -> None:
        """Raises OptionError, which pydantic makes a ValidationError, for LlamaIndex's cache of vectors.

        It would give a question the vector of a document of the same words.
        """
        super().model_post_init(context)
        if self.embeddings_cache is not None:
            raise OptionError(
                "LlamaIndex's embeddings_cache does not tell questions and documents apart; leave it out, and give "
                "cache=True"
            )

    @classmethod
    def class_name(cls) -> str:
        return "Q3EEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        result = self._embedder().embed_query(query, self.dim, instruction=self.instruction, truncate=self.truncate)
        vector: list[float] = result.vectors[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        result = self._embedder().embed_documents(texts, self.dim, truncate=self.truncate)
        vectors: list[list[float]] = result.vectors.tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def _embedder(self) -> TextModel:
        return by_name.embedder(self.model_name, self.server, self.cache)


class Q3ERerank(BaseNodePostprocessor):
    """A reranker for LlamaIndex: the `top_n` best nodes, whose score is then the reranker's, 0 to 1."""

    model: str = DEFAULT_RERANKER
    top_n: int | None = 3
    instruction: str | None = None
    server: str | None = None
    cache: bool | str | None = None

    @classmethod
    def class_name(cls) -> str:
        return "Q3ERerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise OptionError("a reranker needs the question; give query_str or query_bundle")
        if not nodes:
            return []
        texts = [found.node.get_content(metadata_mode=MetadataMode.EMBED) for found in nodes]
        reranker = by_name.reranker(self.model, self.server, self.cache)
        return [
            NodeWithScore(node=nodes[ranked.index].node, score=ranked.score)
            for ranked in reranker.rank(query_bundle.query_str, texts, self.instruction, self.top_n)
        ]
