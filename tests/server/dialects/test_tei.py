"""Text Embeddings Inference's wire. The files that comments name are TEI's."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import END, vector

from q3e_local.server.dialects.kinds import KINDS

pytest_plugins = ["serving"]
pytestmark = pytest.mark.usefixtures("_loaded")

A = vector(ord("a"), 2)


def test_a_list_comes_back_also_for_one(http: httpx.Client) -> None:
    answer = http.post("/embed", json={"inputs": "a"})
    assert np.allclose(answer.json(), [A])
    assert answer.headers["x-q3e-space"] == "q3e1-fake-256-plain"
    assert answer.headers["x-q3e-prompt-tokens"] == "2"
    assert np.allclose(http.post("/embed", json={"inputs": [97]}).json(), [A])
    assert np.allclose(http.post("/embed", json={"inputs": ["a", [97, END], "a"]}).json(), [A, A, A])


def test_dimensions(http: httpx.Client) -> None:
    # router/tests/test_http_embed.rs: test_embeddings (dimensions 128, one string and three equal ones)
    (vector,) = http.post("/embed", json={"inputs": "test", "dimensions": 128}).json()
    assert len(vector) == 128
    assert http.post("/embed", json={"inputs": ["test"] * 3, "dimensions": 128}).json() == [vector] * 3


def test_truncation(http: httpx.Client) -> None:
    cut = http.post("/embed", json={"inputs": ["a", "y" * 200]})
    assert cut.headers["x-q3e-truncated"] == "1"
    refused = http.post("/embed", json={"inputs": "y" * 200, "truncate": False})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    assert refused.json()["error"].startswith("Input validation error: ")


def test_prompt_names(http: httpx.Client) -> None:
    query = http.post("/embed", json={"inputs": "a", "prompt_name": "query"})
    assert np.allclose(query.json(), [vector(ord("a"), 2, is_query=1)])
    assert np.allclose(http.post("/embed", json={"inputs": "a", "prompt_name": "document"}).json(), [A])


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 422, "Validation"),
        ({"inputs": ""}, 400, "Empty"),
        ({"inputs": []}, 400, "Empty"),
        ({"inputs": ["a", ""]}, 400, "Empty"),
        ({"inputs": [[]]}, 400, "Empty"),
        ({"inputs": 5}, 422, "Validation"),
        ({"inputs": ["a", 5]}, 422, "Validation"),
        ({"inputs": {}}, 422, "Validation"),
        ({"inputs": [999]}, 422, "Validation"),
        ({"inputs": ["a"] * 51}, 422, "Validation"),
        ({"inputs": "a", "dimensions": 0}, 422, "Validation"),
        ({"inputs": "a", "dimensions": 257}, 422, "Validation"),
        ({"inputs": "a", "prompt_name": "nope"}, 422, "Validation"),
        ({"inputs": "a", "normalize": False}, 422, "Validation"),
        ({"inputs": "a", "truncation_direction": "Left"}, 422, "Validation"),
        ({"inputs": "a", "truncation_direction": "Up"}, 422, "Validation"),
        ({"inputs": "a", "truncate": 1}, 422, "Validation"),
        ({"inputs": "a", "model": "nope"}, 404, "Validation"),
    ],
)
def test_what_is_refused(http: httpx.Client, body: dict[str, Any], status: int, kind: str) -> None:
    answer = http.post("/embed", json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert list(answer.json()) == ["error", "error_type"]


def test_similarity(http: httpx.Client) -> None:
    body = {"source_sentence": "a", "sentences": ["a", "b", "y" * 90]}
    answer = http.post("/similarity", json={"inputs": body, "parameters": {"truncate": True}})
    vectors = np.float32([A, vector(ord("b"), 2), vector(ord("y"), 91)])
    assert np.allclose(answer.json(), vectors @ vectors[0], atol=1e-6)
    for inputs, status in (
        ({}, 400),
        ({"source_sentence": "a", "sentences": []}, 400),
        ({"source_sentence": "a", "sentences": ["b", ""]}, 400),
        ({"source_sentence": "", "sentences": ["b"]}, 400),
        ({"source_sentence": "a", "sentences": [5]}, 422),
        ({"source_sentence": 5, "sentences": ["b"]}, 422),
        ("a", 422),
    ):
        assert http.post("/similarity", json={"inputs": inputs}).status_code == status


def test_tokenize(http: httpx.Client) -> None:
    found = http.post("/tokenize", json={"inputs": ["ab", "c"]}).json()
    assert [[token["id"] for token in of_text] for of_text in found] == [[97, 98, END], [99, END]]
    assert found[1][1] == {"id": END, "text": "<|endoftext|>", "special": True, "start": None, "stop": None}
    bare = http.post("/tokenize", json={"inputs": "ab", "add_special_tokens": False}).json()
    assert [token["text"] for token in bare[0]] == ["a", "b"]
    for body, status in (
        ({"inputs": []}, 400),
        ({"inputs": [5]}, 422),
        ({"inputs": "a", "prompt_name": "nope"}, 422),
        ({"inputs": "a", "prompt_name": 5}, 422),
    ):
        answer = http.post("/tokenize", json=body)
        assert (answer.status_code, list(answer.json())) == (status, ["error", "error_type"])


def test_tokens_with_the_prompt_before_each_text(http: httpx.Client) -> None:
    # core/src/tokenization.rs: the prompt's text is put before the input's, and both are tokenized as one
    body = {"inputs": ["ab", "c"], "add_special_tokens": False}
    found = http.post("/tokenize", json={**body, "prompt_name": "query"}).json()
    assert ["".join(token["text"] for token in of_text) for of_text in found] == ["Q:ab", "Q:c"]
    for extra in ({"prompt_name": "document"}, {"prompt_name": None}):
        found = http.post("/tokenize", json={**body, **extra}).json()
        assert ["".join(token["text"] for token in of_text) for of_text in found] == ["ab", "c"]


@pytest.mark.parametrize("path", ["/embed", "/tokenize"])
def test_an_unknown_prompt_name_gets_the_names_there_are(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={"inputs": "a", "prompt_name": "nope"})
    error = f"prompt_name 'nope' is unknown; there are {', '.join(KINDS)}"
    assert (answer.status_code, answer.json()) == (422, {"error": error, "error_type": "Validation"})


def test_the_root_embeds_too(http: httpx.Client) -> None:
    assert np.allclose(http.post("/", json={"inputs": ["a", "a"]}).json(), [A, A])
    refused = http.post("/", json={})
    assert (refused.status_code, list(refused.json())) == (422, ["error", "error_type"])
    assert http.get("/").text == "Ollama is running"  # TEI's clients look at the status only
    assert http.put("/").status_code == 405


def test_decode(http: httpx.Client) -> None:
    def decoded(ids: Any, **more: Any) -> Any:
        return http.post("/decode", json={"ids": ids, **more}).json()

    assert decoded([97, 98, END]) == ["ab"]
    assert decoded([[97, 98, END], [0xC3, 0xA9], []]) == ["ab", "é", ""]
    assert decoded([97, END], skip_special_tokens=False) == ["a<|endoftext|>"]
    for body, status in (
        ({}, 400), ({"ids": []}, 400), ({"ids": [[97], 98]}, 422), ({"ids": [98, [97]]}, 422), ({"ids": ["a"]}, 422),
        ({"ids": [-1]}, 422), ({"ids": [999]}, 422), ({"ids": "a"}, 422), ({"ids": [[97]] * 51}, 422),
    ):  # fmt: skip
        answer = http.post("/decode", json=body)
        assert (answer.status_code, list(answer.json())) == (status, ["error", "error_type"])


def test_info(http: httpx.Client) -> None:
    found = http.get("/info").json()
    assert found["model_id"] == "demo"
    assert found["model_type"] == {"embedding": {"pooling": "last_token"}}
    assert (found["max_client_batch_size"], found["auto_truncate"]) == (50, True)
