"""/api/map: points, clusters and their names are the library's; made once for a state of an index."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from command import demo, expected
from served_indexes import make
from servers import answers_by_schema, served_locally

from q3e_local import VectorIndex, jobs
from q3e_local.errors import MissingPackageError
from q3e_local.jobs.naming import key_words
from q3e_local.search.database import Database
from q3e_local.search.database.query_words import tokens
from q3e_local.search.database.records import Window
from q3e_local.server.local import maps

TEXTS = [
    *(f"The {tree} in the garden is {age} years old." for tree in ("oak", "elm", "lime") for age in (80, 120)),
    *(f"The train to {city} leaves at {hour} in the morning." for city in ("Lyon", "Rome") for hour in (6, 7, 8)),
    *(f"The bank lowers the interest on {what}." for what in ("loans", "savings", "bonds", "mortgages")),
]
NAMED = {f"t{number}": text for number, text in enumerate(TEXTS)}


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[tuple[Path, httpx.Client]]:
    """The path of an index of texts, and a client of its server."""
    path = make(tmp_path / "mine.q3e", NAMED)
    with served_locally(indexes=(str(path),), max_items=50) as client:
        yield path, client


def drawn(http: httpx.Client, **body: Any) -> dict[str, Any]:
    """The map once it is ready."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = http.post("/api/map", json=body)
        assert answer.status_code == 200, answer.text
        if answer.json()["status"] == "ready":
            return answer.json()
        time.sleep(0.02)
    raise AssertionError("the map took more than a minute")


def without_scikit_learn(*_: Any, **__: Any) -> None:
    raise MissingPackageError("clustering", "scikit-learn", "analysis")


def numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_a_map_of_an_index_is_the_librarys(mine: tuple[Path, httpx.Client]) -> None:
    found = drawn(mine[1])
    vectors = expected(TEXTS).vectors
    plot, parted = jobs.plot(vectors), jobs.cluster(vectors)
    assert (found["n"], found["all"], found["index"]) == (len(TEXTS), len(TEXTS), "mine")
    np.testing.assert_allclose(numbers(found["points"], "<u2").reshape(-1, 2) / 65535, plot.points, atol=1e-4)
    assert numbers(found["labels"], "<u2").tolist() == parted.labels.tolist()
    words = key_words(TEXTS, parted.labels.tolist(), tokens)
    assert [tuple(each["words"]) for each in found["clusters"]] == list(words)
    assert [(each["central"], each["size"]) for each in found["clusters"]] == [
        (group.rows[0], len(group.rows)) for group in parted.clusters
    ]
    assert (found["ids"], found["files"], set(numbers(found["file_of"], "<i4"))) == (list(NAMED), [], {-1})
    assert found["no_clusters"] is None


def test_a_map_is_made_once_for_a_state_of_the_index(
    mine: tuple[Path, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, http = mine
    made: list[int] = []
    plot = jobs.plot
    monkeypatch.setattr(jobs, "plot", lambda vectors: made.append(len(vectors)) or plot(vectors))
    assert drawn(http) == drawn(http) == http.post("/api/map", json={}).json()
    with VectorIndex(path, demo()) as index:
        index.add(["one more"], ["more"])
    assert drawn(http)["n"] == len(TEXTS) + 1
    assert made == [len(TEXTS), len(TEXTS) + 1]


def test_while_it_is_made_the_answer_says_how_far_it_is_and_searches_go_on(
    mine: tuple[Path, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, plot = threading.Event(), jobs.plot
    monkeypatch.setattr(jobs, "plot", lambda vectors: gate.wait(60) and plot(vectors))
    http = mine[1]
    working = http.post("/api/map", json={}).json()
    assert (working["status"], working["index"]) == ("working", "mine")
    assert set(working) == {"status", "index", "step", "done", "total"}
    assert http.post("/api/search", json={"query": TEXTS[0], "mode": "words"}).json()["hits"]
    gate.set()
    assert drawn(http)["status"] == "ready"


def test_of_a_large_index_passages_are_taken_evenly(
    mine: tuple[Path, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "POINTS_MAX", 5)
    found = drawn(mine[1])
    assert (found["n"], found["all"]) == (5, len(TEXTS))
    places = [int(name[1:]) for name in found["ids"]]
    gaps = np.diff(places)
    assert places[0] == 0
    assert gaps.max() - gaps.min() <= 1


def test_without_scikit_learn_there_are_no_clusters_and_the_answer_says_how_to_get_them(
    mine: tuple[Path, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "cluster", without_scikit_learn)
    found = drawn(mine[1])
    assert found["clusters"] == []
    assert "q3e-local[analysis]" in found["no_clusters"]


def test_a_server_that_starts_again_finds_clusters_that_were_not_to_be_had_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "mine.q3e", NAMED)
    with monkeypatch.context() as patch, served_locally(indexes=(str(path),)) as http:
        patch.setattr(jobs, "cluster", without_scikit_learn)
        assert drawn(http)["clusters"] == []
    with served_locally(indexes=(str(path),)) as http:
        found = drawn(http)
    assert found["clusters"] != []
    assert found["no_clusters"] is None


def refusal(http: httpx.Client) -> httpx.Response:
    """The first answer that does not say how far the map is."""
    while (answer := http.post("/api/map", json={})).json().get("status") == "working":
        time.sleep(0.02)
    return answer


def test_an_index_that_is_empty_when_it_is_read_gets_the_sentence_of_a_small_one(
    mine: tuple[Path, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes all passages away once they are counted, and brings them back once they are read."""
    path, http = mine
    entries, was_read = Database.entries, threading.Event()

    def emptied(database: Database, *sizes: int) -> Iterator[Window]:
        with VectorIndex(path, demo()) as index:
            index.delete(list(NAMED))
            found = list(entries(database, *sizes))
            index.add(list(NAMED.values()), list(NAMED))
        was_read.set()
        yield from found

    with monkeypatch.context() as patch:
        patch.setattr(Database, "entries", emptied)
        assert http.post("/api/map", json={}).json()["status"] == "working"
        assert was_read.wait(60)
        answer = refusal(http)
    assert answer.status_code == 400
    assert answer.json() == {"error": "a map needs 2 passages or more, the index has 0"}
    assert drawn(http)["n"] == len(TEXTS)


def test_an_index_whose_file_is_gone_when_it_is_read_is_named_without_its_path(
    mine: tuple[Path, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, http = mine
    opened = Database.open

    def gone(name: Path) -> Database:
        path.rename(path.with_suffix(".away"))
        try:
            return opened(name)
        finally:
            path.with_suffix(".away").rename(path)

    assert http.get("/api/indexes").json()["indexes"][0]["chunks"] == len(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(Database, "open", gone)
        answer = refusal(http)
    assert answer.status_code == 503
    assert answer.json() == {"error": "the index 'mine' cannot be searched: the server's log says why"}
    assert drawn(http)["n"] == len(TEXTS)


def test_what_goes_wrong_is_answered_once_and_the_next_call_tries_again(
    mine: tuple[Path, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room")

    http = mine[1]
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "plot", broken)
        until = time.monotonic() + 60
        while (answer := http.post("/api/map", json={})).status_code == 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert answer.status_code == 500
    assert drawn(http)["n"] == len(TEXTS)


def test_a_map_of_texts_needs_no_index(mine: tuple[Path, httpx.Client]) -> None:
    answer = mine[1].post("/api/map", json={"texts": TEXTS[:6], "model": "demo"})
    found = answer.json()
    points = jobs.plot(expected(TEXTS[:6]).vectors).points
    np.testing.assert_allclose(numbers(found["points"], "<u2").reshape(-1, 2) / 65535, points, atol=1e-4)
    assert answer.headers["x-q3e-texts"] == "6"
    assert "files" not in found


def test_maps_of_texts_are_made_one_after_the_other(
    mine: tuple[Path, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes all of a core and a thread of those that every request needs."""
    at_work: list[int] = []
    most: list[int] = []
    plot = jobs.plot

    def slow(vectors: Any) -> Any:
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.3)
        at_work.pop()
        return plot(vectors)

    body = {"texts": TEXTS[:3], "model": "demo"}
    assert mine[1].post("/api/map", json=body).status_code == 200  # loads the model
    monkeypatch.setattr(jobs, "plot", slow)
    for _ in range(2):
        with suppress(httpx.ReadTimeout):  # a client that does not wait
            mine[1].post("/api/map", json=body, timeout=0.15)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: mine[1].post("/api/map", json=body).status_code, range(2)))
    assert answers == [200] * 2
    assert set(most) == {1}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"texts": ["a"], "model": "demo"}, 400, "texts must be a list of 2 texts or more, got a list of 1"),
        ({"texts": ["a", 1], "model": "demo"}, 400, "texts must be texts, got 1"),
        ({"texts": ["a"] * 51, "model": "demo"}, 400, "texts has 51 items, the limit of this server is 50"),
        ({"texts": ["a", "b"], "model": "nope"}, 404, "nope"),
        ({"index": "../mine"}, 404, "there is no index '../mine' here"),
    ],
)
def test_a_wrong_request_gets_a_sentence(mine: tuple[Path, httpx.Client], body: Any, status: int, said: str) -> None:
    answer = mine[1].post("/api/map", content=json.dumps(body))
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert said in answer.json()["error"]


def test_one_passage_makes_no_map(tmp_path: Path) -> None:
    with served_locally(indexes=(str(make(tmp_path / "one.q3e", {"a": "the oak"})),)) as http:
        answer = http.post("/api/map", json={})
    assert (answer.status_code, answer.json()["error"]) == (400, "a map needs 2 passages or more, the index has 1")


def test_no_request_of_the_schema_fails_in_the_server(mine: tuple[Path, httpx.Client]) -> None:
    for path in ("/api/map", "/api/passages", "/q3e/seen"):
        for answer in answers_by_schema(mine[1], n_examples=25, only=path):
            assert answer.status_code in (200, 400, 404), answer.text
