"""The classes for LlamaIndex in its own index, and written to JSON and back."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from pydantic import ValidationError

import q3e_local
from q3e_local.errors import OptionError, TextTooLongError
from q3e_local.integrations.llama_index import Q3EEmbedding, Q3ERerank

TEXTS = ["The neighbour fed the cat.", "Prices fell in May.", "邻居喂了猫。"]
QUESTION = "who fed the cat?"


def test_questions_and_documents_are_told_apart(embedder: q3e_local.Embedder, server: str | None) -> None:
    made = Q3EEmbedding(model_name="demo", dim=64, server=server)
    documents, question = made.get_text_embedding_batch(TEXTS), made.get_query_embedding(QUESTION)
    assert np.allclose(documents, embedder.embed_documents(TEXTS, 64).vectors, atol=1e-4)
    assert np.allclose(question, embedder.embed_query(QUESTION, 64).vectors[0], atol=1e-4)
    assert not np.allclose(question, made.get_text_embedding(QUESTION), atol=1e-2)


def test_an_instruction_is_the_questions_alone(embedder: q3e_local.Embedder) -> None:
    made = Q3EEmbedding(model_name="demo", instruction="Find the animal")
    expected = embedder.embed_query(QUESTION, instruction="Find the animal").vectors[0]
    assert np.allclose(made.get_query_embedding(QUESTION), expected, atol=1e-4)
    assert np.allclose(made.get_text_embedding(TEXTS[0]), embedder.embed_documents(TEXTS).vectors[0], atol=1e-4)


def test_the_async_twins_are_the_same() -> None:
    made = Q3EEmbedding(model_name="demo")

    async def twins() -> tuple[list[list[float]], list[float], list[float]]:
        return (
            await made.aget_text_embedding_batch(TEXTS),
            await made.aget_query_embedding(QUESTION),
            await made.aget_text_embedding(QUESTION),
        )

    documents, question, text = asyncio.run(twins())
    assert documents == made.get_text_embedding_batch(TEXTS)
    assert (question, text) == (made.get_query_embedding(QUESTION), made.get_text_embedding(QUESTION))


def test_an_index_finds_and_a_reranker_orders(
    embedder: q3e_local.Embedder, reranker: q3e_local.Reranker, server: str | None
) -> None:
    index = VectorStoreIndex.from_documents(
        [Document(text=text) for text in TEXTS], embed_model=Q3EEmbedding(model_name="demo", server=server)
    )
    found = index.as_retriever(similarity_top_k=3).retrieve(QUESTION)
    scores = embedder.embed_documents(TEXTS).vectors @ embedder.embed_query(QUESTION).vectors[0]
    assert [each.text for each in found] == [TEXTS[place] for place in np.argsort(-scores)]
    before = [each.score for each in found]
    best = Q3ERerank(model="demo-reranker", top_n=2, server=server).postprocess_nodes(found, query_str=QUESTION)
    ranked = reranker.rank(QUESTION, [each.text for each in found], top_n=2)
    assert [each.text for each in best] == [found[one.index].text for one in ranked]
    assert [each.score for each in best] == pytest.approx([one.score for one in ranked], abs=2e-3)
    assert [each.score for each in found] == before


def test_it_is_written_to_json_and_made_again() -> None:
    made = Q3EEmbedding(model_name="demo", dim=32, instruction="Find the animal", truncate=True, server="localhost:1")
    again = Q3EEmbedding.from_dict(json.loads(json.dumps(made.to_dict())))
    names = ("model_name", "dim", "instruction", "truncate", "server", "cache")
    assert [getattr(again, name) for name in names] == ["demo", 32, "Find the animal", True, "localhost:1", None]
    rerank = Q3ERerank(model="demo-reranker", top_n=7, instruction="Find the animal")
    assert Q3ERerank.from_dict(json.loads(rerank.to_json())).to_dict() == rerank.to_dict()


def test_a_reranker_without_documents_or_without_a_question() -> None:
    rerank = Q3ERerank(model="demo-reranker")
    assert rerank.postprocess_nodes([], query_str=QUESTION) == []
    with pytest.raises(OptionError, match="a reranker needs the question"):
        rerank.postprocess_nodes([NodeWithScore(node=TextNode(text="a"))])


def test_a_text_that_is_too_long_is_an_error_or_cut(embedder: q3e_local.Embedder, long: str) -> None:
    with pytest.raises(TextTooLongError):
        Q3EEmbedding(model_name="demo").get_text_embedding(long)
    with pytest.raises(TextTooLongError):
        Q3EEmbedding(model_name="demo").get_query_embedding(long)
    made = Q3EEmbedding(model_name="demo", truncate=True)
    assert [len(made.get_text_embedding(long)), len(made.get_query_embedding(long))] == [embedder.n_embd] * 2


def test_a_cache_that_mixes_questions_and_documents_is_refused() -> None:
    with pytest.raises(ValidationError, match="does not tell questions and documents apart"):
        Q3EEmbedding(model_name="demo", embeddings_cache=SimpleKVStore())
