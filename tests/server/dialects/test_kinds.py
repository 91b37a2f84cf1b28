"""What clients of other services call a question and a document is understood on the routes where they send it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fake_service import FakeService

# By the services whose clients send the names.
SENT = [
    ("query", "query"),
    ("document", "document"),
    ("passage", "document"),
    ("search_query", "query"),
    ("search_document", "document"),
    ("retrieval.query", "query"),
    ("retrieval.passage", "document"),
    ("RETRIEVAL_QUERY", "query"),
    ("RETRIEVAL_DOCUMENT", "document"),
    ("Search_Query", "query"),
]


@pytest.mark.parametrize("field", ["input_type", "task", "prompt_name"])
@pytest.mark.parametrize(("name", "kind"), SENT)
def test_openais_routes_know_each_name_in_each_field(
    http: httpx.Client, fake: FakeService, field: str, name: str, kind: str
) -> None:
    for path in ("/v1/embeddings", "/embeddings"):
        assert http.post(path, json={"model": "demo", "input": "a", field: name}).status_code == 200
    assert [(each.kind, each.task) for each in fake.requests] == [(kind, None)] * 2


@pytest.mark.parametrize(("name", "kind"), SENT)
def test_teis_routes_know_each_prompt_name(http: httpx.Client, fake: FakeService, name: str, kind: str) -> None:
    assert http.post("/embed", json={"model": "demo", "inputs": "a", "prompt_name": name}).status_code == 200
    assert fake.requests[0].kind == kind


def test_a_kind_goes_with_an_instruction_and_with_a_task(http: httpx.Client, fake: FakeService) -> None:
    for more in (
        {"task": "RETRIEVAL_QUERY", "instruction": "Find it"},
        {"task": "code", "input_type": "search_query"},
    ):
        assert http.post("/v1/embeddings", json={"model": "demo", "input": "a", **more}).status_code == 200
    assert [(each.kind, each.task, each.instruction) for each in fake.requests] == [
        ("query", None, "Find it"),
        ("query", "code", None),
    ]


def test_fields_that_agree_are_one(http: httpx.Client, fake: FakeService) -> None:
    fields = {"input_type": "search_query", "prompt_name": "query", "task": "retrieval.query"}
    assert http.post("/v1/embeddings", json={"model": "demo", "input": "a", **fields}).status_code == 200
    assert fake.requests[0].kind == "query"


@pytest.mark.parametrize(
    ("fields", "param", "parts"),
    [
        ({"input_type": "question"}, "input_type", ["'question'", "search_query", "retrieval.passage"]),
        ({"prompt_name": "s2p_query"}, "prompt_name", ["'s2p_query'", "RETRIEVAL_DOCUMENT"]),
        ({"task": "text-matching"}, "task", ["sts", "clustering", "retrieval.query", "RETRIEVAL_QUERY"]),
        (
            {"input_type": "query", "task": "retrieval.passage"},
            "task",
            ["input_type says", "'query'", "task that", "'document'", "send one of the two"],
        ),
    ],
)
def test_what_is_refused_lists_the_values(
    http: httpx.Client, fields: dict[str, Any], param: str, parts: list[str]
) -> None:
    answer = http.post("/v1/embeddings", json={"model": "demo", "input": "a", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert all(part in error["message"] for part in parts), error["message"]


def test_each_name_is_shown_in_the_document(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    fields = paths["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    for field in ("input_type", "prompt_name", "task"):
        assert {name for name, _ in SENT if name != "Search_Query"} <= set(fields[field]["enum"])
