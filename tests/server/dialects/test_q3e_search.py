"""/api/search on the wire: the hits are those of NumPy and of the command, and a wrong request gets a sentence."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from alike import assert_alike
from command import demo, expected, run
from fake_service import FakeService, served
from served_indexes import NOTES, search
from servers import answers_by_schema, served_locally

from q3e_local import VectorIndex
from q3e_local.search.database.records import Chunk
from q3e_local.server.errors import QueueFullError


@pytest.fixture(scope="module")
def http(folder: Path) -> Iterator[httpx.Client]:
    with served_locally(indexes=tuple(str(folder / f"{name}.q3e") for name in ("notes", "files", "own"))) as client:
        yield client


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("instruction", [None, "Find the sum"])
def test_hits_are_those_of_numpy(http: httpx.Client, exact: bool, instruction: str | None) -> None:
    query = "the budget of the kitchen"
    documents = expected(NOTES.values(), dim=64).vectors
    scores = documents @ expected([query], kind="query", dim=64, instruction=instruction).vectors[0]
    order = np.argsort(-scores)[:3]
    found = search(http, query, k=3, mode="vectors", exact=exact, instruction=instruction)
    assert [hit["id"] for hit in found["hits"]] == [list(NOTES)[place] for place in order]
    np.testing.assert_allclose([hit["score"] for hit in found["hits"]], scores[order], atol=1e-6)
    assert [hit["text"] for hit in found["hits"]] == [list(NOTES.values())[place] for place in order]
    assert (found["index"], found["model"], found["mode"]) == ("notes", "demo", "vectors")
    assert found["space"] == expected(["a"], dim=64).space


@pytest.mark.parametrize("mode", ["auto", "hybrid", "vectors", "words"])
def test_hits_are_those_of_the_command(http: httpx.Client, folder: Path, mode: str) -> None:
    flag = {"auto": [], "hybrid": ["--hybrid"], "vectors": ["--vector-only"], "words": ["--words-only"]}[mode]
    said = run("search", "the oak", "--db", folder / "files.q3e", "--json", "-q", *flag).stdout
    wanted = [json.loads(line) for line in said.splitlines()]
    for hit in wanted:
        del hit["best"]  # the server does not look for the best sentence
    hits = search(http, "the oak", "files", mode=mode)["hits"]
    assert [hit.pop("cut") for hit in hits] == [False] * len(hits)
    for hit in wanted + hits:
        hit["score"] = None if hit["score"] is None else pytest.approx(hit["score"], abs=1e-6)
    assert hits == wanted
    assert {(hit["line"], *hit["headings"]) for hit in hits} >= {(7, "Trees"), (1,)}
    assert all(Path(hit["file"]).is_file() for hit in hits)


def test_an_answer_has_the_headers_of_an_embedding(http: httpx.Client) -> None:
    body = {"query": "oak", "index": "notes"}
    headers = http.post("/api/search", json={**body, "mode": "vectors"}).headers
    n_tokens = expected(["oak"], kind="query").prompt_tokens[0]
    assert (headers["x-q3e-texts"], headers["x-q3e-prompt-tokens"]) == ("1", str(n_tokens))
    assert headers["x-q3e-space"].endswith("-64-plain")
    assert "x-q3e-texts" not in http.post("/api/search", json={**body, "mode": "words"}).headers


def test_a_model_that_is_to_go_goes_after_the_best_sentences(http: httpx.Client) -> None:
    http.post("/api/generate", json={"model": "demo", "keep_alive": 0})
    before = loads(http)
    found = search(http, "a tree of great age", mode="vectors", best=True, keep_alive=0)
    assert any(hit["best"] for hit in found["hits"])
    assert http.get("/api/ps").json()["models"] == []
    assert loads(http) == before + 1  # once for the question and the sentences


def test_a_search_by_words_lets_no_model_go(http: httpx.Client) -> None:
    search(http, "oak", mode="vectors")
    search(http, "oak", mode="words", best=True, keep_alive=0)
    assert [model["name"] for model in http.get("/api/ps").json()["models"]] == ["demo:latest"]


def loads(http: httpx.Client) -> int:
    return int(re.search(r"^q3e_model_loads_total (\d+)", http.get("/metrics").text, re.MULTILINE)[1])


def test_a_reranker_that_is_not_here_is_found_before_a_model_is_loaded(http: httpx.Client) -> None:
    http.post("/api/generate", json={"model": "demo", "keep_alive": 0})
    before = loads(http)
    for reranker, status, said in (
        ("qwen3-reranker:0.6b", 404, "qwen3-reranker:0.6b is not on this machine"),
        ("nope", 404, "there is no model 'nope' here"),
        ("demo", 400, "demo is an embedding model"),
    ):
        body = {"query": "oak", "index": "notes", "mode": "vectors", "rerank": True, "reranker": reranker}
        answer = http.post("/api/search", json=body)
        assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert loads(http) == before


def test_a_hit_too_long_to_be_counted_does_not_fail_the_search(tmp_path: Path) -> None:
    """A text that a program has added and cut may have any length; the search of its best sentence leaves it out."""
    with VectorIndex(tmp_path / "long.q3e", demo(), 64) as index:
        texts = ["The oak is old. It stays.", "x" * 500_000]
        vectors = expected(["The oak is old.", "x"], dim=64).vectors  # in place of a cut text's, which take long
        index.database.put(["oak", "long"], [Chunk(text, 0, len(text)) for text in texts], vectors)
    with served_locally(indexes=(str(tmp_path / "long.q3e"),)) as http:
        hits = search(http, "a tree of great age", "long", mode="vectors", best=True)["hits"]
    best = {hit["id"]: hit["best"] for hit in hits}
    assert best["long"] is None
    assert best["oak"] is not None


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({"path": "minutes/**"}, ["minutes/a.md#1"]),
        ({"path": "*.txt"}, ["b.txt#0"]),
        ({"path": "*.pdf"}, []),
        ({"since": "2000-01-01"}, ["b.txt#0", "minutes/a.md#1"]),
        ({"since": "1h"}, ["b.txt#0", "minutes/a.md#1"]),
        ({"since": "9999-12-30"}, []),
        ({"k": 1}, 1),
        ({"path": None, "since": None}, ["b.txt#0", "minutes/a.md#1"]),
    ],
)
def test_filters_and_limits(http: httpx.Client, folder: Path, fields: dict[str, Any], ids: Any) -> None:
    hits = search(http, "oak", "files", mode="words", **fields)["hits"]
    found = sorted(Path(hit["id"]).relative_to(folder / "files").as_posix() for hit in hits)
    assert (len(found) if isinstance(ids, int) else found) == ids


def test_passages_can_be_left_out(http: httpx.Client) -> None:
    with_text, without = (search(http, "oak", text=text)["hits"] for text in (True, False))
    # The second question finds its instruction computed: its last digits are others.
    scores = [[hit.pop("score") for hit in hits] for hits in (with_text, without)]
    assert_alike(*scores)
    assert [{**hit, "text": None, "cut": None} for hit in with_text] == [
        {**hit, "text": None, "cut": None} for hit in without
    ]
    assert all("text" not in hit and "cut" not in hit for hit in without)


def test_a_search_by_words_needs_no_model_and_has_no_score(folder: Path) -> None:
    service = FakeService()
    service.fail = QueueFullError("too much waits", 3)
    with served(service, indexes=(str(folder / "notes.q3e"),)) as http:
        (hit,) = search(http, "花园的预算", None, mode="words")["hits"]
        assert (hit["id"], hit["score"], hit["words_rank"], hit["vectors_rank"]) == ("chinese", None, 1, None)
        refused = http.post("/api/search", json={"query": "a"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "3")
        assert refused.json()["error"].startswith("server busy, please try again.")


def test_vectors_of_no_model_are_searched_by_their_words(http: httpx.Client) -> None:
    found = search(http, "what is in the oak?", "own")
    assert [hit["id"] for hit in found["hits"]] == ["bird"]
    assert (found["mode"], found["model"], found["space"]) == ("words", None, None)


WRONG: list[tuple[Any, int, str]] = [
    ({}, 400, "query is required, a text"),
    ({"query": None}, 400, "query is required, a text"),
    ({"query": " \n"}, 400, "query is required, a text"),
    ({"query": ["a"]}, 400, "query must be a text, got a list of 1"),
    ({"query": "a" * 20_001}, 400, "query has 20001 characters, the limit is 20000"),
    ({"query": "a", "index": "nope"}, 404, "there is no index 'nope' here; there are notes, files, own"),
    ({"query": "a", "index": "../notes"}, 404, "there is no index '../notes' here"),
    ({"query": "a", "index": "notes.q3e"}, 404, "there is no index 'notes.q3e' here"),
    ({"query": "a", "index": "'; DROP TABLE chunks; --"}, 404, "there is no index"),
    ({"query": "a", "index": None}, 400, "index is required: there are notes, files, own"),
    ({"query": "a", "k": 101}, 400, "k must be between 1 and 100, got 101"),
    ({"query": "a", "k": 2.0}, 400, "k must be a whole number, got 2.0"),
    ({"query": "a", "mode": "fuzzy"}, 400, "Supported values: ['auto', 'hybrid', 'vectors', 'words']"),
    ({"query": "a", "exact": "yes"}, 400, "exact must be true or false, got 'yes'"),
    ({"query": "a", "text": 1}, 400, "text must be true or false, got 1"),
    ({"query": "a", "path": 1}, 400, "path must be a text, got 1"),
    ({"query": "a", "path": ""}, 400, "the path '' names nothing"),
    ({"query": "a", "path": "[z-a]"}, 400, "the path '[z-a]' has a range that ends before it begins"),
    ({"query": "a", "path": "*" * 1001}, 400, "path has 1001 characters, the limit is 1000"),
    ({"query": "a", "since": "soon"}, 400, "since: 'soon' is no date; give one such as 2026-11-01"),
    ({"query": "a", "since": "999999y"}, 400, "since: '999999y' is no date"),
    ({"query": "a", "since": 1e9}, 400, "since must be a text, got 1000000000.0"),
    ({"query": "a", "task": "cooking", "mode": "words"}, 400, "unknown task 'cooking'; choose from retrieval"),
    ({"query": "a", "task": "code", "instruction": "b"}, 400, "give task 'code' or an instruction, not both"),
    ({"query": "a", "instruction": " "}, 400, "the instruction is empty"),
    ({"query": "a", "keep_alive": "soon"}, 400, "keep_alive must be seconds or a duration"),
    ({"query": "a", "index": "own", "mode": "vectors"}, 400, "of no model known here; search it with mode words"),
    (b'{"query": "\\ud800"}', 400, "the body is not JSON"),
]


@pytest.mark.parametrize(("body", "status", "said"), WRONG)
def test_a_wrong_request_gets_a_sentence(http: httpx.Client, body: Any, status: int, said: str) -> None:
    if isinstance(body, dict) and "index" not in body:
        body = {"index": "notes", **body}
    answer = http.post("/api/search", content=body if isinstance(body, bytes) else json.dumps(body))
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    "query",
    [
        "oak'; DROP TABLE chunks; --",
        '") OR 1=1 --',
        'oak" NEAR/3 "*',
        "NOT AND OR",
        "text:oak^2",
        "a\0b",
        "(((((",
        "budget " * 1_400,
        "预算" * 5_000,
        "".join(map(chr, range(0x4E00, 0x4E00 + 10_000))),
        "\u202e\u200b🙂",
    ],
)
def test_no_query_breaks_anything(http: httpx.Client, folder: Path, query: str) -> None:
    for mode in ("words", "hybrid") if len(query) < 10_000 or query.isascii() else ("words",):
        assert len(search(http, query, mode=mode)["hits"]) <= len(NOTES)
    with sqlite3.connect(folder / "notes.q3e") as connection:
        assert connection.execute("SELECT count(*) FROM chunks").fetchone() == (len(NOTES),)
    connection.close()


def test_a_query_above_the_context_names_its_tokens_and_the_limit(http: httpx.Client) -> None:
    answer = http.post("/api/search", json={"query": "¿" * 19_999, "index": "notes"})
    assert answer.status_code == 400
    n_tokens, limit = re.fullmatch(
        r"query has (?:more than )?(\d+) tokens, the limit is (\d+); .*", answer.json()["error"]
    ).groups()
    assert int(n_tokens) >= int(limit) == demo().engine.n_ctx_max
    search(http, "¿" * 19_999, mode="words")


def test_a_server_without_an_index_says_how_to_start_one() -> None:
    with served(FakeService()) as bare:
        answer = bare.post("/api/search", json={"query": "a"})
        error = "this server has no index; start it with one: q3e-local serve --index NAME"
        assert (answer.status_code, answer.json()) == (404, {"error": error})
        assert bare.get("/api/indexes").json() == {"indexes": []}
        assert "/api/search" not in bare.get("/openapi.json").json()["paths"]


def test_the_indexes_are_listed(http: httpx.Client) -> None:
    found = http.get("/api/indexes").json()["indexes"]
    facts = [[index[name] for name in ("name", "model", "dim", "files", "chunks")] for index in found]
    assert facts == [["notes", "demo", 64, 0, 4], ["files", "demo", 256, 2, 3], ["own", None, 32, 0, 1]]


def test_an_unknown_field_is_named_in_the_log(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    search(http, "oak", mode="words", top_k=3)
    assert "/api/search has no field top_k, and ignores it; it has query, index, k, mode" in caplog.text


def test_no_request_of_the_schema_fails_in_the_server(http: httpx.Client) -> None:
    for answer in answers_by_schema(http, n_examples=60, only="/api/search"):
        assert answer.status_code in (200, 400, 404), answer.text
