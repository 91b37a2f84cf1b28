"""/api/passages: passages by their ids and with their neighbours, from the index alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command import demo, run, write
from servers import served_locally

from q3e_local import VectorIndex
from q3e_local.search.database.records import Chunk

PARTS = [f"Part {number} is about {what}." for number, what in enumerate(["oaks", "elms", "limes", "pines", "firs"])]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of five chapters, each a passage, and another file; the files are gone once they are indexed."""
    folder = tmp_path_factory.mktemp("book")
    chapters = "".join(f"# Chapter {number}\n\n{text}\n\n" for number, text in enumerate(PARTS))
    write(folder / "texts", {"book.md": chapters, "other.txt": "Something else."})
    assert run("index", folder / "texts", "--db", folder / "book.q3e", "-m", "demo", "-q").exit_code == 0
    for path in (folder / "texts").iterdir():
        path.unlink()
    return folder / "book.q3e"


@pytest.fixture(scope="module")
def http(book: Path) -> Iterator[httpx.Client]:
    with served_locally(indexes=(str(book),)) as client:
        yield client


def ids(book: Path) -> list[str]:
    with sqlite3.connect(book) as connection:
        found = [name for (name,) in connection.execute("SELECT name FROM chunks WHERE name LIKE '%book.md#%'")]
    connection.close()
    return sorted(found)


def passages(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/api/passages", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_passages_come_in_the_order_of_their_ids_without_those_that_are_gone(http: httpx.Client, book: Path) -> None:
    all_ids = ids(book)
    assert len(all_ids) == len(PARTS)
    wanted = [all_ids[3], "gone.md#0", all_ids[1]]
    found = passages(http, ids=wanted)
    assert [each["id"] for each in found["passages"]] == [all_ids[3], all_ids[1]]
    assert [each["text"] for each in found["passages"]] == [PARTS[3], PARTS[1]]
    assert found["passages"][0]["headings"] == ["Chapter 3"]
    assert found["passages"][0]["line"] == 15
    assert "first" not in found


@pytest.mark.parametrize(
    ("place", "around", "first", "texts"),
    [(2, 1, 2, PARTS[1:4]), (0, 2, 1, PARTS[:3]), (4, 50, 1, PARTS), (3, 1, 3, PARTS[2:])],
)
def test_a_passage_comes_with_those_around_it_in_its_file(
    http: httpx.Client, book: Path, place: int, around: int, first: int, texts: list[str]
) -> None:
    found = passages(http, ids=[ids(book)[place]], around=around)
    assert [each["text"] for each in found["passages"]] == texts
    assert (found["first"], found["of"]) == (first, len(PARTS))


def test_a_passage_that_is_gone_has_nothing_around_it(http: httpx.Client) -> None:
    assert passages(http, ids=["gone.md#0"], around=1)["passages"] == []


def test_of_a_very_long_text_an_answer_has_the_beginning_and_says_so(tmp_path: Path) -> None:
    """A text that a program has added and cut may have any length; two hundred of them would fill the memory."""
    with VectorIndex(tmp_path / "long.q3e", demo(), 64) as index:
        texts = ["oak " * 5_000, "oak " * 5_000 + "!", "The elm is last. " * 2_000 + "The oak stays."]
        vectors = demo().embed_documents(["oak", "oak", "elm"], dim=64).vectors  # in place of the long texts'
        index.database.put(["fits", "long", "behind"], [Chunk(text, 0, len(text)) for text in texts], vectors)
    with served_locally(indexes=(str(tmp_path / "long.q3e"),)) as http:
        found = {each["id"]: each for each in passages(http, ids=["fits", "long", "behind"])["passages"]}
        body = {"query": "oak", "mode": "words", "best": True}
        hits = {each["id"]: each for each in http.post("/api/search", json=body).json()["hits"]}
    for answer in (found, hits):
        assert {name: (len(each["text"]), each["cut"]) for name, each in answer.items()} == {
            "fits": (20_000, False), "long": (20_000, True), "behind": (20_000, True),
        }  # fmt: skip
    for hit in hits.values():  # the sentence to mark lies in what is answered
        assert hit["best"] is None or hit["best"]["end"] <= 20_000


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "ids must be a list of 1 to 200 ids"),
        ({"ids": []}, 400, "ids must be a list of 1 to 200 ids"),
        ({"ids": ["a"] * 201}, 400, "ids must be a list of 1 to 200 ids, got a list of 201"),
        ({"ids": [1]}, 400, "ids must be texts, got 1"),
        ({"ids": ["a", "b"], "around": 1}, 400, "around is for one id, got 2"),
        ({"ids": ["a"], "around": 51}, 400, "around must be between 0 and 50, got 51"),
        ({"ids": ["a"], "index": "../book"}, 404, "there is no index '../book' here"),
    ],
)
def test_a_wrong_request_gets_a_sentence(http: httpx.Client, body: Any, status: int, said: str) -> None:
    answer = http.post("/api/passages", content=json.dumps(body))
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert said in answer.json()["error"]


def test_no_path_is_read(http: httpx.Client, book: Path) -> None:
    assert passages(http, ids=[str(book), "/etc/passwd", str(book.parent / "texts" / "book.md")])["passages"] == []


def test_the_best_sentence_is_that_of_the_words(http: httpx.Client) -> None:
    body = {"query": "what is about elms", "mode": "words", "best": True, "k": 1}
    (hit,) = http.post("/api/search", json=body).json()["hits"]
    assert hit["text"][hit["best"]["start"] : hit["best"]["end"]] == PARTS[1]


def test_without_a_word_in_common_the_best_sentence_is_the_nearest(tmp_path: Path) -> None:
    sentences = ["The weather is cold in winter.", "He drives his car to work.", "She bakes bread every morning."]
    write(tmp_path / "texts", {"a.txt": " ".join(sentences)})
    assert run("index", tmp_path / "texts", "--db", tmp_path / "a.q3e", "-m", "demo", "-q").exit_code == 0
    with served_locally(indexes=(str(tmp_path / "a.q3e"),)) as http:
        answer = http.post("/api/search", json={"query": "automobile", "mode": "vectors", "best": True}).json()
    (hit,) = answer["hits"]
    model = demo()
    query = model.embed_queries(["automobile"]).vectors[0]
    scores = model.embed_documents(sentences).vectors @ query
    assert hit["text"][hit["best"]["start"] : hit["best"]["end"]] == sentences[int(scores.argmax())]
    assert list(answer["milliseconds"]) == ["load", "embed", "search", "sentences"]


def test_milliseconds_are_of_the_stages_that_there_were(http: httpx.Client) -> None:
    by_words = http.post("/api/search", json={"query": "elms", "mode": "words"}).json()
    assert list(by_words["milliseconds"]) == ["search"]
    assert "best" not in by_words["hits"][0]
    by_meaning = http.post("/api/search", json={"query": "elms", "mode": "vectors"}).json()
    assert list(by_meaning["milliseconds"]) == ["load", "embed", "search"]
    assert all(each >= 0 for each in by_meaning["milliseconds"].values())
