"""The wire of Jina, llama-server, vLLM and Cohere, which share an answer, and TEI's on the same path.

The fake's logit is the number of times that the document has the query, less 1.
"""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest
from fake_service import FakeService, ask_and_leave

from q3e_local.server.errors import QueueFullError

pytest_plugins = ["serving"]

JINAS = ["/v1/rerank", "/rerank", "/reranking", "/v1/reranking"]
PATHS = [*JINAS, "/v2/rerank"]
QUERY = "red"
DOCUMENTS: list[Any] = ["green", "a red red apple", {"text": "red"}]
# By their logits 1, 0 and -1.
SCORES = {1: 1 / (1 + math.exp(-1)), 2: 0.5, 0: 1 / (1 + math.exp(1))}


def asked(http: httpx.Client, path: str = "/v1/rerank", **fields: Any) -> httpx.Response:
    return http.post(path, json={"model": "judge", "query": QUERY, "documents": DOCUMENTS, **fields})


def scores(answer: httpx.Response) -> dict[int, float]:
    """The scores by the places of their documents, in the order of the answer."""
    assert answer.status_code == 200, answer.text
    return {result["index"]: result["relevance_score"] for result in answer.json()["results"]}


@pytest.mark.parametrize("path", PATHS)
def test_one_answer_serves_all_clients(http: httpx.Client, path: str) -> None:
    answer = asked(http, path)
    found = answer.json()
    assert list(found) == ["id", "model", "object", "results", "usage", "meta", "truncated"]
    assert (found["model"], found["object"], found["truncated"]) == ("judge", "list", [])
    n_tokens = 3 * (len("red") + 1) + len("green" + "a red red apple" + "red")
    assert found["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    version = {"version": "2" if path == "/v2/rerank" else "1"}
    assert found["meta"] == {"api_version": version, "billed_units": {"search_units": 1}}
    assert [list(result) for result in found["results"]] == [["index", "relevance_score"]] * 3
    assert scores(answer) == pytest.approx(SCORES)
    assert list(scores(answer)) == [1, 2, 0]  # best first
    assert answer.headers["x-q3e-prompt-tokens"] == str(n_tokens)
    assert answer.headers["x-q3e-texts"] == "3"
    assert "x-q3e-truncated" not in answer.headers
    assert asked(http, path).json()["id"] != found["id"]


def test_of_equal_documents_the_earlier_comes_first(http: httpx.Client) -> None:
    assert list(scores(asked(http, documents=["x", "red", "y", "red", "z"]))) == [1, 3, 0, 2, 4]


@pytest.mark.parametrize(
    ("top_n", "expected"),
    [
        (None, [1, 2, 0]),
        (0, [1, 2, 0]),
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2, 0]),
        (99, [1, 2, 0]),
        (2**31 - 1, [1, 2, 0]),
    ],
)
def test_top_n(http: httpx.Client, top_n: int | None, expected: list[int]) -> None:
    for path in PATHS:
        assert list(scores(asked(http, path, top_n=top_n))) == expected
    answer = http.post(
        "/rerank", json={"model": "judge", "query": QUERY, "texts": ["x", "red red", "red"], "top_n": top_n}
    )
    assert [item["index"] for item in answer.json()] == [1, 2, 0][: len(expected)]


@pytest.mark.parametrize("top_n", [-1, -(2**31), 1.5, "2", True, [1], 2**40])
def test_a_top_n_that_is_none(http: httpx.Client, top_n: Any) -> None:
    for path in PATHS:
        answer = asked(http, path, top_n=top_n)
        assert answer.status_code == 400
        assert "top_n" in answer.text


def test_documents_come_back_as_they_were_sent_where_they_are_wanted(http: httpx.Client) -> None:
    documents = ["green", {"text": "red", "id": 7}]
    (best, worst) = asked(http, documents=documents, return_documents=True).json()["results"]
    assert (best["document"], worst["document"]) == ({"text": "red", "id": 7}, {"text": "green"})
    assert "document" not in asked(http, documents=documents, return_documents=False).json()["results"][0]


def test_coheres_rank_fields_are_read_line_by_line(http: httpx.Client, fake: FakeService) -> None:
    documents = [{"title": "red", "body": "a red rose", "other": "red"}, "red"]
    answer = asked(http, documents=documents, rank_fields=["title", "body"])
    assert fake.requests[-1].documents == ("red\na red rose", "red")
    assert scores(answer) == pytest.approx({0: SCORES[1], 1: SCORES[2]})
    missing = asked(http, documents=[{"title": "red"}], rank_fields=["title", "body"])
    assert (missing.status_code, "documents[0].body must be a text, got null" in missing.text) == (400, True)


def test_logits_in_the_words_of_every_dialect(http: httpx.Client) -> None:
    for raw in ({"raw_scores": True}, {"use_activation": False}, {"activation": False}):
        assert scores(asked(http, **raw)) == {1: 1.0, 2: 0.0, 0: -1.0}
    for plain in ({"raw_scores": False}, {"use_activation": True}, {"activation": None}):
        assert scores(asked(http, **plain)) == pytest.approx(SCORES)


def test_what_is_asked_reaches_the_model(http: httpx.Client, fake: FakeService) -> None:
    def wanted(path: str = "/v1/rerank", **fields: Any) -> Any:
        assert asked(http, path, **fields).status_code == 200
        return fake.requests[-1]

    assert wanted().query == QUERY
    assert wanted().documents == ("green", "a red red apple", "red")
    assert (wanted().instruction, wanted().task, wanted().truncate, wanted().max_tokens) == (None, None, True, None)
    assert wanted(instruction="Find fruit").instruction == "Find fruit"
    assert wanted(instruct="Find fruit").instruction == "Find fruit"
    assert wanted(task="code").task == "code"
    assert wanted(truncate=False).truncate is False
    assert wanted(truncate_prompt_tokens=50).max_tokens == 50
    assert wanted(truncate_prompt_tokens=-1).max_tokens is None
    assert wanted().max_document_tokens is None
    assert wanted("/v2/rerank").max_document_tokens == 4096  # Cohere's default
    for path in PATHS:
        assert wanted(path, max_tokens_per_doc=9).max_document_tokens == 9


def test_chunks_are_ignored_with_a_line_in_the_log(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        assert list(scores(asked(http, max_chunks_per_doc=10))) == [1, 2, 0]
    assert len([line for line in caplog.messages if "max_chunks_per_doc is ignored" in line]) == 1
    assert asked(http, max_chunks_per_doc="ten").status_code == 400


def test_a_cut_document_is_told(http: httpx.Client) -> None:
    documents = ["red", "x" * 200 + "red", "red"]
    for path in PATHS:
        answer = asked(http, path, documents=documents)
        assert list(scores(answer)) == [0, 2, 1]  # what was cut off is not read
        assert (answer.headers["x-q3e-truncated"], answer.json()["truncated"]) == ("1", [1])
        refused = asked(http, path, documents=documents, truncate=False)
        assert refused.status_code == 400
        assert "text 1: has 203 tokens" in refused.text
    by_field = asked(http, documents=["red", "xxred"], max_tokens_per_doc=3)
    assert (by_field.headers["x-q3e-truncated"], list(scores(by_field))) == ("1", [0, 1])


@pytest.mark.parametrize(
    "fields",
    [
        {"query": None},
        {"query": 5},
        {"query": ""},
        {"query": " \n"},
        {"query": ["red"]},
        {"query": "x" * 100_001},
        {"query": "x" * 200},  # more than the model reads
        {"documents": None},
        {"documents": []},
        {"documents": "red"},
        {"documents": 123},
        {"documents": [1, 2, 3]},
        {"documents": ["red", None]},
        {"documents": ["red", {"title": "x"}]},
        {"documents": ["red", {"text": 5}]},
        {"documents": ["red"] * 51},
        {"rank_fields": []},
        {"rank_fields": [5]},
        {"instruction": " "},
        {"instruction": "a", "instruct": "b"},
        {"instruction": "a", "task": "code"},
        {"task": "cooking"},
        {"truncate_prompt_tokens": 0},
        {"truncate_prompt_tokens": -2},
        {"truncation_side": "left"},
        {"max_tokens_per_doc": 0},
        {"return_documents": "yes"},
        {"raw_scores": 1},
        {"model": 5},
    ],
)
def test_what_is_refused(http: httpx.Client, fields: dict[str, Any]) -> None:
    for path in JINAS:
        answer = asked(http, path, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (400, 400, "invalid_request_error")
        assert next(iter(fields)) in error["message"]
    coheres = asked(http, "/v2/rerank", **fields)
    assert (coheres.status_code, list(coheres.json())) == (400, ["id", "message"])
    assert coheres.json()["message"] == error["message"]


@pytest.mark.parametrize("size", [1, 10_000])  # the second is counted before it is parsed
def test_the_limit_of_items(http: httpx.Client, size: int) -> None:
    said = "has 51 items, the limit of this server is 50"
    for path in (*PATHS, "/api/rerank"):
        answer = asked(http, path, documents=["x" * size] * 51)
        assert (answer.status_code, f"documents {said}" in answer.text) == (400, True)
        assert asked(http, path, documents=["x" * size] * 50).status_code == 200
    answer = tei(http, texts=["x" * size] * 51)
    assert (answer.status_code, f"texts {said}" in answer.text) == (422, True)
    answer = http.post("/score", json={"model": "judge", "text_1": "a", "text_2": ["x" * size] * 51})
    assert (answer.status_code, f"text_2 {said}" in answer.text) == (400, True)


def test_the_errors_of_each_shape(http: httpx.Client, fake: FakeService) -> None:
    def answers() -> list[tuple[int, dict[str, Any]]]:
        texts = {"model": "judge", "query": QUERY, "texts": ["x"]}
        found = [asked(http), asked(http, "/v2/rerank"), http.post("/rerank", json=texts)]
        return [(answer.status_code, answer.json()) for answer in found]

    fake.fail = QueueFullError("full", 3)
    jinas, coheres, teis = answers()
    assert jinas == (429, {"error": {"code": 429, "message": "full", "type": "unavailable_error"}})
    assert (coheres[0], coheres[1]["message"]) == (429, "full")
    assert teis == (429, {"error": "full", "error_type": "Overloaded"})
    assert asked(http).headers["retry-after"] == asked(http, "/v2/rerank").headers["retry-after"] == "3"
    fake.fail = RuntimeError("a bug with a /secret/path")
    assert [status for status, _ in answers()] == [500, 500, 500]
    assert "secret" not in str(answers())
    fake.fail = None
    for path in PATHS:
        assert asked(http, path, model="nope").status_code == 404
        assert asked(http, path, model="no such name").status_code == 404
        assert http.get(path).status_code == 405


def test_a_model_of_the_other_kind_is_one_clear_error(http: httpx.Client) -> None:
    said = "demo is an embedding model: it ranks nothing"
    for path in JINAS:
        answer = asked(http, path, model="demo")
        expected = {"error": {"code": 501, "message": said, "type": "not_supported_error"}}
        assert (answer.status_code, answer.json()) == (501, expected)
    answer = asked(http, "/v2/rerank", model="demo")
    assert (answer.status_code, answer.json()["message"]) == (400, said)
    answer = http.post("/rerank", json={"model": "demo", "query": QUERY, "texts": ["x"]})
    expected = {"error": f"model is not a re-ranker model: {said}", "error_type": "Backend"}
    assert (answer.status_code, answer.json()) == (424, expected)


EMBEDDING: dict[str, tuple[dict[str, Any], int]] = {
    "/v1/embeddings": ({"input": "a"}, 400),
    "/embeddings": ({"input": "a"}, 400),
    "/embedding": ({"content": "a"}, 400),
    "/api/embed": ({"input": "a"}, 400),
    "/api/embeddings": ({"prompt": "a"}, 400),
    "/embed": ({"inputs": "a"}, 424),
    "/": ({"inputs": "a"}, 424),
    "/similarity": ({"inputs": {"source_sentence": "a", "sentences": ["b"]}}, 424),
    "/q3e/embed": ({"texts": ["a"]}, 400),
}


@pytest.mark.parametrize("path", EMBEDDING)
def test_a_reranker_asked_to_embed(http: httpx.Client, path: str) -> None:
    body, status = EMBEDDING[path]
    answer = http.post(path, json={"model": "judge", **body})
    assert (answer.status_code, "judge is a reranker: it makes no vectors" in answer.text) == (status, True)
    if status == 424:
        assert answer.json()["error_type"] == "Backend"


# Text Embeddings Inference


def tei(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post(
        "/rerank", json={"model": "judge", "query": QUERY, "texts": ["green", "red red", "red"], **fields}
    )


def test_teis_bare_list(http: httpx.Client) -> None:
    answer = tei(http)
    assert [list(item) for item in answer.json()] == [["index", "score"]] * 3
    assert {item["index"]: item["score"] for item in answer.json()} == pytest.approx(SCORES)
    assert [item["index"] for item in answer.json()] == [1, 2, 0]
    assert answer.headers["x-q3e-texts"] == "3"
    with_text = tei(http, return_text=True).json()
    assert [item["text"] for item in with_text] == ["red red", "red", "green"]
    assert [item["score"] for item in tei(http, raw_scores=True).json()] == [1, 0, -1]
    for path in JINAS:
        assert http.post(path, json={"model": "judge", "query": "a", "texts": ["a"]}).json() == [
            {"index": 0, "score": 0.5}
        ]


def test_documents_go_before_texts(http: httpx.Client) -> None:
    assert list(
        scores(http.post("/rerank", json={"model": "judge", "query": "a", "documents": ["a"], "texts": ["b"]}))
    ) == [0]


def test_teis_truncation(http: httpx.Client) -> None:
    assert tei(http, texts=["x" * 200]).headers["x-q3e-truncated"] == "0"  # as /info says: auto_truncate
    refused = tei(http, texts=["x" * 200], truncate=False)
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    assert refused.json()["error"].startswith("Input validation error: text 0: has 200 tokens")


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"query": None}, 422, "Validation"),
        ({"query": 5}, 422, "Validation"),
        ({"query": ""}, 422, "Validation"),
        ({"texts": []}, 400, "Empty"),
        ({"texts": "red"}, 422, "Validation"),
        ({"texts": ["red", 5]}, 422, "Validation"),
        ({"texts": ["a"] * 51}, 422, "Validation"),
        ({"truncate": 1}, 422, "Validation"),
        ({"truncation_direction": "Left"}, 422, "Validation"),
        ({"raw_scores": "no"}, 422, "Validation"),
        ({"top_n": -1}, 422, "Validation"),
        ({"model": "nope"}, 404, "Validation"),
    ],
)
def test_what_tei_refuses(http: httpx.Client, fields: dict[str, Any], status: int, kind: str) -> None:
    answer = tei(http, **fields)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert list(answer.json()) == ["error", "error_type"]


# Clients that leave


@pytest.mark.parametrize("path", [*PATHS, "/api/rerank", "/score", "texts"])
def test_a_client_that_leaves_stops_the_work(address: str, fake: FakeService, path: str) -> None:
    body = {"model": "judge", "query": "q", "documents": ["wait"]}
    if path == "/score":
        body = {"model": "judge", "text_1": "q", "text_2": "wait"}
    elif path == "texts":
        path, body = "/rerank", {"model": "judge", "query": "q", "texts": ["wait"]}
    ask_and_leave(address, path, fake, body)
    assert fake.cancelled.wait(20)
