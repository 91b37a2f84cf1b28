"""mteb's own clients of servers work with ours: the vectors and scores are the library's, and the limit is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from mteb.models import OpenAIAPIEncodeWrapper, OpenAIAPIRerankWrapper
from mteb.models.model_implementations.qwen3_models import instruction_template
from mteb.types import PromptType
from torch.utils.data import DataLoader

import q3e_local
from q3e_local import EmbedRequest


def loader(*texts: str) -> Any:
    return DataLoader(Dataset.from_dict({"text": list(texts)}), batch_size=2)


def test_the_encoder_of_a_server_has_the_librarys_vectors_and_its_limit(address, embedder, task):
    wrapper = OpenAIAPIEncodeWrapper(
        address, "demo:latest", use_chat_template=False, use_instructions=True, prompt_dict={},
        instruction_template=instruction_template, apply_instruction_to_documents=False,
    )  # fmt: skip
    assert wrapper.max_length == embedder.n_ctx_max == 32_768
    texts = ["heating does not get warm", "缺铁", ""]
    found = wrapper.encode(loader(*texts), prompt_type=PromptType.document, show_progress_bar=False, **task)
    np.testing.assert_allclose(found, embedder.embed_documents(texts).vectors, atol=1e-5)
    queries = wrapper.encode(loader(*texts[:2]), prompt_type=PromptType.query, show_progress_bar=False, **task)
    np.testing.assert_allclose(
        queries, embedder.embed_queries(texts[:2], instruction="Find the note").vectors, atol=1e-5
    )


def test_a_limit_that_the_user_sets_is_kept(address, embedder, task):
    wrapper = OpenAIAPIEncodeWrapper(address, "demo:latest", use_chat_template=False, max_length=20)
    found = wrapper.encode(loader("long words " * 40), show_progress_bar=False, **task)
    expected = embedder.embed(EmbedRequest(["long words " * 40], "document", truncate=True, max_tokens=20))
    np.testing.assert_allclose(found, expected.vectors, atol=1e-5)


def test_the_reranker_of_a_server_has_the_librarys_scores(address, taught: Path, task):
    wrapper = OpenAIAPIRerankWrapper(address, "taught-reranker:latest")
    question = "Which planet is known as the Red Planet?"
    documents = ["Venus is often called Earth's twin.", "Mars is often referred to as the Red Planet."]
    found = wrapper.predict(loader(question, question), loader(*documents), show_progress_bar=False, **task)
    with q3e_local.load_reranker(taught) as reranker:
        assert found == pytest.approx(reranker.score([(question, text) for text in documents]), abs=1e-4)
