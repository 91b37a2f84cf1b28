"""vLLM's score routes, and the route to rank beside Ollama's. The fake's logit counts the query in the document."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest
from fake_service import FakeService

pytest_plugins = ["serving"]

BEST, EVEN, WORST = 1 / (1 + math.exp(-1)), 0.5, 1 / (1 + math.exp(1))


def scored(http: httpx.Client, path: str = "/score", **fields: Any) -> list[float]:
    answer = http.post(path, json={"model": "judge", **fields})
    assert answer.status_code == 200, answer.text
    assert [(item["index"], item["object"]) for item in answer.json()["data"]] == [
        (index, "score") for index in range(len(answer.json()["data"]))
    ]
    return [item["score"] for item in answer.json()["data"]]


def test_one_to_one_one_to_many_and_pair_by_pair(http: httpx.Client) -> None:
    assert scored(http, text_1="red", text_2="red") == [EVEN]
    assert scored(http, text_1=["red"], text_2=["red"]) == [EVEN]
    assert scored(http, text_1="red", text_2=["x", "red red", "red"]) == pytest.approx([WORST, BEST, EVEN])
    # Two pairs of three have the same query.
    pairs = {"text_1": ["red", "x", "red"], "text_2": ["red red", "y", "red"]}
    for path in ("/score", "/v1/score"):
        assert scored(http, path, **pairs) == pytest.approx([BEST, WORST, EVEN])
    assert scored(http, queries=pairs["text_1"], documents=pairs["text_2"]) == pytest.approx([BEST, WORST, EVEN])


def test_the_answer(http: httpx.Client) -> None:
    answer = http.post("/score", json={"model": "judge", "text_1": ["a", "bb"], "text_2": ["a", "x" * 200]})
    found = answer.json()
    assert list(found) == ["id", "object", "created", "model", "data", "usage"]
    assert (found["object"], found["model"]) == ("list", "judge")
    n_tokens = (1 + 1 + 1) + 100  # the second pair is cut
    assert found["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    assert answer.headers["x-q3e-truncated"] == "1"
    assert answer.headers["x-q3e-texts"] == "2"


def test_logits(http: httpx.Client) -> None:
    for raw in ({"raw_scores": True}, {"use_activation": False}, {"activation": False}):
        assert scored(http, text_1="red", text_2=["x", "red red"], **raw) == [-1, 1]


def test_pairs_are_ranked_query_by_query(http: httpx.Client, fake: FakeService) -> None:
    scored(http, text_1=["a", "b", "a"], text_2=["1", "2", "3"], instruction="Find it", truncate_prompt_tokens=60)
    asked = {(wanted.query, wanted.documents) for wanted in fake.requests}
    assert asked == {("a", ("1", "3")), ("b", ("2",))}
    assert {(wanted.instruction, wanted.max_tokens) for wanted in fake.requests} == {("Find it", 60)}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text_1": "a"},
        {"text_2": "a"},
        {"text_1": [], "text_2": "a"},
        {"text_1": "a", "text_2": []},
        {"text_1": ["a", "b"], "text_2": "c"},
        {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]},
        {"text_1": 5, "text_2": "a"},
        {"text_1": "", "text_2": "a"},
        {"text_1": ["a", " \n"], "text_2": ["b", "c"]},
        {"text_1": ["a", None], "text_2": ["b", "c"]},
        {"text_1": "a", "text_2": {"content": []}},
        {"text_1": "a", "text_2": ["b"] * 51},
        {"text_1": "a" * 100_001, "text_2": "b"},
        {"text_1": "a" * 200, "text_2": "b"},
        {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 0},
    ],
)
def test_what_is_refused(http: httpx.Client, fields: dict[str, Any]) -> None:
    answer = http.post("/score", json={"model": "judge", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (400, 400, "BadRequestError")
    assert list(error) == ["message", "type", "param", "code"]


def test_a_pair_that_fails_is_named_by_its_place(http: httpx.Client) -> None:
    pairs = {"text_1": ["a", "b", "a"], "text_2": ["1", "2", "3" * 200]}
    answer = http.post("/score", json={"model": "judge", **pairs, "truncate": False})
    assert (answer.status_code, "text 2: has 200 tokens" in answer.text) == (400, True)


def test_other_errors(http: httpx.Client) -> None:
    pair = {"text_1": "a", "text_2": "b"}
    unknown = http.post("/score", json={"model": "nope", **pair})
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "NotFoundError")
    wrong = http.post("/score", json={"model": "demo", **pair})
    assert (wrong.status_code, "embedding model" in wrong.text) == (400, True)


# Beside Ollama's


def ranked(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post(
        "/api/rerank", json={"model": "judge", "query": "red", "documents": ["x", "red red", "red"], **fields}
    )


def test_what_difys_plugin_reads(http: httpx.Client) -> None:
    answer = ranked(http)
    found = answer.json()
    assert [(each["index"], each["document"]) for each in found["results"]] == [(1, "red red"), (2, "red"), (0, "x")]
    assert [each["relevance_score"] for each in found["results"]] == pytest.approx([BEST, EVEN, WORST])
    assert found["model"] == "judge"
    assert found["prompt_eval_count"] == 3 * 4 + 1 + 7 + 3 == int(answer.headers["x-q3e-prompt-tokens"])
    assert (found["total_duration"] > 0, found["load_duration"]) == (True, 1_000_000)  # as the fake says
    assert [each["index"] for each in ranked(http, top_n=1).json()["results"]] == [1]
    objects = ranked(http, documents=[{"text": "red"}]).json()["results"]
    assert objects == [{"index": 0, "relevance_score": EVEN, "document": "red"}]


def test_keep_alive_and_num_ctx(http: httpx.Client, fake: FakeService) -> None:
    ranked(http, model="judge:latest", keep_alive="10m", options={"num_ctx": 50}, instruction="Find it")
    (wanted,) = fake.requests
    assert (wanted.keep_alive_s, wanted.max_tokens, wanted.instruction) == (600, 50, "Find it")
    assert [model["name"] for model in http.get("/api/ps").json()["models"]] == ["judge:latest"]
    assert http.get("/api/ps").json()["models"][0]["capabilities"] == ["rerank"]
    assert http.get("/health").json()["loaded"][0]["type"] == "reranker"
    ranked(http, keep_alive=0)
    assert fake.unloaded == ["judge"]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"model": None}, 404, "model '' not found"),
        ({"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
        ({"model": "demo"}, 400, "demo is an embedding model: it ranks nothing"),
        ({"query": None}, 400, '"query" must be provided'),
        ({"query": " "}, 400, "query is empty; ask something"),
        ({"documents": []}, 400, '"documents" must be a list with one text or more'),
        ({"documents": ["a", 5]}, 400, "documents[1] must be a text or an object with a text, got 5"),
        ({"top_n": -1}, 400, "top_n must be 0 or more, got -1; 0 means all"),
        ({"keep_alive": "soon"}, 400, "keep_alive must be seconds or a duration"),
        ({"options": {"num_ctx": 3}}, 400, "the query has 4 tokens, the limit is 3; shorten the query"),
    ],
)
def test_what_ollama_would_say(http: httpx.Client, fields: dict[str, Any], status: int, said: str) -> None:
    answer = ranked(http, **fields)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert answer.json()["error"].startswith(said)
