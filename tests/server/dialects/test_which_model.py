"""Which model answers requests that name none: llama-server's and TEI's clients never do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import rerankers
from fake_service import FakeService, served

from q3e_local.models import installed

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "a"},
    "/embeddings": {"input": "a"},
    "/embedding": {"content": "a"},
    "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [97]},
    "/embed": {"inputs": "a"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/decode": {"ids": [97]},
}


RANK_REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"query": "a", "documents": ["a"]},
    "/rerank": {"query": "a", "texts": ["a"]},
    "/v2/rerank": {"query": "a", "documents": ["a"]},
    "/score": {"text_1": "a", "text_2": "a"},
}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "name no model" in line]


@pytest.fixture(autouse=True)
def _all_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


@pytest.fixture
def imported(request: pytest.FixtureRequest, tiny_gguf: Callable[..., Path]) -> tuple[str, ...]:
    """The names in the parameter, under each of which a model is on this machine."""
    path = tiny_gguf("f16")
    for name in request.param:
        record(name, path)
    return request.param


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rerankers.write(tmp_path_factory.mktemp("rerankers") / "tiny-reranker.gguf", "cls")


def record(name: str, path: Path) -> None:
    installed.record(installed.Installed(name, path, path.stat().st_size, "imported"))


def ask_all(http: httpx.Client, requests: dict[str, dict[str, Any]] = REQUESTS) -> set[int]:
    return {http.post(path, json=body).status_code for path, body in requests.items()}


def test_the_first_model_named_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    with served(service, models=("demo-query", "demo")) as http:
        assert ask_all(http) == {200}
        answer = http.post("/v1/embeddings", json={"input": "a"}).json()
    assert {request.model for request in service.requests} == {"demo-query"}
    assert (answer["model"], answer["space"]) == ("demo", "q3e1-fake-256-query")
    assert said(caplog) == ["requests that name no model are answered by demo-query, which was named at the start"]


@pytest.mark.parametrize("unnamed", [{}, {"model": None}, {"model": ""}])
def test_the_loaded_model(caplog: pytest.LogCaptureFixture, unnamed: dict[str, Any]) -> None:
    with served(FakeService()) as http:
        http.post("/api/embed", json={"model": "demo"})
        assert ask_all(http) == {200}
        answer = http.post("/v1/embeddings", json={"input": "a", **unnamed}).json()
    assert answer["model"] == "demo"
    assert said(caplog) == ["requests that name no model are answered by demo, which is loaded"]


@pytest.mark.parametrize(
    ("imported", "expected", "why"),
    [
        (("qwen3-embedding:4b", "me/other:f16"), "qwen3-embedding:4b", "the default model"),
        (("me/mine:f16",), "me/mine:f16", "the only model on this machine"),
    ],
    indirect=["imported"],
)
@pytest.mark.usefixtures("imported")
def test_the_default_or_the_only_model_where_none_is_named_or_loaded(
    caplog: pytest.LogCaptureFixture, expected: str, why: str
) -> None:
    with served(FakeService()) as http:
        answer = http.post("/v1/embeddings", json={"input": "a"})
    assert f"'{expected}'" in answer.json()["error"]["message"]  # the fake service knows no such model, and says so
    assert said(caplog) == [f"requests that name no model are answered by {expected}, {why}"]


@pytest.mark.parametrize("imported", [(), ("me/first:f16", "me/second:f16")], indirect=True)
def test_a_request_must_name_a_model_where_nothing_says_which(imported: tuple[str, ...]) -> None:
    with served(FakeService()) as http:
        assert ask_all(http) == {404}
        answer = http.post("/v1/embeddings", json={"input": "a"}).json()["error"]
    assert (answer["param"], answer["code"]) == ("model", "model_not_found")
    said, _, names = answer["message"].partition(": ")
    assert said == "the request names no model, and the default is not on this machine"
    assert all(name in names for name in (*imported, "demo", "q3e-local pull qwen3-embedding:4b"))


def test_an_answer_has_the_name_that_the_client_sent(caplog: pytest.LogCaptureFixture) -> None:
    with served(FakeService(), models=("demo",)) as http:
        answer = http.post("/v1/embeddings", json={"model": "demo:latest", "input": "a"}).json()
    assert answer["model"] == "demo:latest"
    assert said(caplog) == []


def test_ollamas_routes_need_a_name() -> None:
    with served(FakeService(), models=("demo",)) as http:
        answer = http.post("/api/embed", json={"input": "a"})
        assert (answer.status_code, answer.json()) == (404, {"error": "model '' not found"})


def test_a_route_that_ranks_gets_the_first_reranker_named_at_the_start(
    caplog: pytest.LogCaptureFixture, reranker: Path
) -> None:
    record("judge", reranker)  # the fake's reranker has a file of this kind
    service = FakeService()
    with served(service, models=("demo-query", "judge")) as http:
        assert ask_all(http, RANK_REQUESTS) == {200}
        assert {request.model for request in service.requests} == {"judge"}
        assert http.get("/info").json()["model_type"] == {"embedding": {"pooling": "last_token"}}
    assert said(caplog) == ["requests to rank that name no model are answered by judge, which was named at the start"]
    service = FakeService()
    with served(service, models=("judge", "demo")) as http:
        assert ask_all(http) == {200}
        assert {request.model for request in service.requests} == {"demo"}
        info = http.get("/info").json()
        assert (info["model_id"], next(iter(info["model_type"]))) == ("judge", "reranker")
        assert http.get("/props").json()["model_alias"] == "judge"


def test_a_route_gets_the_loaded_model_of_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    with served(service) as http:
        for model in ("demo", "judge"):
            http.post("/api/generate", json={"model": model})
        assert ask_all(http) == ask_all(http, RANK_REQUESTS) == {200}
        assert http.post("/v1/rerank", json=RANK_REQUESTS["/v1/rerank"]).json()["model"] == "judge"
    assert said(caplog) == [
        "requests that name no model are answered by demo, which is loaded",
        "requests to rank that name no model are answered by judge, which is loaded",
    ]


def test_the_default_or_the_only_reranker(
    caplog: pytest.LogCaptureFixture, reranker: Path, tiny_gguf: Callable[..., Path]
) -> None:
    record("me/embedder:f16", tiny_gguf("f16"))
    record("me/judge:f16", reranker)
    with served(FakeService()) as http:
        # The fake service knows no such models, and says so.
        assert "'me/judge:f16'" in http.post("/v1/rerank", json=RANK_REQUESTS["/v1/rerank"]).text
        assert "'me/embedder:f16'" in http.post("/v1/embeddings", json=REQUESTS["/v1/embeddings"]).text
    assert [line.rpartition(", ")[2] for line in said(caplog)] == [
        "the only reranker on this machine",
        "the only model on this machine",
    ]


def test_the_demo_reranker_answers_by_name_only_and_the_error_says_how_to_get_another(reranker: Path) -> None:
    with served(FakeService(), models=("demo",)) as http:
        assert ask_all(http, RANK_REQUESTS) == {404}
        message = http.post("/v1/rerank", json=RANK_REQUESTS["/v1/rerank"]).json()["error"]["message"]
        assert message.startswith("the request names no reranker, and the default is not on this machine")
        assert ": name one of demo-reranker; or bring qwen3-reranker:0.6b here with POST /api/pull" in message
        assert "q3e-local pull qwen3-reranker:0.6b" in message
        for name in ("me/first:f16", "me/second:f16"):
            record(name, reranker)
        message = http.post("/v1/rerank", json=RANK_REQUESTS["/v1/rerank"]).json()["error"]["message"]
        assert ": name one of demo-reranker, me/first:f16, me/second:f16; or bring" in message
        assert "demo," not in message


def test_a_server_with_a_reranker_alone_embeds_nothing_by_itself(reranker: Path) -> None:
    record("judge", reranker)
    with served(FakeService(), models=("judge",)) as http:
        for path in ("/v1/embeddings", "/embedding", "/embed", "/similarity"):
            assert http.post(path, json=REQUESTS[path]).status_code == 404
        for path in ("/tokenize", "/detokenize", "/decode"):  # any model has tokens
            assert http.post(path, json=REQUESTS[path]).status_code == 200


def test_the_kind_of_each_model_is_told(reranker: Path) -> None:
    with served(FakeService(), models=("demo", str(reranker))) as http:
        listed = {
            model["id"]: (model["type"], model["max_model_len"]) for model in http.get("/v1/models").json()["data"]
        }
        assert listed == {
            "demo:latest": ("embedding", 32_768),
            "demo-reranker:latest": ("reranker", 8192),
            "tiny-reranker:latest": ("reranker", 2048),
        }
        assert http.get("/v1/models/tiny-reranker").json()["type"] == "reranker"
        assert {model["id"]: model["type"] for model in http.get("/models").json()["data"]} == {
            name: kind for name, (kind, _) in listed.items()
        }
        tags = {model["name"]: model["capabilities"] for model in http.get("/api/tags").json()["models"]}
        words = {"embedding": ["embedding"], "reranker": ["rerank"]}
        assert tags == {name: words[kind] for name, (kind, _) in listed.items()}
        shown = {name: http.post("/api/show", json={"model": name}).json()["capabilities"] for name in tags}
        assert shown == tags
