"""The components for Haystack in a pipeline of its own, written to YAML and back."""

from __future__ import annotations

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

import q3e_local
from q3e_local.errors import OptionError, TextTooLongError
from q3e_local.integrations.haystack import Q3EDocumentEmbedder, Q3ERanker, Q3ETextEmbedder

TEXTS = ["The neighbour fed the cat.", "Prices fell in May.", "邻居喂了猫。"]
QUESTION = "who fed the cat?"


def documents() -> list[Document]:
    return [Document(content=text, meta={"title": f"Note {place}"}) for place, text in enumerate(TEXTS)]


def vectors(found: list[Document]) -> np.ndarray:
    return np.array([each.embedding for each in found])


def test_questions_and_documents_are_told_apart(embedder: q3e_local.Embedder, server: str | None) -> None:
    given = documents()
    made = Q3EDocumentEmbedder("demo", dim=64, server=server).run(given)
    expected = embedder.embed_documents(TEXTS, 64)
    assert np.allclose(vectors(made["documents"]), expected.vectors, atol=1e-4)
    assert [each.id for each in made["documents"]] == [each.id for each in given]
    assert all(each.embedding is None for each in given)
    n_tokens = sum(expected.prompt_tokens)
    assert made["meta"] == {"model": "demo", "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens}}
    question = Q3ETextEmbedder("demo", dim=64, server=server).run(QUESTION)["embedding"]
    assert np.allclose(question, embedder.embed_query(QUESTION, 64).vectors[0], atol=1e-4)
    assert not np.allclose(question, embedder.embed_documents([QUESTION], 64).vectors[0], atol=1e-2)


def test_an_instruction_and_fields_of_the_metadata(embedder: q3e_local.Embedder) -> None:
    made = Q3ETextEmbedder("demo", instruction="Find the animal").run(QUESTION)["embedding"]
    expected = embedder.embed_query(QUESTION, instruction="Find the animal").vectors[0]
    assert np.allclose(made, expected, atol=1e-4)
    titled = Q3EDocumentEmbedder("demo", meta_fields_to_embed=["title", "nothing"], embedding_separator=": ")
    expected = embedder.embed_documents([f"Note {place}: {text}" for place, text in enumerate(TEXTS)]).vectors
    assert np.allclose(vectors(titled.run(documents())["documents"]), expected, atol=1e-4)


def test_a_pipeline_finds_and_ranks_also_when_it_is_made_from_its_yaml(
    embedder: q3e_local.Embedder, reranker: q3e_local.Reranker, server: str | None
) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(Q3EDocumentEmbedder("demo", server=server).run(documents())["documents"])
    pipeline = Pipeline()
    pipeline.add_component("question", Q3ETextEmbedder("demo", server=server))
    pipeline.add_component("found", InMemoryEmbeddingRetriever(store))
    pipeline.add_component("ranked", Q3ERanker("demo-reranker", top_k=2, server=server))
    pipeline.connect("question.embedding", "found.query_embedding")
    pipeline.connect("found.documents", "ranked.documents")

    def run(pipeline: Pipeline) -> tuple[list[Document], list[Document]]:
        asked = {"question": {"text": QUESTION}, "ranked": {"query": QUESTION}}
        result = pipeline.run(asked, include_outputs_from={"found"})
        return result["found"]["documents"], result["ranked"]["documents"]

    found, best = run(pipeline)
    scores = embedder.embed_documents(TEXTS).vectors @ embedder.embed_query(QUESTION).vectors[0]
    assert [each.content for each in found] == [TEXTS[place] for place in np.argsort(-scores)]
    ranked = reranker.rank(QUESTION, [each.content or "" for each in found], top_n=2)
    assert [each.content for each in best] == [found[one.index].content for one in ranked]
    assert [each.score for each in best] == pytest.approx([one.score for one in ranked], abs=2e-3)
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["q3e_local.integrations.*"])
    assert again.to_dict()["components"] == pipeline.to_dict()["components"]
    question = again.get_component("question").run(QUESTION)["embedding"]
    assert np.allclose(question, embedder.embed_query(QUESTION).vectors[0], atol=1e-4)


def test_a_text_that_is_too_long_is_an_error_or_cut(embedder: q3e_local.Embedder, long: str) -> None:
    for made, given in ((Q3ETextEmbedder, long), (Q3EDocumentEmbedder, [Document(content=long)])):
        with pytest.raises(TextTooLongError):
            made("demo").run(given)
        assert made("demo", truncate=True).run(given)["meta"]["usage"]["prompt_tokens"] == 64


def test_how_many_are_ranked() -> None:
    ranker = Q3ERanker("demo-reranker", top_k=1)
    assert len(ranker.run(QUESTION, documents())["documents"]) == 1
    assert len(ranker.run(QUESTION, documents(), top_k=2)["documents"]) == 2
    assert len(Q3ERanker("demo-reranker", top_k=None).run(QUESTION, documents())["documents"]) == 3
    assert ranker.run(QUESTION, []) == {"documents": []}
    with pytest.raises(OptionError, match="top_n must be 1 or more, got 0"):
        ranker.run(QUESTION, documents(), top_k=0)
