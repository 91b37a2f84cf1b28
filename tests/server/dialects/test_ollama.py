"""Ollama's wire: its own client from PyPI on a real server, and the cases of Ollama's own tests.

A test that comes from another project names the file it comes from.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import ollama
import pytest
from fake_service import N_EMBD, FakeService, ask_and_leave, served, vector

from q3e_local.errors import (
    BadVectorError,
    EngineError,
    ModelNotHereError,
    NotEnoughMemoryError,
    OptionError,
    Q3EError,
)
from q3e_local.models import installed
from q3e_local.models.installed import Installed
from q3e_local.models.own_names import Alias
from q3e_local.models.pull import Step
from q3e_local.server.dialects.fields import KEEP_ALIVE, NEVER, Body, Fields
from q3e_local.server.dialects.names import checked, short_form
from q3e_local.server.errors import QueueFullError, StoppingError, WorkerDiedError

pytest_plugins = ["serving"]

A, B = vector(ord("a"), 2), vector(ord("b"), 3)


@pytest.fixture
def client(address: str) -> Iterator[ollama.Client]:
    client = ollama.Client(host=address, trust_env=False)
    yield client
    client._client.close()


@pytest.fixture
def tiny_model(tiny_gguf: Callable[..., Path]) -> Installed:
    """A model that is ours to delete, under a name of its own."""
    path = tiny_gguf("f16")
    own = installed.own_folder() / "tiny.gguf"
    own.parent.mkdir(parents=True)
    own.write_bytes(path.read_bytes())
    return installed.record(Installed("tiny:1b", own, own.stat().st_size, "pulled", "ab" * 32))


# The real client


def test_embed_one_and_many(client: ollama.Client) -> None:
    # ollama integration/embed_test.go: TestAllMiniLMEmbed, TestAllMiniLMBatchEmbed
    one = client.embed("demo", "a")
    assert np.allclose(one.embeddings, [A])
    assert one.prompt_eval_count == 2
    assert one.model == "demo"
    assert one.total_duration > 0
    assert one.load_duration > 0
    many = client.embed("demo", ["a", "ab"])
    assert np.allclose(many.embeddings, [A, B])
    assert many.prompt_eval_count == 5


def test_the_older_route(client: ollama.Client, http: httpx.Client) -> None:
    # ollama integration/embed_test.go: TestAllMiniLMEmbeddings
    assert np.allclose(client.embeddings("demo", "a").embedding, A)
    answer = http.post("/api/embeddings", json={"model": "demo", "prompt": "a"})
    assert list(answer.json()) == ["embedding"]
    assert http.post("/api/embeddings", json={"model": "demo"}).json() == {"embedding": []}


def test_the_async_client(address: str) -> None:
    async def embed() -> list[ollama.EmbedResponse]:
        client = ollama.AsyncClient(host=address, trust_env=False)
        try:
            return await asyncio.gather(*(client.embed("demo", "x" * n) for n in range(1, 20)))
        finally:
            await client._client.aclose()

    assert [one.prompt_eval_count for one in asyncio.run(embed())] == list(range(2, 21))


@pytest.mark.parametrize(("dim", "expected"), [(32, 32), (255, 255), (256, 256), (5000, 256), (0, 256), (-1, 256)])
def test_dimensions_are_cut_to_and_else_ignored(client: ollama.Client, dim: int, expected: int) -> None:
    found = client.embed("demo", "a", dimensions=dim).embeddings[0]
    assert np.allclose(found, vector(ord("a"), 2, dim=expected))


def test_vectors_have_length_1(client: ollama.Client) -> None:
    # ollama server/routes_test.go: TestNormalize
    for row in client.embed("demo", ["a", "hello", "x" * 50], dimensions=40).embeddings:
        assert abs(float(np.linalg.norm(row)) - 1) < 1e-6


def test_a_query_alias_needs_nothing_of_the_client(client: ollama.Client) -> None:
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


def test_num_ctx_limits_each_text(client: ollama.Client) -> None:
    # ollama integration/embed_test.go: TestEmbedTruncation (a context of 30, of 1 and of 0; a text at the limit)
    found = client.embed("demo", ["a", "y" * 99, "z" * 50], options={"num_ctx": 30})
    assert found.prompt_eval_count == 2 + 30 + 30
    assert client.embed("demo", "y" * 29, truncate=False, options={"num_ctx": 30}).prompt_eval_count == 30
    for num_ctx in (1, 0):
        with pytest.raises(ollama.ResponseError, match="after truncation exceeds maximum context length") as caught:
            client.embed("demo", "abc", options={"num_ctx": num_ctx})
        assert caught.value.status_code == 400


def test_every_answer_says_space_and_tokens(http: httpx.Client) -> None:
    answer = http.post("/api/embed", json={"model": "demo", "input": ["a", "b"], "dimensions": 64})
    assert answer.headers["x-q3e-space"] == answer.json()["space"] == "q3e1-fake-64-plain"
    assert (answer.headers["x-q3e-prompt-tokens"], answer.headers["x-q3e-texts"]) == ("4", "2")
    assert "x-q3e-truncated" not in answer.headers
    old = http.post("/api/embeddings", json={"model": "demo", "prompt": "a"})
    assert old.headers["x-q3e-space"] == "q3e1-fake-256-plain"


def test_list(client: ollama.Client, http: httpx.Client, tiny_model: Installed) -> None:
    # ollama server/routes_test.go: Tags Handler (a name without tag is listed as latest; no expires_at)
    found = {one.model: one for one in client.list().models}
    assert set(found) == {"demo:latest", "tiny:1b"}
    demo = found["demo:latest"]
    assert re.fullmatch("[0-9a-f]{64}", demo.digest)
    assert demo.details.family == "qwen3"
    assert demo.details.quantization_level == "Q8_0"
    assert demo.details.parameter_size == "3.06M"
    assert demo.size == installed.installed()[0].size_bytes
    assert demo.modified_at <= datetime.now(UTC)
    raw = http.get("/api/tags").json()["models"]
    assert all("expires_at" not in one for one in raw)
    assert {one["details"]["embedding_length"] for one in raw if one["name"] == "demo:latest"} == {N_EMBD}
    assert raw[0]["modified_at"] >= raw[1]["modified_at"]


def test_show(client: ollama.Client, http: httpx.Client) -> None:
    found = client.show("demo")
    assert found.modelinfo["general.architecture"] == "qwen3"
    assert found.modelinfo["qwen3.embedding_length"] == N_EMBD
    assert found.modelinfo["general.parameter_count"] > 3_000_000
    assert found.modelinfo["tokenizer.ggml.tokens"] == []
    assert found.capabilities == ["embedding"]
    assert found.license == "Apache-2.0"
    assert client.show("demo-query").modelinfo == found.modelinfo
    # Ollama names the file after FROM; here that is a name, so that no client learns a path of this machine.
    assert found.modelfile.splitlines()[-1] == "FROM demo:latest"
    verbose = http.post("/api/show", json={"name": "demo", "verbose": True}).json()
    assert "<|endoftext|>" in verbose["model_info"]["tokenizer.ggml.tokens"]


def test_ps_and_keep_alive(client: ollama.Client) -> None:
    assert client.ps().models == []
    client.embed("demo", "a", keep_alive="10m")
    (one,) = client.ps().models
    assert (one.name, one.model, one.size, one.size_vram, one.context_length) == (
        "demo:latest", "demo:latest", 12_345, 0, 100
    )  # fmt: skip
    assert 590 < (one.expires_at - datetime.now(UTC)).total_seconds() < 610
    client.embed("demo", "a", keep_alive=-1)
    assert client.ps().models[0].expires_at.year > 2200
    client.embed("demo", "a", keep_alive=0)
    assert client.ps().models == []


def test_loading_and_unloading_without_a_text(client: ollama.Client, fake: FakeService, http: httpx.Client) -> None:
    for empty in ({}, {"input": None}, {"input": ""}, {"input": []}):
        answer = http.post("/api/embed", json={"model": "demo", **empty})
        assert answer.json() == {"model": "demo", "embeddings": []}
    assert fake.in_memory == {"demo": None}
    assert not fake.requests
    client.embed("demo", "", keep_alive=0)
    assert fake.unloaded == ["demo"]
    # What `ollama stop` sends.
    loaded = client.generate("demo")
    assert (loaded.response, loaded.done, loaded.done_reason) == ("", True, "load")
    assert client.generate("demo", keep_alive=0).done_reason == "unload"
    assert not fake.in_memory


def test_an_empty_text_in_a_list_is_embedded(client: ollama.Client) -> None:
    assert np.allclose(client.embed("demo", ["", "a"]).embeddings, [vector(0, 1), A])


# Models: pull, copy, delete


def test_pull_streams_progress(client: ollama.Client, fake: FakeService) -> None:
    name = "qwen3-embedding:0.6b-q8_0"
    fake.steps = [Step("downloading from hub f.gguf", done, 100) for done in (0, 50, 100)]
    fake.steps.append(Step("checking f.gguf", 100, 100))
    lines = list(client.pull(name, stream=True))
    digest = "sha256:06507c7b42688469c4e7298b0a1e16deff06caf291cf0a5b278c308249c3e439"
    assert lines[0].status == "pulling manifest"
    assert [line.status for line in lines[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
    pulling = [line for line in lines if line.digest == digest]
    assert {line.status for line in pulling} == {"pulling 06507c7b4268"}
    assert (pulling[0].completed, pulling[-1].completed, pulling[-1].total) == (None, 100, 100)
    assert fake.pulled == [name]
    assert client.pull(name).status == "success"


def test_pulling_what_is_here_is_one_full_line(client: ollama.Client) -> None:
    lines = list(client.pull("demo", stream=True))
    assert [line.status for line in lines][0::4] == ["pulling manifest", "success"]
    assert lines[1].completed == lines[1].total == installed.installed()[0].size_bytes


def test_pull_errors(client: ollama.Client, http: httpx.Client, fake: FakeService) -> None:
    with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist"):
        list(client.pull("nope", stream=True))
    with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist") as caught:
        client.pull("nope")
    assert caught.value.status_code == 500
    for name in ("", "a/b/c/d", "../x", "-x", "x:", "/etc/passwd"):
        answer = http.post("/api/pull", json={"model": name})
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid model name"})
    fake.fail = Q3EError("no network")
    answer = http.post("/api/pull", json={"model": "demo"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[-1]) == {"error": "no network"}
    fake.fail = RuntimeError("a bug")
    assert "log" in json.loads(http.post("/api/pull", json={"model": "demo"}).text.splitlines()[-1])["error"]


def test_a_client_that_leaves_a_pull_stops_it(address: str, fake: FakeService) -> None:
    # ollama: closing the connection stops a download that nobody else waits for
    with (
        httpx.Client(base_url=address, trust_env=False) as http,
        http.stream("POST", "/api/pull", json={"model": "qwen3-embedding:8b"}) as answer,
    ):
        assert next(answer.iter_lines()) == '{"status":"pulling manifest"}'
    assert fake.cancelled.wait(60)


def test_a_client_that_leaves_gives_its_place_back(address: str, http: httpx.Client, fake: FakeService) -> None:
    ask_and_leave(address, "/api/embed", fake)
    assert fake.cancelled.wait(60)
    assert http.get("/api/version").status_code == 200


def test_delete(client: ollama.Client, http: httpx.Client, tiny_model: Installed) -> None:
    # ollama server/routes_test.go: Delete Model Handler; server/routes_delete_test.go
    answer = http.request("DELETE", "/api/delete", json={"name": "tiny:1b"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert not tiny_model.path.exists()
    with pytest.raises(ollama.ResponseError, match="model 'tiny:1b' not found") as caught:
        client.delete("tiny:1b")
    assert caught.value.status_code == 404
    for name, error in (("", "model is required"), ("../x", 'name "../x" is invalid')):
        answer = http.request("DELETE", "/api/delete", json={"model": name})
        assert (answer.status_code, answer.json()) == (400, {"error": error})
    with pytest.raises(ollama.ResponseError, match="demo is part of q3e-local and stays"):
        client.delete("demo")


def test_a_copy_is_a_second_name(client: ollama.Client, tiny_model: Installed) -> None:
    client.copy("tiny:1b", "mine")
    assert client.show("mine").modelinfo == client.show("tiny:1b").modelinfo
    assert {"mine:latest", "tiny:1b"} < {one.model for one in client.list().models}
    client.delete("mine:latest")
    assert tiny_model.path.exists()
    assert "mine:latest" not in {one.model for one in client.list().models}


def test_delete_keeps_a_file_that_a_copy_uses(client: ollama.Client, tiny_model: Installed) -> None:
    # ollama server/routes_delete_test.go: TestDelete (blobs of another model stay)
    client.copy("tiny:1b", "mine")
    client.delete("tiny:1b")
    assert tiny_model.path.exists()
    assert [one.model for one in client.list().models if one.model != "demo:latest"] == ["mine:latest"]
    client.delete("mine")
    assert not tiny_model.path.exists()


@pytest.mark.parametrize(
    ("source", "destination", "status", "error"),
    [
        ("nope", "x", 404, 'model "nope" not found'),
        ("../x", "x", 400, 'source "../x" is invalid'),
        ("demo", "x:", 400, 'destination "x:" is invalid'),
        ("demo", "", 400, 'destination "" is invalid'),
        ("demo", "a/b/../c", 400, 'destination "a/b/../c" is invalid'),
        ("demo", "qwen3-embedding:4b", 400, 'destination "qwen3-embedding:4b" is invalid'),
        ("demo", "evil.gguf", 400, 'destination "evil.gguf" is invalid'),
        ("demo", "mine-query", 400, 'destination "mine-query" is invalid'),
    ],
)
def test_copies_that_are_refused(http: httpx.Client, source: str, destination: str, status: int, error: str) -> None:
    answer = http.post("/api/copy", json={"source": source, "destination": destination})
    assert answer.status_code == status
    assert answer.json()["error"].startswith(error)


# Errors


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
        ('{"model":"demo","input":"a","dimensions":6.5}', 400, "dimensions must be a whole number"),
        (
            '{"model":"demo","input":"a","dimensions":31}',
            400,
            "dimensions must be 32 or more",
        ),
        (
            '{"model":"demo","input":"a","dimensions":1}',
            400,
            "dimensions must be 32 or more",
        ),
        ('{"model":"demo","input":"a","options":[]}', 400, "options must be an object"),
        ('{"model":"demo","input":"a","options":{"num_ctx":"x"}}', 400, "options.num_ctx must be a whole number"),
        ('{"model":"demo","input":"a","keep_alive":"10"}', 400, "keep_alive must be"),
        ('{"model":"demo","input":"a","keep_alive":[]}', 400, "keep_alive must be"),
    ],
)
def test_requests_that_are_refused(http: httpx.Client, body: str, status: int, error: str) -> None:
    answer = http.post("/api/embed", content=body)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(error)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (QueueFullError("512 requests wait", 7), 503, "server busy, please try again.  maximum pending requests"),
        (StoppingError("the server is stopping"), 503, "the server is stopping"),
        (WorkerDiedError("the worker was killed"), 500, "the worker was killed"),
        (EngineError("llama.cpp failed"), 500, "llama.cpp failed"),
        (NotEnoughMemoryError("needs 3 GB, 1 GB is free"), 500, "needs 3 GB, 1 GB is free"),
        (ModelNotHereError("get it with: q3e-local pull demo"), 404, 'model "demo" not found, try pulling it first'),
        (BadVectorError("NaN", 0), 400, "embedding contains NaN or Inf values"),
        (OptionError("dim must be between"), 400, "dim must be between"),
        (RuntimeError("a bug with a /secret/path"), 500, "internal error; the server's log says more"),
    ],
)
def test_errors_have_their_status(
    http: httpx.Client, fake: FakeService, error: Exception, status: int, text: str
) -> None:
    fake.fail = error
    for path, body in (("/api/embed", {"input": "a"}), ("/api/embeddings", {"prompt": "a"}), ("/api/embed", {})):
        answer = http.post(path, json={"model": "demo", **body})
        assert answer.status_code == status
        assert answer.json()["error"].startswith(text)
        assert answer.headers.get("retry-after") == {QueueFullError: "7", StoppingError: "5"}.get(type(error))
    fake.fail = None
    assert http.post("/api/embed", json={"model": "demo", "input": "a"}).status_code == 200


def test_a_field_there_is_not_is_ignored_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with served(FakeService()) as http:
        for _ in range(3):
            answer = http.post("/api/embed", json={"model": "demo", "inputs": "a private text", "dimension": 3})
            assert (answer.status_code, answer.json()["embeddings"]) == (200, [])
        http.post("/api/embeddings", json={"name": "demo", "input": "a", "a private text": 1})
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        has = "and ignores it; it has model, input, truncate, dimensions, options, keep_alive"
        old = "and ignores it; it has model, prompt, options, keep_alive"
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


def test_what_follows_the_first_value_is_not_looked_at(http: httpx.Client) -> None:
    for rest in ("}", " x", '{"model":"nope"}', "\n\n"):
        assert http.post("/api/embed", content='{"model":"demo","input":"a"}' + rest).status_code == 200
        assert http.post("/v1/embeddings", content='{"model":"demo","input":"a"}' + rest.strip()).status_code == (
            400 if rest.strip() else 200
        )


def test_an_item_limit(http: httpx.Client) -> None:
    assert http.post("/api/embed", json={"model": "demo", "input": ["a"] * 50}).status_code == 200
    answer = http.post("/api/embed", json={"model": "demo", "input": ["a"] * 51})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "input has 51 items, the limit of this server is 50 (--max-items)"},
    )


def test_the_users_own_names(tmp_path: Path) -> None:
    aliases = {"my-legal-queries": Alias("demo", instruction="Find the clause", dim=64)}
    with served(FakeService(), aliases=aliases) as http:
        assert [one["name"] for one in http.get("/api/tags").json()["models"]] == [
            "demo:latest",
            "my-legal-queries:latest",
        ]
        assert http.post("/api/show", json={"model": "my-legal-queries:latest"}).status_code == 200
        assert http.get("/v1/models/my-legal-queries").json()["id"] == "my-legal-queries"


def test_a_file_the_server_was_started_with_has_a_name(tiny_gguf: Callable[..., Path]) -> None:
    path = tiny_gguf("f16")
    with served(FakeService(), models=(str(path),)) as http:
        assert f"{path.stem}:latest" in [one["name"] for one in http.get("/api/tags").json()["models"]]
        assert http.post("/api/show", json={"model": path.stem}).status_code == 200
        assert http.get("/props").json()["model_alias"] == http.get("/info").json()["model_id"] == path.stem
        for route in ("/api/show", "/api/embed", "/v1/embeddings", "/embed"):
            answer = http.post(route, json={"model": str(path), "input": "a", "inputs": "a"})
            assert answer.status_code in (400, 404, 422)
            assert f"invalid model name: this file is served as '{path.stem}'" in answer.text
        other = http.post("/api/embed", json={"model": "/other.gguf", "input": "a"})
        assert other.json() == {"error": "invalid model name; /api/tags and /v1/models list those there are"}


# Values


def keep_alive_s(value: object) -> float | None:
    return Fields({"keep_alive": value}, Body({"keep_alive": KEEP_ALIVE})).keep_alive_s()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [  # ollama api/types_test.go: TestKeepAliveParsingFromJSON
        (None, None), (42, 42), (42.5, 42.5), ("42m", 2520), (-1, NEVER), (-3.14, NEVER), ("-1m", NEVER),
        (0, 0), ("0", 0), ("0s", 0), ("-0", 0), ("1h30m", 5400), ("1.5h", 5400), ("100ms", 0.1), ("1us", 1e-6),
        (1e300, NEVER),
    ],
)  # fmt: skip
def test_keep_alive(value: object, seconds: float | None) -> None:
    assert keep_alive_s(value) == (pytest.approx(seconds) if seconds else seconds)


@pytest.mark.parametrize("value", ["", "10", "1d", "???", "m", "1m ", True, [], {}, "9" * 30 + "h"])
def test_keep_alive_that_is_none(value: object) -> None:
    with pytest.raises(Q3EError, match="keep_alive must be seconds or a duration"):
        keep_alive_s(value)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("demo", "demo:latest"),
        ("demo:latest", "demo:latest"),
        (" demo:LATEST ", "demo:LATEST"),
        ("hf.co/Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0",) * 2,
        ("registry.ollama.ai/library/qwen3-embedding:4b",) * 2,
        ("host:5000/ns/model", "host:5000/ns/model:latest"),
        ("m" * 80, "m" * 80 + ":latest"),
    ],
)
def test_names(name: str, short: str) -> None:
    # ollama types/model/name_test.go
    assert short_form(checked(name)) == short


@pytest.mark.parametrize("name", ["demo:latest", "DEMO", "Demo:Latest", "demo:q8_0", "demo-query:latest"])
def test_names_of_one_model(http: httpx.Client, name: str) -> None:
    # ollama integration: names differing only in case refer to one model
    assert http.post("/api/show", json={"model": name}).json()["model_info"]["qwen3.embedding_length"] == N_EMBD


@pytest.mark.parametrize(
    "name",
    [
        "",
        "m" * 81,
        "a:",
        ":a",
        "/a",
        "a/",
        "a//b",
        "a b",
        "a\0b",
        "..",
        "../a",
        "a/../b",
        "é",
        "a:b:c",
        "~x",
        "C:\\x",
    ],
)
def test_names_that_are_none(name: str) -> None:
    # ollama types/model/name_test.go
    with pytest.raises(OptionError, match="invalid model name"):
        checked(name)


def test_no_name_reaches_the_file_system(http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "x.gguf").write_text("x")
    monkeypatch.chdir(tmp_path)
    for name in ("secret", "x.gguf", "./x.gguf", str(tmp_path / "x.gguf"), "~/x.gguf", "file://x", "a/../../x"):
        for path, body in (("/api/show", {}), ("/api/embed", {"input": "a"}), ("/v1/embeddings", {"input": "a"})):
            answer = http.post(path, json={"model": name, **body})
            assert answer.status_code in (400, 404)
            assert "magic" not in answer.text


def test_a_fast_server_stays_fast(http: httpx.Client) -> None:
    """The wire costs milliseconds; a bound that only a mistake passes."""
    times = []
    for _ in range(30):
        begun = time.perf_counter()
        http.post("/api/embed", json={"model": "demo", "input": "a"})
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.1  # of 30, so that a busy machine is not a mistake
