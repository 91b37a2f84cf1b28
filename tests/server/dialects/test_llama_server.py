"""llama-server's wire. The files that comments name are in llama.cpp's tools/server/tests/unit/."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import END, FakeService, vector
from world import BUNDLED_LATEST

pytest_plugins = ["serving"]
pytestmark = pytest.mark.usefixtures("_loaded")

A = vector(ord("a"), 2)


def embedded(http: httpx.Client, path: str = "/embedding", **body: Any) -> np.ndarray:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [item["index"] for item in found] == list(range(len(found)))
    assert all(len(item["embedding"]) == 1 for item in found)
    return np.float32([item["embedding"][0] for item in found])


@pytest.mark.parametrize("path", ["/embedding", "/embeddings"])
def test_content_is_answered_with_a_bare_list(http: httpx.Client, path: str) -> None:
    # test_embedding.py: test_embedding_single, test_embedding_multiple
    assert np.allclose(embedded(http, path, content="a"), [A])
    rows = embedded(http, path, content=["I believe", "the meaning", "of life", "is"])
    assert rows.shape == (4, 256)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)


def test_embeddings_with_input_is_openais(http: httpx.Client) -> None:
    answer = http.post("/embeddings", json={"input": ["a"]})
    assert answer.json()["object"] == "list"
    assert np.allclose(answer.json()["data"][0]["embedding"], A)
    assert answer.json()["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    refused = http.post("/embeddings", json={"input": []})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")


@pytest.mark.parametrize(
    "body",
    [  # test_embedding.py: what is refused; test_mixed_inputs.py has what an input may not be
        {},
        {"input": None},
        {"content": "a", "embd_normalize": -1},
        {"content": "a", "embd_normalize": "2"},
        {"content": "a", "model": 5},
    ],
)
def test_what_is_refused(http: httpx.Client, body: dict[str, Any]) -> None:
    answer = http.post("/embedding", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (400, 400, "invalid_request_error")
    assert error["message"]


def test_a_text_far_too_long(http: httpx.Client) -> None:
    # test_embedding.py: test_embedding_error_prompt_too_long ("too large")
    answer = http.post("/embedding", json={"content": "This is a test " * 100})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "exceed_context_size_error")
    assert "too large" in answer.json()["error"]["message"]
    cut = http.post("/embedding", json={"content": "This is a test " * 100, "truncate": True})
    assert cut.headers["x-q3e-truncated"] == "0"


@pytest.mark.parametrize("norm", [None, 0, 1, 2, 3, 6, 2000])
def test_norms(http: httpx.Client, norm: int | None) -> None:
    row = embedded(http, content="a", embd_normalize=norm)[0].astype(np.float64)
    if norm == 0:
        assert np.abs(row).max() == pytest.approx(32760)
    else:
        largest = np.abs(row).max()
        assert largest * ((np.abs(row) / largest) ** (norm or 2)).sum() ** (1 / (norm or 2)) == pytest.approx(1)


def test_the_model_of_the_request_is_obeyed(http: httpx.Client, fake: FakeService) -> None:
    assert np.allclose(embedded(http, content="a", model="demo-query"), [vector(ord("a"), 2, is_query=1)])
    answer = http.post("/embedding", json={"content": "a", "model": "nope"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    embedded(http, content="a")
    assert fake.requests[-1].model == "demo"  # which is loaded


def test_tokenize_and_back(http: httpx.Client) -> None:
    # test_tokenize.py: test_tokenize_detokenize, test_tokenize_with_bos, test_tokenize_with_pieces
    text = "What is the capital of France ?"
    ids = http.post("/tokenize", json={"content": text}).json()["tokens"]
    assert ids == list(text.encode())
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"content": text}
    assert http.post("/tokenize", json={"content": text, "add_special": True}).json()["tokens"] == [*ids, END]
    assert http.post("/tokenize", json={"content": "ab", "with_pieces": True}).json() == {
        "tokens": [{"id": 97, "piece": "a"}, {"id": 98, "piece": "b"}]
    }
    # Parts of a character are bytes, as in llama-server: common.cpp, format_tokenize_response
    assert http.post("/tokenize", json={"content": "aé", "with_pieces": True}).json() == {
        "tokens": [{"id": 97, "piece": "a"}, {"id": 0xC3, "piece": [0xC3]}, {"id": 0xA9, "piece": [0xA9]}]
    }
    assert http.post("/tokenize", json={}).json() == {"tokens": []}
    assert http.post("/detokenize", json={}).json() == {"content": ""}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"content": 5}),
        ("/tokenize", {"content": "a", "add_special": "x"}),
        ("/tokenize", {"content": "a", "parse_special": False}),
        ("/tokenize", {"content": "a" * 270_000, "with_pieces": True}),
        ("/detokenize", {"tokens": "a"}),
        ("/detokenize", {"tokens": [1.5]}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": [999]}),
    ],
)
def test_tokenizing_that_is_refused(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_health_and_props(http: httpx.Client, fake: FakeService) -> None:
    # test_basic.py: test_server_start_simple (health), test_server_props
    found = http.get("/v1/health").json()
    kernels = {"variant": "avx2", "why": "the fastest that this CPU runs", "faster": ["buy a faster one"]}
    assert found["loaded"] == [
        {"name": "demo", "type": "embedding", "size_bytes": 12_345, "n_ctx": 100, "on_gpu": False, "kernels": kernels}
    ]
    assert (found["status"], found["healthy"]) == ("ok", True)
    props = http.get("/props").json()
    assert (props["model_alias"], props["model_path"], props["eos_token"]) == ("demo", "demo.gguf", "<|endoftext|>")
    fake.in_memory.clear()
    assert http.get("/health").json() == {"status": "ok", "healthy": True, "loaded": []}


def test_models(http: httpx.Client) -> None:
    # test_basic.py: test_server_models; infinity tests/end_to_end: /models
    found = http.get("/models").json()
    assert found["models"] == http.get("/api/tags").json()["models"]
    models = {model["id"]: model for model in found["data"]}
    assert (found["object"], sorted(models)) == ("list", sorted(BUNDLED_LATEST))
    for model, same in zip(found["data"], http.get("/v1/models").json()["data"], strict=True):
        assert {key: model[key] for key in same} == same
    demo = models["demo:latest"]
    assert demo["aliases"] == ["demo"]
    sizes = {"n_embd": 256, "n_ctx": 32_768, "n_ctx_train": 32_768, "n_vocab": 37_303, "vocab_type": 2}
    assert demo["meta"].items() >= sizes.items()
    assert [model["meta"]["size"] for model in found["data"]] == [model["size"] for model in found["models"]]


def test_props_of_a_model_that_is_not_here(http: httpx.Client, fake: FakeService) -> None:
    fake.in_memory.clear()  # otherwise the loaded model answers
    answer = http.get("/props")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert "q3e-local pull qwen3-embedding:4b" in answer.json()["error"]["message"]
