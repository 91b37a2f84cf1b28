"""Components for Haystack: `Q3ETextEmbedder` for questions, `Q3EDocumentEmbedder`, and `Q3ERanker`.

    from q3e_local.integrations.haystack import Q3EDocumentEmbedder, Q3ETextEmbedder

    store.write_documents(Q3EDocumentEmbedder("qwen3-embedding:4b").run(documents)["documents"])
    pipeline.add_component("question", Q3ETextEmbedder("qwen3-embedding:4b"))

Models are loaded at the first text, or with `server` a running server computes; they stay until the program ends.
Knows Haystack's components, and embedders and rerankers by their public calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from q3e_local import DEFAULT_MODEL, DEFAULT_RERANKER, by_name
from q3e_local.errors import MissingPackageError

try:
    from haystack import Document, component
except ModuleNotFoundError as error:
    raise MissingPackageError("Haystack's components", "haystack-ai") from error


@component
class Q3ETextEmbedder:
    """The vector of a question, which gets the model's instruction, or yours."""

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
        component.set_output_types(self, embedding=list[float], meta=dict[str, Any])

    def run(self, text: str) -> dict[str, Any]:
        """`embedding`, and in `meta` the model and its tokens. Raises OptionError, TextError, what `load` raises."""
        model = by_name.embedder(self.model, self.server, self.cache)
        result = model.embed_query(text, self.dim, instruction=self.instruction, truncate=self.truncate)
        return {"embedding": result.vectors[0].tolist(), "meta": _meta(result.model, result.prompt_tokens)}


@component
class Q3EDocumentEmbedder:
    """Documents with their vectors, without an instruction. `meta_fields_to_embed` stand before a document's text."""

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        dim: int | None = None,
        truncate: bool = False,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        server: str | None = None,
        cache: bool | str | None = None,
    ) -> None:
        self.model, self.dim, self.truncate = model, dim, truncate
        self.meta_fields_to_embed, self.embedding_separator = meta_fields_to_embed, embedding_separator
        self.server, self.cache = server, cache
        component.set_output_types(self, documents=list[Document], meta=dict[str, Any])

    def run(self, documents: list[Document]) -> dict[str, Any]:
        """`documents`, copies of those given, and `meta`. Raises what Q3ETextEmbedder raises."""
        model = by_name.embedder(self.model, self.server, self.cache)
        texts = [_text(each, self.meta_fields_to_embed, self.embedding_separator) for each in documents]
        result = model.embed_documents(texts, self.dim, truncate=self.truncate)
        pairs = zip(documents, result.vectors.tolist(), strict=True)
        return {
            "documents": [replace(document, embedding=vector) for document, vector in pairs],
            "meta": _meta(result.model, result.prompt_tokens),
        }


@component
class Q3ERanker:
    """The `top_k` best documents for a question, with the reranker's score, 0 to 1."""

    def __init__(
        self,
        model: str = DEFAULT_RERANKER,
        *,
        top_k: int | None = 10,
        instruction: str | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        server: str | None = None,
        cache: bool | str | None = None,
    ) -> None:
        self.model, self.top_k, self.instruction = model, top_k, instruction
        self.meta_fields_to_embed, self.embedding_separator = meta_fields_to_embed, embedding_separator
        self.server, self.cache = server, cache
        component.set_output_types(self, documents=list[Document])

    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """`documents`, copies of the best, best first. Raises what Q3ETextEmbedder raises."""
        if not documents:
            return {"documents": []}
        model = by_name.reranker(self.model, self.server, self.cache)
        texts = [_text(each, self.meta_fields_to_embed, self.embedding_separator) for each in documents]
        best = model.rank(query, texts, self.instruction, self.top_k if top_k is None else top_k)
        return {"documents": [replace(documents[ranked.index], score=ranked.score) for ranked in best]}


def _text(document: Document, fields: Sequence[str] | None, separator: str) -> str:
    """The fields of the metadata that are there, then the document's text."""
    values = [str(document.meta[name]) for name in fields or () if document.meta.get(name) is not None]
    return separator.join([*values, document.content or ""])


def _meta(model: str, prompt_tokens: Sequence[int]) -> dict[str, Any]:
    n_tokens = sum(prompt_tokens)
    return {"model": model, "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens}}
