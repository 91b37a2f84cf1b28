"""Ollama's wire: Ollama's client from PyPI on a real server, and the cases of Ollama's tests.

A test that comes from another project names the file it comes from.
"""

from __future__ import annotations

import asyncio
import time

import httpx
import numpy as np
import ollama
import pytest
from fake_service import FakeService, ask_and_leave, served, vector

pytest_plugins = ["serving"]

A, B = vector(ord("a"), 2), vector(ord("b"), 3)


def test_a_text_and_a_list(client: ollama.Client) -> None:
    # ollama integration/embed_test.go: TestAllMiniLMEmbed, TestAllMiniLMBatchEmbed
    single = client.embed("demo", "a")
    assert np.allclose(single.embeddings, [A])
    assert (single.model, single.prompt_eval_count) == ("demo", 2)
    assert min(single.total_duration, single.load_duration) > 0
    many = client.embed("demo", ["a", "ab"])
    assert np.allclose(many.embeddings, [A, B])
    assert many.prompt_eval_count == 5


def test_the_older_route(client: ollama.Client, http: httpx.Client) -> None:
    # ollama integration/embed_test.go: TestAllMiniLMEmbeddings
    assert np.allclose(client.embeddings("demo", "a").embedding, A)
    answer = http.post("/api/embeddings", json={"model": "demo", "prompt": "a"})
    assert list(answer.json()) == ["embedding"]
    assert http.post("/api/embeddings", json={"model": "demo"}).json() == {"embedding": []}


async def test_the_async_client(address: str) -> None:
    client = ollama.AsyncClient(host=address, trust_env=False)
    try:
        answers = await asyncio.gather(*(client.embed("demo", "x" * n) for n in range(1, 20)))
    finally:
        await client._client.aclose()  # ollama's client has no way to be closed
    assert [answer.prompt_eval_count for answer in answers] == list(range(2, 21))


@pytest.mark.parametrize(("dim", "expected"), [(32, 32), (255, 255), (256, 256), (5000, 256), (0, 256), (-1, 256)])
def test_dimensions_are_cut_to_and_else_ignored(client: ollama.Client, dim: int, expected: int) -> None:
    found = client.embed("demo", "a", dimensions=dim).embeddings[0]
    assert np.allclose(found, vector(ord("a"), 2, dim=expected))


def test_a_text_under_a_query_name_is_a_query(client: ollama.Client) -> None:
    assert np.allclose(client.embed("demo-query", "a").embeddings, [vector(ord("a"), 2, is_query=1)])
    assert np.allclose(client.embed("demo-query:latest", "a").embeddings, [vector(ord("a"), 2, is_query=1)])


def test_too_long_texts(client: ollama.Client, http: httpx.Client) -> None:
    # ollama integration/embed_test.go: TestEmbedTruncation, TestEmbedStatusCode
    cut = client.embed("demo", ["a", "y" * 300, "b"])
    assert cut.prompt_eval_count == 2 + 100 + 2
    assert np.allclose(client.embed("demo", "y" * 99, truncate=False).embeddings[0], cut.embeddings[1])
    answer = http.post("/api/embed", json={"model": "demo", "input": ["a", "y" * 300, "b"]})
    assert answer.headers["x-q3e-truncated"] == "1"
    assert answer.json()["truncated"] == [1]
    for texts in ("y" * 300, ["a", "y" * 300, "b"]):
        with pytest.raises(ollama.ResponseError, match="the input length exceeds the context length") as caught:
            client.embed("demo", texts, truncate=False)
        assert caught.value.status_code == 400
    assert http.post("/api/embeddings", json={"model": "demo", "prompt": "y" * 300}).status_code == 400


def test_every_answer_says_space_and_tokens(http: httpx.Client) -> None:
    answer = http.post("/api/embed", json={"model": "demo", "input": ["a", "b"], "dimensions": 64})
    assert answer.headers["x-q3e-space"] == answer.json()["space"] == "q3e1-fake-64-plain"
    assert (answer.headers["x-q3e-prompt-tokens"], answer.headers["x-q3e-texts"]) == ("4", "2")
    assert "x-q3e-truncated" not in answer.headers
    old = http.post("/api/embeddings", json={"model": "demo", "prompt": "a"})
    assert old.headers["x-q3e-space"] == "q3e1-fake-256-plain"


def test_loading_and_unloading_without_a_text(client: ollama.Client, fake: FakeService, http: httpx.Client) -> None:
    for empty in ({}, {"input": None}, {"input": ""}, {"input": []}):
        answer = http.post("/api/embed", json={"model": "demo", **empty})
        assert answer.json() == {"model": "demo", "embeddings": []}
    assert fake.in_memory == {"demo": None}
    assert not fake.requests
    client.embed("demo", "", keep_alive=0)
    assert fake.unloaded == ["demo"]
    # `ollama stop` sends this.
    loaded = client.generate("demo")
    assert (loaded.response, loaded.done, loaded.done_reason) == ("", True, "load")
    assert client.generate("demo", keep_alive=0).done_reason == "unload"
    assert not fake.in_memory


def test_an_empty_text_in_a_list_is_embedded(client: ollama.Client) -> None:
    assert np.allclose(client.embed("demo", ["", "a"]).embeddings, [vector(0, 1), A])


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("", 400, "missing request body"),
        ("  \n", 400, "missing request body"),
        ("{", 400, "the body is not JSON"),
        ("[]", 400, "the body must be a JSON object"),
        ('{"model":"demo","input":5}', 400, "invalid input type"),
        ('{"model":"demo","input":["a",5]}', 400, "invalid input type"),
        ('{"model":"demo","input":[1,2]}', 400, "invalid input type"),
        ('{"input":"a"}', 404, "model '' not found"),
        ('{"model":"","input":"a"}', 404, "model '' not found"),
        ('{"model":"../x","input":"a"}', 400, "invalid model name"),
        ('{"model":"nope","input":"a"}', 404, 'model "nope" not found, try pulling it first'),
        ('{"model":"nope"}', 404, 'model "nope" not found, try pulling it first'),
        ('{"model":"data.gguf","input":"a"}', 404, 'model "data.gguf" not found'),
        ('{"model":5,"input":"a"}', 400, "model must be a text"),
        ('{"model":"demo","input":"a","truncate":"yes"}', 400, "truncate must be true or false"),
        ('{"model":"demo","input":"a","dimensions":"64"}', 400, "dimensions must be a whole number"),
        ('{"model":"demo","input":"a","dimensions":31}', 400, "dimensions must be 32 or more"),
        ('{"model":"demo","input":"a","options":[]}', 400, "options must be an object"),
        ('{"model":"demo","input":"a","options":{"num_ctx":"x"}}', 400, "options.num_ctx must be a whole number"),
        ('{"model":"demo","input":"a","keep_alive":"10"}', 400, "keep_alive must be"),
    ],
)
def test_requests_that_are_refused(http: httpx.Client, body: str, status: int, error: str) -> None:
    answer = http.post("/api/embed", content=body)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(error)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_an_unknown_field_is_ignored_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with served(FakeService()) as http:
        for _ in range(3):
            answer = http.post("/api/embed", json={"model": "demo", "inputs": "a private text", "dimension": 3})
            assert (answer.status_code, answer.json()["embeddings"]) == (200, [])
        http.post("/api/embeddings", json={"name": "demo", "input": "a", "a private text": 1})
        http.post("/v1/embeddings", json={"model": "demo", "input": "a", "dimension": 64})
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        has = "and ignores it; it has model, input, truncate, dimensions, options, keep_alive"
        old = "and ignores it; it has model, prompt, options, keep_alive"
        assert lines.pop().startswith("/v1/embeddings has no field dimension, and ignores it; it has input, model, ")
        assert lines == [
            f"/api/embed has no field inputs, {has}",
            f"/api/embed has no field dimension, {has}",
            f"/api/embeddings has no field input, {old}",
            f"/api/embeddings has no field one of 14 characters, {old}",
        ]
        for n in range(300):
            http.post("/api/embed", json={"model": "demo", f"field{n}": 1})
        assert len(caplog.records) < 150


def test_the_client_raises_its_own_error(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="try pulling it first") as caught:
        client.embed("nope", "a")
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"^model 'nope' not found") as caught:
        client.show("nope")
    assert caught.value.status_code == 404


def test_what_makes_no_sense_here_says_so(client: ollama.Client, http: httpx.Client) -> None:
    with pytest.raises(ollama.ResponseError, match=r'"demo" does not support generate.*only embeds') as caught:
        client.generate("demo", "write a poem")
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match=r'"demo" does not support chat.*only embeds') as caught:
        client.chat("demo", [{"role": "user", "content": "hello"}])
    assert caught.value.status_code == 400
    for path in ("/api/create", "/api/push", "/api/blobs/sha256:00"):
        answer = http.post(path, json={"model": "demo"})
        assert answer.status_code == 501
        assert "only embeds" in answer.json()["error"]


def test_paths_and_methods(http: httpx.Client) -> None:
    # ollama server/routes_test.go: Version Handler, wrong method, /v1/models content types
    root = http.get("/")
    assert (root.status_code, root.text) == (200, "Ollama is running")
    assert root.headers["content-type"].startswith("text/plain")
    version = http.get("/api/version")
    assert version.content == b'{"version":"0.32.7"}'
    assert version.headers["content-type"] == "application/json; charset=utf-8"
    for path in ("/", "/api/version", "/api/tags"):
        head = http.head(path)
        assert (head.status_code, head.content) == (200, b"")
    unknown = http.get("/api/nope")
    assert (unknown.status_code, unknown.text) == (404, "404 page not found")
    wrong = http.get("/api/embed")
    assert wrong.status_code == 405
    assert wrong.headers["content-type"].startswith("text/plain")


def test_bytes_behind_the_first_value_are_ignored_as_in_ollama_and_by_no_other_dialect(http: httpx.Client) -> None:
    for rest in ("}", " x", '{"model":"nope"}', "\n\n"):
        content = f'{{"model":"demo","input":"a"}}{rest}'
        assert http.post("/api/embed", content=content).status_code == 200
        assert http.post("/v1/embeddings", content=content).status_code == (400 if rest.strip() else 200)


def test_a_request_may_have_as_many_texts_as_the_limit_says(http: httpx.Client) -> None:
    assert http.post("/api/embed", json={"model": "demo", "input": ["a"] * 50}).status_code == 200
    answer = http.post("/api/embed", json={"model": "demo", "input": ["a"] * 51})
    error = "input has 51 items, the limit of this server is 50 (--max-items)"
    assert (answer.status_code, answer.json()) == (400, {"error": error})


def test_a_fast_server_stays_fast(http: httpx.Client) -> None:
    """The wire costs milliseconds. Of 30 requests the fastest counts, because the machine may be busy."""
    times = []
    for _ in range(30):
        begun = time.perf_counter()
        http.post("/api/embed", json={"model": "demo", "input": "a"})
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.1


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_a_client_that_leaves_gives_its_place_back(
    address: str, http: httpx.Client, fake: FakeService, path: str
) -> None:
    ask_and_leave(address, path, fake)
    assert fake.cancelled.wait(60)
    assert http.get("/api/version").status_code == 200
