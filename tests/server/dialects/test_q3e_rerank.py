"""/api/search with two stages: what the service is asked to read, and the order of the hits.

The reranker is a fake: "!" in a document speaks for it, "?" against it, and each document takes it a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from fake_reranker import logit
from fake_service import FakeService, served
from made_indexes import record
from served_indexes import search
from servers import answers_by_schema

from q3e_local import VectorIndex
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.reranking.reranker import probability
from q3e_local.search.database.records import Chunk
from q3e_local.server.errors import QueueFullError
from q3e_local.server.service import RankResult, RankServiceRequest
from q3e_local.vectors import finish

TEXTS = {"a": "budget one??", "b": "budget two!", "c": "budget three?", "d": "budget four!!"}
BY_EYE = ["d", "b", "c", "a"]


class RankingService(FakeService):
    """`clock` goes on by a second for each document, and by a minute while the reranker is loaded, once."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.ranked, self.is_loaded = 100.0, [], False
        self.ranked: list[RankServiceRequest] = []

    async def check(self, model: str, kind: ModelKind) -> None:
        """Any name is a reranker's here."""

    async def rank(self, request: RankServiceRequest) -> RankResult:
        if self.fail is not None:
            raise self.fail
        self.ranked.append(request)
        load_s = 0.0 if self.is_loaded else 60.0
        self.is_loaded = True
        n = len(request.documents)
        self.clock += load_s + n
        logits = tuple(float(logit(document)) for document in request.documents)
        return RankResult(logits, (9,) * n, (False,) * n, "full-name-reranker", load_s)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> RankingService:
    service = RankingService()
    clock = SimpleNamespace(monotonic=lambda: service.clock, perf_counter=lambda: service.clock)
    monkeypatch.setattr("q3e_local.server.local.index_search.time", clock)
    return service


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`notes`, whose vectors no model made: it is searched by words. `long` has texts that are read one by one."""
    folder = tmp_path_factory.mktemp("two-stages")
    for name, more in {"notes": "", "long": " x" * 600}.items():
        with VectorIndex(folder / f"{name}.q3e", dim=32) as index:
            index.add_vectors([text + more for text in TEXTS.values()], np.eye(4, 32), list(TEXTS))
    with VectorIndex(folder / "file.q3e", dim=32) as index:
        chunk = Chunk("budget of it", headings=("Money", "Plan"))
        index.database.replace_file(record("a.md"), [chunk], finish(np.ones((1, 32), np.float32)))
    return folder


@pytest.fixture
def http(service: RankingService, indexed: Path) -> Iterator[httpx.Client]:
    indexes = tuple(str(indexed / f"{name}.q3e") for name in ("notes", "long", "file"))
    with served(service, indexes=indexes, models=("demo", "demo-reranker")) as client:
        yield client


def ids(found: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in found["hits"]]


def test_without_it_nothing_is_read(http: httpx.Client, service: RankingService) -> None:
    for fields in ({}, {"rerank": False}, {"rerank": None}):
        found = search(http, "budget", **fields)
        assert found["reranker"] is None
        assert {(hit["rerank"], hit["rank_before"]) for hit in found["hits"]} == {(None, None)}
    assert service.ranked == []


def test_the_first_hits_are_read_and_ordered(http: httpx.Client, service: RankingService) -> None:
    before = ids(search(http, "budget"))
    found = search(http, "budget", rerank=True)
    assert ids(found) == BY_EYE != before
    assert found["reranker"] == "full-name-reranker"
    for hit in found["hits"]:
        assert hit["rank_before"] == before.index(hit["id"]) + 1
        assert hit["rerank"] == pytest.approx(probability(logit(TEXTS[hit["id"]])))
    assert "second stage: full-name-reranker read 4 of 4 candidates" in found["explained"]
    assert ids(search(http, "budget", rerank=True, k=1)) == ["d"]
    hits = search(http, "budget", rerank=2)["hits"]
    assert [hit["id"] for hit in hits] == [*sorted(before[:2], key=BY_EYE.index), *before[2:]]
    assert [hit["rerank"] is None for hit in hits] == [False, False, True, True]


def test_the_request_reaches_the_reranker(http: httpx.Client, service: RankingService) -> None:
    search(http, "budget", rerank=1, reranker="mine", instruction="Find it", keep_alive="5m")
    search(http, "budget", "file", rerank=True, task="code")
    named, at_the_start = service.ranked
    assert (named.model, named.query, named.instruction, named.keep_alive_s) == ("mine", "budget", "Find it", 300)
    assert len(named.documents) == 1
    assert (at_the_start.model, at_the_start.task) == ("demo-reranker", "code")
    assert at_the_start.documents == ("Money > Plan\nbudget of it",)


def test_a_server_without_a_reranker_of_its_own_asks_for_a_name(service: RankingService, indexed: Path) -> None:
    """As the routes that rank do: the demo's reranker answers by its name only."""
    with served(service, indexes=(str(indexed / "notes.q3e"),)) as http:
        answer = http.post("/api/search", json={"query": "budget", "rerank": True})
        assert answer.status_code == 404
        assert "the request names no reranker" in answer.json()["error"]
        assert ": name one of demo-reranker; or bring qwen3-reranker:0.6b here" in answer.json()["error"]
        assert ids(search(http, "budget", rerank=True, reranker="demo-reranker")) == BY_EYE


def test_candidates_are_read_until_the_time_is_up(http: httpx.Client, service: RankingService) -> None:
    """Loading takes a minute, which does not count."""
    before = ids(search(http, "budget", "long"))
    found = search(http, "budget", "long", rerank=True, rerank_seconds=1.5)
    assert [request.documents[0][:12].strip() for request in service.ranked] == [
        TEXTS[name][:12] for name in before[:2]
    ]
    assert ids(found) == [*sorted(before[:2], key=BY_EYE.index), *before[2:]]
    assert "second stage: full-name-reranker read 2 of 4 candidates until the time was up" in found["explained"]
    assert ids(search(http, "budget", "long", rerank=True, rerank_seconds=60)) == BY_EYE


def test_a_model_that_is_to_go_stays_until_all_is_read(http: httpx.Client, service: RankingService) -> None:
    search(http, "budget", "long", rerank=True, rerank_seconds=60, keep_alive=0, reranker="mine")
    assert [request.keep_alive_s for request in service.ranked] == [None] * 4
    assert service.unloaded == ["mine"]


def test_an_error_of_the_reranker_is_the_answer(http: httpx.Client, service: RankingService) -> None:
    service.fail = QueueFullError("too much waits", 3)
    refused = http.post("/api/search", json={"query": "budget", "index": "notes", "rerank": True})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "3")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rerank": 0}, "rerank must be true or between 1 and 100, got 0"),
        ({"rerank": 101}, "rerank must be true or between 1 and 100, got 101"),
        ({"rerank": 2.0}, "rerank must be true or between 1 and 100, got 2.0"),
        ({"rerank": "yes"}, "rerank must be true or between 1 and 100, got 'yes'"),
        ({"rerank": [1] * 500}, "rerank must be true or between 1 and 100, got a list of 500"),
        ({"rerank": True, "reranker": 1}, "reranker must be a text, got 1"),
        ({"rerank": True, "rerank_seconds": 0}, "rerank_seconds must be a number above 0, got 0"),
        ({"rerank": True, "rerank_seconds": "1"}, "rerank_seconds must be a number above 0, got '1'"),
        ({"rerank_seconds": 1}, "rerank_seconds is for a search with rerank; give rerank too"),
        ({"rerank": False, "reranker": "mine"}, "reranker is for a search with rerank; give rerank too"),
    ],
)
def test_a_wrong_request_gets_a_sentence(http: httpx.Client, service: RankingService, fields, said: str) -> None:
    answer = http.post("/api/search", json={"query": "budget", "index": "notes", **fields})
    assert (answer.status_code, answer.json()) == (400, {"error": said})
    assert service.ranked == []


def test_no_request_of_the_schema_fails_in_the_server(http: httpx.Client) -> None:
    for answer in answers_by_schema(http, n_examples=60, only="/api/search"):
        assert answer.status_code in (200, 400, 404), answer.text
