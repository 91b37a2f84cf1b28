"""Faults while a real server ranks with a tiny reranker: a killed worker, clients that leave, many clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import rerankers
from fake_service import served
from server_process import in_background, workers_of
from waiting import until

from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

NAME = "tiny-reranker"
QUERY = "What is it about?"
DOCUMENTS = [f"document {number} is about the number {number * 7}" for number in range(150)]


class Site:
    """A server on the real service, which can be looked into."""

    def __init__(self, service: LocalService, client: httpx.Client) -> None:
        self.service, self.client = service, client

    def count(self, name: str) -> float:
        return self.service.counters()[name]

    def logits(self, documents: list[str]) -> dict[int, float]:
        body = {"model": NAME, "query": QUERY, "documents": documents, "raw_scores": True}
        answer = self.client.post("/v1/rerank", json=body)
        assert answer.status_code == 200, answer.text
        return {each["index"]: each["relevance_score"] for each in answer.json()["results"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    path = rerankers.note_proved(rerankers.write(tmp_path_factory.mktemp("rerankers") / f"{NAME}.gguf", "cls"))
    settings: dict[str, Any] = {"models": (str(path),)}
    service = LocalService(ServerSettings(**settings))
    with served(service, **settings) as client:
        yield Site(service, client)


def expected(document: str, query: str = QUERY) -> float:
    """The reference's logit."""
    return rerankers.logit("cls", rerankers.ids(query, document))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_worker_killed_while_it_ranks_costs_no_document(site: Site) -> None:
    site.logits(["loaded now"])
    n_batches, n_deaths = site.count("n_batches"), site.count("n_worker_deaths")
    ranking = in_background(site.logits, DOCUMENTS)
    until(lambda: site.count("n_batches") > n_batches)
    (worker,) = workers_of(os.getpid())
    assert not ranking.done()
    worker.kill()
    found = ranking.result(60)
    assert site.count("n_worker_deaths") == n_deaths + 1
    assert sorted(found) == list(range(len(DOCUMENTS)))
    for place in range(0, len(DOCUMENTS), 15):
        assert found[place] == pytest.approx(expected(DOCUMENTS[place]), abs=1e-3)
    assert not psutil.pid_exists(worker.pid)


def test_a_client_that_leaves_stops_the_work_on_its_remaining_documents(site: Site) -> None:
    site.logits(["loaded now"])
    n_batches, n_texts = site.count("n_batches"), site.count("n_computed_texts")
    connection = http.client.HTTPConnection(urlsplit(str(site.client.base_url)).netloc, timeout=60)
    body = {"model": NAME, "query": "Who left?", "documents": [f"{number} {'word ' * 40}" for number in range(400)]}
    connection.request("POST", "/v1/rerank", json.dumps(body))
    until(lambda: site.count("n_batches") > n_batches and site.count("n_queued") > 0)
    connection.close()
    until(lambda: site.count("n_queued") == 0)
    assert site.count("n_computed_texts") - n_texts < 300
    # Others have their turn at once.
    assert site.logits(["who stayed"])[0] == pytest.approx(expected("who stayed"), abs=1e-3)


def test_two_hundred_clients_at_once_get_each_their_own_scores(site: Site) -> None:
    n_clients = 200
    queries = [f"question {number % 4}" for number in range(n_clients)]
    documents = [[f"answer {number}", f"about {number * 3}"] for number in range(n_clients)]
    base = str(site.client.base_url)

    async def ask(client: httpx.AsyncClient, number: int) -> list[float]:
        body = {"model": NAME, "query": queries[number], "documents": documents[number], "raw_scores": True}
        answer = await client.post("/rerank", json=body)
        assert answer.status_code == 200, answer.text
        results = sorted(answer.json()["results"], key=lambda each: each["index"])
        return [each["relevance_score"] for each in results]

    async def all_of_them() -> list[list[float]]:
        limits = httpx.Limits(max_connections=n_clients)
        async with httpx.AsyncClient(base_url=base, timeout=120, limits=limits, trust_env=False) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(n_clients)))

    found = asyncio.run(all_of_them())
    for number in range(0, n_clients, 20):
        references = [expected(document, queries[number]) for document in documents[number]]
        assert found[number] == pytest.approx(references, abs=1e-3)
    assert len({round(logit, 5) for of_client in found for logit in of_client}) > n_clients  # they differ
