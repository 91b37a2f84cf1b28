"""The classes for LangChain in LangChain's own store and as LangChain calls them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

import q3e_local
from q3e_local.errors import OptionError, TextTooLongError
from q3e_local.integrations.langchain import Q3ECompressor, Q3EEmbeddings

TEXTS = ["The neighbour fed the cat.", "Prices fell in May.", "邻居喂了猫。"]
QUESTION = "who fed the cat?"


def test_questions_and_documents_are_told_apart(embedder: q3e_local.Embedder) -> None:
    made = Q3EEmbeddings(embedder, dim=64)
    assert np.allclose(made.embed_documents(TEXTS), embedder.embed_documents(TEXTS, 64).vectors)
    question = made.embed_query(QUESTION)
    assert np.allclose(question, embedder.embed_query(QUESTION, 64).vectors[0])
    assert not np.allclose(question, made.embed_documents([QUESTION])[0], atol=1e-3)


def test_an_instruction_is_the_questions_alone(embedder: q3e_local.Embedder) -> None:
    made = Q3EEmbeddings(embedder, instruction="Find the animal")
    expected = embedder.embed_query(QUESTION, instruction="Find the animal").vectors[0]
    assert np.allclose(made.embed_query(QUESTION), expected)
    assert np.allclose(made.embed_documents(TEXTS), embedder.embed_documents(TEXTS).vectors)


def test_a_name_will_do(embedder: q3e_local.Embedder, reranker: q3e_local.Reranker, server: str | None) -> None:
    made = Q3EEmbeddings("demo", dim=64, server=server)
    assert np.allclose(made.embed_documents(TEXTS), embedder.embed_documents(TEXTS, 64).vectors, atol=1e-4)
    assert np.allclose(made.embed_query(QUESTION), embedder.embed_query(QUESTION, 64).vectors[0], atol=1e-4)
    compressor = Q3ECompressor(reranker="demo-reranker", top_n=2, server=server)
    found = compressor.compress_documents([Document(text) for text in TEXTS], QUESTION)
    ranked = reranker.rank(QUESTION, TEXTS, top_n=2)
    assert [each.page_content for each in found] == [TEXTS[each.index] for each in ranked]


def test_the_async_twins_are_the_same(embedder: q3e_local.Embedder) -> None:
    made = Q3EEmbeddings(embedder)

    async def twins() -> tuple[list[list[float]], list[float]]:
        return await made.aembed_documents(TEXTS), await made.aembed_query(QUESTION)

    documents, question = asyncio.run(twins())
    assert (documents, question) == (made.embed_documents(TEXTS), made.embed_query(QUESTION))


def test_a_store_of_langchain_finds(embedder: q3e_local.Embedder) -> None:
    store = InMemoryVectorStore.from_texts(TEXTS, Q3EEmbeddings(embedder))
    scores = embedder.embed_documents(TEXTS).vectors @ embedder.embed_query(QUESTION).vectors[0]
    found = store.similarity_search(QUESTION, k=3)
    assert [each.page_content for each in found] == [TEXTS[place] for place in np.argsort(-scores)]


def test_a_text_that_is_too_long_is_an_error_or_cut(embedder: q3e_local.Embedder, long: str) -> None:
    with pytest.raises(TextTooLongError):
        Q3EEmbeddings("demo").embed_documents([long])
    assert len(Q3EEmbeddings("demo", truncate=True).embed_documents([long])[0]) == embedder.n_embd


def test_a_compressor_orders_and_leaves_what_it_was_given_alone(reranker: q3e_local.Reranker) -> None:
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    ranked = reranker.rank(QUESTION, TEXTS, top_n=2)
    found = Q3ECompressor(reranker=reranker, top_n=2).compress_documents(documents, QUESTION)
    assert [each.metadata["place"] for each in found] == [each.index for each in ranked]
    assert [each.metadata["relevance_score"] for each in found] == pytest.approx([each.score for each in ranked])
    assert all("relevance_score" not in each.metadata for each in documents)
    assert Q3ECompressor(reranker=reranker).compress_documents([], QUESTION) == []


def test_a_compressors_async_twin_is_the_same(reranker: q3e_local.Reranker) -> None:
    compressor = Q3ECompressor(reranker=reranker, top_n=None)
    documents = [Document(text) for text in TEXTS]
    found = asyncio.run(compressor.acompress_documents(documents, QUESTION))
    assert found == compressor.compress_documents(documents, QUESTION)
    assert len(found) == len(TEXTS)


def test_a_wrong_number_of_documents_is_refused(reranker: q3e_local.Reranker) -> None:
    with pytest.raises(OptionError, match="top_n must be 1 or more, got 0"):
        Q3ECompressor(reranker=reranker, top_n=0).compress_documents([Document("a")], QUESTION)
