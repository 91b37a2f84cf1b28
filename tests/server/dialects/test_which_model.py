"""Which model answers requests that name none: llama-server's and TEI's clients never do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
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
        installed.record(installed.Installed(name, path, path.stat().st_size, "imported"))
    return request.param


def ask_all(http: httpx.Client) -> set[int]:
    return {http.post(path, json=body).status_code for path, body in REQUESTS.items()}


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
