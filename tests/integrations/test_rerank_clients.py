"""Clients of other rerankers work here unchanged: the SDKs as they are, and what three programs send.

Each asks the same question about the same documents, of which one answers it.
"""

from __future__ import annotations

import cohere
import httpx
import pytest
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

MODEL = "taught-reranker"
# What the server's reranker learned by heart: tests/rerankers.py. Saturn comes second, Venus last.
QUESTION = "Which planet is known as the Red Planet?"
DOCUMENTS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]
RIGHT = 1


@pytest.mark.parametrize("top_n", [None, 2])
def test_cohere_sdk(address, top_n):
    client = cohere.ClientV2(api_key="none", base_url=address)
    options = {} if top_n is None else {"top_n": top_n}
    answer = client.rerank(model=MODEL, query=QUESTION, documents=DOCUMENTS, **options)
    assert next(result.index for result in answer.results) == RIGHT
    assert len(answer.results) == (top_n or len(DOCUMENTS))
    scores = [result.relevance_score for result in answer.results]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_langchain(address):
    compressor = CohereRerank(client=cohere.ClientV2(api_key="none", base_url=address), model=MODEL, top_n=2)
    found = compressor.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUESTION)
    assert next(document.page_content for document in found) == DOCUMENTS[RIGHT]
    assert len(found) == 2


def test_llama_index(address):
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
    reranker = TextEmbeddingInference(base_url=address, model_name=MODEL, top_n=2)
    found = reranker.postprocess_nodes(nodes, query_str=QUESTION)
    assert next(node.node.get_content() for node in found) == DOCUMENTS[RIGHT]
    assert len(found) == 2


def test_open_webui_reads_a_score_for_each_document(address):
    """Its request (backend/open_webui/retrieval/models/external.py), which sorts by index and takes all scores."""
    body = {"model": MODEL, "query": QUESTION, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)}
    results = httpx.post(f"{address}/v1/rerank", json=body, trust_env=False).json()["results"]
    by_place = sorted(results, key=lambda result: result["index"])
    assert [result["index"] for result in by_place] == list(range(len(DOCUMENTS)))
    scores = [result["relevance_score"] for result in by_place]
    assert max(range(len(scores)), key=scores.__getitem__) == RIGHT


def test_dify_by_ollama_tei_and_openai(address):
    """Its plugins (langgenius/dify-official-plugins): ollama, text_embedding_inference, openai_api_compatible."""
    body = {"model": MODEL, "query": QUESTION, "documents": DOCUMENTS, "top_n": 1}
    (first,) = httpx.post(f"{address}/api/rerank", json=body, trust_env=False).json()["results"]
    assert (first["index"], first["document"]) == (RIGHT, DOCUMENTS[RIGHT])
    texts = {"query": QUESTION, "texts": DOCUMENTS, "return_text": True, "model": MODEL}
    best = httpx.post(f"{address}/rerank", json=texts, trust_env=False).json()[0]
    assert (best["index"], best["text"]) == (RIGHT, DOCUMENTS[RIGHT])
    openai = httpx.post(f"{address}/v1/rerank", json=body, trust_env=False).json()
    assert openai["results"][0]["index"] == RIGHT


def test_ragflow_in_batches(address):
    """Its request for a TEI server (rag/llm/rerank_model.py): the texts in parts, all scores read by index."""
    scores = [0.0] * len(DOCUMENTS)
    for start in range(0, len(DOCUMENTS), 2):
        part = DOCUMENTS[start : start + 2]
        body = {"query": QUESTION, "texts": part, "raw_scores": False, "truncate": True, "model": MODEL}
        for result in httpx.post(f"{address}/rerank", json=body, trust_env=False).json():
            scores[start + result["index"]] = result["score"]
    assert max(range(len(scores)), key=scores.__getitem__) == RIGHT
