"""Ollama's routes for models: Ollama's client from PyPI lists, shows, pulls, copies and deletes them.

A test that comes from another project names the file it comes from.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import ollama
import pytest
from fake_service import N_EMBD, FakeService, served
from gpus import device
from waiting import until
from world import BUNDLED_LATEST

from q3e_local.errors import Q3EError
from q3e_local.llama.settings.placement import Placement
from q3e_local.models import installed
from q3e_local.models.installed import Installed
from q3e_local.models.own_names import Alias
from q3e_local.models.pull import Step

pytest_plugins = ["serving"]


@pytest.fixture
def tiny_model(tiny_gguf: Callable[..., Path]) -> Installed:
    """A model that this program pulled, and may delete."""
    path = installed.own_folder() / "tiny.gguf"
    path.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf("f16"), path)
    return installed.record(Installed("tiny:1b", path, path.stat().st_size, "pulled", "ab" * 32))


def names(client: ollama.Client) -> set[str]:
    """The names that Ollama's client lists."""
    return {model.model for model in client.list().models}


def test_list(client: ollama.Client, http: httpx.Client, tiny_model: Installed) -> None:
    # ollama server/routes_test.go: Tags Handler (a name without tag is listed as latest; no expires_at)
    found = {model.model: model for model in client.list().models}
    assert set(found) == {*BUNDLED_LATEST, "tiny:1b"}
    demo = found["demo:latest"]
    assert re.fullmatch("[0-9a-f]{64}", demo.digest)
    assert demo.details.family == "qwen3"
    assert demo.details.quantization_level == "Q8_0"
    assert demo.details.parameter_size == "10.01M"
    assert demo.size == installed.installed()[0].size_bytes
    assert demo.modified_at <= datetime.now(UTC)
    raw = http.get("/api/tags").json()["models"]
    assert all("expires_at" not in model for model in raw)
    assert [model["details"]["embedding_length"] for model in raw if model["name"] == "demo:latest"] == [N_EMBD]
    assert [model["name"] for model in raw] == ["tiny:1b", *BUNDLED_LATEST]


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
    (model,) = client.ps().models
    assert (model.name, model.model) == ("demo:latest", "demo:latest")
    assert (model.size, model.size_vram, model.context_length) == (12_345, 0, 100)
    assert 590 < (model.expires_at - datetime.now(UTC)).total_seconds() < 610
    client.embed("demo", "a", keep_alive=-1)
    assert client.ps().models[0].expires_at.year > 2200
    client.embed("demo", "a", keep_alive=0)
    assert client.ps().models == []


def test_ps_says_what_of_a_model_is_on_which_gpu(
    client: ollama.Client, http: httpx.Client, fake: FakeService
) -> None:
    fake.placement = Placement(36, 20, (device(),), (21,), (9_000,), "as asked")
    client.embed("demo", "a")
    (model,) = client.ps().models
    assert (model.size, model.size_vram) == (12_345, 9_000)
    assert fake.n_looks == 1
    (raw,) = http.get("/api/ps").json()["models"]
    card = {"name": "CUDA0", "description": "NVIDIA GeForce RTX 3060", "driver": "CUDA", "kind": "discrete"}
    memory = {"bytes": 9_000, "free_bytes": 11_200_000_000, "total_bytes": 12_000_000_000}
    placement = {"layers": 36, "on_gpu": 20, "why": "as asked", "devices": [{**card, "layers": 20, **memory}]}
    assert raw["placement"] == placement


def test_metrics_have_what_a_model_takes_of_a_gpu_and_what_that_has(http: httpx.Client, fake: FakeService) -> None:
    fake.placement = Placement(36, 20, (device(),), (21,), (9_000,), "as asked")
    http.post("/api/embed", json={"model": "demo", "input": "a"})
    values = {
        name: float(value) for name, value in re.findall(r"^(q3e_\S.*) (\S+)$", http.get("/metrics").text, re.M)
    }
    card = 'description="NVIDIA GeForce RTX 3060",device="CUDA0"'
    assert values['q3e_model_gpu_layers{model="demo"}'] == 20
    assert values[f'q3e_model_device_bytes{{{card},model="demo"}}'] == 9_000
    assert values[f"q3e_device_free_bytes{{{card}}}"] == 11_200_000_000
    assert values[f"q3e_device_bytes{{{card}}}"] == 12_000_000_000
    assert fake.n_looks == 1


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


def test_delete(client: ollama.Client, http: httpx.Client, tiny_model: Installed) -> None:
    # ollama server/routes_test.go: Delete Model Handler; server/routes_delete_test.go
    answer = http.request("DELETE", "/api/delete", json={"name": "tiny:1b"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert not tiny_model.path.exists()
    with pytest.raises(ollama.ResponseError, match="model 'tiny:1b' not found") as caught:
        client.delete("tiny:1b")
    assert caught.value.status_code == 404
    for name, error in {"": "model is required", "../x": 'name "../x" is invalid'}.items():
        answer = http.request("DELETE", "/api/delete", json={"model": name})
        assert (answer.status_code, answer.json()) == (400, {"error": error})
    with pytest.raises(ollama.ResponseError, match="demo is part of q3e-local and stays"):
        client.delete("demo")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/delete", {"model": "tiny:1b"}),
        ("POST", "/api/generate", {"model": "demo", "keep_alive": 0}),
    ],
)
def test_a_client_that_leaves_does_not_stop_a_delete_or_an_unload(
    address: str, fake: FakeService, tiny_model: Installed, monkeypatch: pytest.MonkeyPatch, method, path, body
) -> None:
    may_unload, unloaded = threading.Event(), threading.Event()

    async def unload(model: str) -> None:
        await asyncio.to_thread(may_unload.wait, 60)
        unloaded.set()

    monkeypatch.setattr(fake, "unload", unload)
    with httpx.Client(base_url=address, trust_env=False, timeout=0.5) as http, pytest.raises(httpx.ReadTimeout):
        http.request(method, path, json=body)
    # The server has seen that client leave once it has seen the next client leave, whose request it cancels.
    with httpx.Client(base_url=address, trust_env=False, timeout=0.5) as http, pytest.raises(httpx.ReadTimeout):
        http.post("/api/embed", json={"model": "demo", "input": "wait"})
    assert fake.cancelled.wait(60)
    may_unload.set()
    assert unloaded.wait(60)
    if method == "DELETE":
        until(lambda: not tiny_model.path.exists())


def test_a_copy_is_a_second_name(client: ollama.Client, tiny_model: Installed) -> None:
    client.copy("tiny:1b", "mine")
    assert client.show("mine").modelinfo == client.show("tiny:1b").modelinfo
    assert {"mine:latest", "tiny:1b"} < names(client)
    client.delete("mine:latest")
    assert tiny_model.path.exists()
    assert "mine:latest" not in names(client)


def test_delete_keeps_a_file_that_a_copy_uses(client: ollama.Client, tiny_model: Installed) -> None:
    # ollama server/routes_delete_test.go: TestDelete (blobs of another model stay)
    client.copy("tiny:1b", "mine")
    client.delete("tiny:1b")
    assert tiny_model.path.exists()
    assert names(client) == {*BUNDLED_LATEST, "mine:latest"}
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


def test_names_from_the_config_file() -> None:
    aliases = {"my-legal-queries": Alias("demo", instruction="Find the clause", dim=64)}
    with served(FakeService(), aliases=aliases) as http:
        listed = [model["name"] for model in http.get("/api/tags").json()["models"]]
        assert sorted(listed) == sorted([*BUNDLED_LATEST, "my-legal-queries:latest"])
        assert http.post("/api/show", json={"model": "my-legal-queries:latest"}).status_code == 200
        assert http.get("/v1/models/my-legal-queries").json()["id"] == "my-legal-queries"


def test_a_file_the_server_was_started_with_has_a_name(tiny_gguf: Callable[..., Path]) -> None:
    path = tiny_gguf("f16")
    with served(FakeService(), models=(str(path),)) as http:
        assert f"{path.stem}:latest" in [model["name"] for model in http.get("/api/tags").json()["models"]]
        assert http.post("/api/show", json={"model": path.stem}).status_code == 200
        assert http.get("/props").json()["model_alias"] == http.get("/info").json()["model_id"] == path.stem
        for route in ("/api/show", "/api/embed", "/v1/embeddings", "/embed"):
            answer = http.post(route, json={"model": str(path), "input": "a", "inputs": "a"})
            assert answer.status_code in (400, 404, 422)
            assert f"invalid model name: this file is served as '{path.stem}'" in answer.text
        other = http.post("/api/embed", json={"model": "/other.gguf", "input": "a"})
        assert other.json() == {"error": "invalid model name; /api/tags and /v1/models list those there are"}
