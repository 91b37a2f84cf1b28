"""/api/search on the wire: the hits are those of NumPy and of the command, whatever happens to the file meanwhile.

The real service with the demo model, whose similarity is the overlap of words; a service that has no model where
none may be needed; and one real server process.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from command import PROGRAM, demo, expected, run, write
from fake_service import FakeService, served
from hypothesis import HealthCheck, given, settings
from server_process import running_server

from q3e_local import Embedder, VectorIndex
from q3e_local.errors import Q3EError
from q3e_local.search.database import Database
from q3e_local.search.indexing.rebuild import rebuild
from q3e_local.server.errors import QueueFullError
from q3e_local.server.local import indexes as served_indexes
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.service import ServiceRequest, ServiceResult
from q3e_local.server.settings import ServerSettings

NOTES = {
    "garden": "We decided that the budget of the garden is 300 euros.",
    "oak": "The oak PRJ-2041 is to be cut in spring.",
    "chinese": "我们决定花园的预算是三百欧元。",
    "kitchen": "The kitchen gets a new window, and no budget at all.",
}
FILES = {
    "minutes/a.md": "# Money\n\nThe budget is small.\n\n# Trees\n\nThe oak stays.\n",
    "b.txt": "The oak falls.\n",
}


def make(path: Path, texts: dict[str, str], dim: int | None = None, embedder: Embedder | None = None) -> Path:
    """An index of one's own texts."""
    with VectorIndex(path, embedder or demo(), dim) as index:
        index.add(list(texts.values()), list(texts))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`notes.q3e`, texts of one's own at 64 dims; `files.q3e`, of a folder; `own.q3e`, of vectors of nobody's."""
    folder = tmp_path_factory.mktemp("indexes")
    make(folder / "notes.q3e", NOTES, 64)
    write(folder / "files", FILES)
    assert run("index", folder / "files", "--db", folder / "files.q3e", "-m", "demo", "-q").exit_code == 0
    with VectorIndex(folder / "own.q3e", dim=32) as index:
        index.add_vectors(["a bird in the oak"], np.eye(1, 32), ["bird"])
    return folder


@pytest.fixture(scope="module")
def http(folder: Path) -> Iterator[httpx.Client]:
    options = {"indexes": tuple(str(folder / f"{name}.q3e") for name in ("notes", "files", "own"))}
    with served(LocalService(ServerSettings(**options)), **options) as client:
        client.timeout = httpx.Timeout(60)
        yield client


def search(http: httpx.Client, query: str, index: str | None = "notes", **fields: Any) -> dict[str, Any]:
    answer = http.post("/api/search", json={"query": query, "index": index, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


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
    for one in wanted:
        del one["best"]  # which the server does not look for
    hits = search(http, "the oak", "files", mode=mode)["hits"]
    for one in wanted + hits:
        one["score"] = None if one["score"] is None else pytest.approx(one["score"], abs=1e-6)
    assert hits == wanted
    assert {(hit["line"], *hit["headings"]) for hit in hits} >= {(7, "Trees"), (1,)}
    assert all(Path(hit["file"]).is_file() for hit in hits)


def test_an_answer_has_the_headers_of_an_embedding(http: httpx.Client) -> None:
    asked = {"query": "oak", "index": "notes"}
    headers = http.post("/api/search", json={**asked, "mode": "vectors"}).headers
    n_tokens = expected(["oak"], kind="query").prompt_tokens[0]
    assert (headers["x-q3e-texts"], headers["x-q3e-prompt-tokens"]) == ("1", str(n_tokens))
    assert headers["x-q3e-space"].endswith("-64-plain")
    assert "x-q3e-texts" not in http.post("/api/search", json={**asked, "mode": "words"}).headers


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
def test_what_is_asked_for_is_left(http: httpx.Client, folder: Path, fields: dict[str, Any], ids: Any) -> None:
    hits = search(http, "oak", "files", mode="words", **fields)["hits"]
    found = sorted(Path(hit["id"]).relative_to(folder / "files").as_posix() for hit in hits)
    assert (len(found) if isinstance(ids, int) else found) == ids


def test_passages_can_be_left_out(http: httpx.Client) -> None:
    with_text, without = (search(http, "oak", text=text)["hits"] for text in (True, False))
    assert [{**hit, "text": None} for hit in with_text] == [{**hit, "text": None} for hit in without]
    assert all("text" not in hit for hit in without)


def test_words_need_no_model_and_tell_no_score(folder: Path) -> None:
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
    assert ([hit["id"] for hit in found["hits"]], found["mode"], found["model"], found["space"]) == (
        ["bird"], "words", None, None,
    )  # fmt: skip


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
    ({"query": "a", "index": 3}, 400, "index must be a text, got 3"),
    ({"query": "a", "k": 0}, 400, "k must be between 1 and 100, got 0"),
    ({"query": "a", "k": 101}, 400, "k must be between 1 and 100, got 101"),
    ({"query": "a", "k": 2.0}, 400, "k must be a whole number, got 2.0"),
    ({"query": "a", "k": True}, 400, "k must be a whole number, got true"),
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
    (["a"], 400, "the body must be a JSON object, got a list of 1"),
    (b"{", 400, "the body is not JSON"),
    (b'{"query": "\\ud800"}', 400, "the body is not JSON"),
    (b"", 400, "missing request body"),
]


@pytest.mark.parametrize(("body", "status", "said"), WRONG)
def test_what_is_wrong_is_told(http: httpx.Client, body: Any, status: int, said: str) -> None:
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


def test_a_server_without_an_index_says_how_to_start_one(http: httpx.Client) -> None:
    with served(FakeService()) as bare:
        answer = bare.post("/api/search", json={"query": "a"})
        assert (answer.status_code, answer.json()) == (
            404, {"error": "this server has no index; start it with one: q3e-local serve --index NAME"},
        )  # fmt: skip
        assert bare.get("/api/indexes").json() == {"indexes": []}
        assert "/api/search" not in bare.get("/openapi.json").json()["paths"]


def test_the_indexes_are_told(http: httpx.Client) -> None:
    found = http.get("/api/indexes").json()["indexes"]
    assert [(one["name"], one["model"], one["dim"], one["files"], one["chunks"]) for one in found] == [
        ("notes", "demo", 64, 0, 4), ("files", "demo", 256, 2, 3), ("own", None, 32, 0, 1),
    ]  # fmt: skip


def test_a_field_that_is_none_is_named_in_the_log(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    search(http, "oak", mode="words", top_k=3)
    assert "/api/search has no field top_k, and ignores it; it has query, index, k, mode" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_the_line_of_the_docs_page_works_as_it_stands(http: httpx.Client) -> None:
    lines = [html.unescape(line) for line in re.findall("<pre>(.*?)</pre>", http.get("/docs").text)]
    (line,) = [line for line in lines if "/api/search" in line]
    got = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True, text=True)
    assert json.loads(got.stdout)["index"] == "notes"


def test_no_request_of_the_schema_is_our_fault(http: httpx.Client) -> None:
    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=schema["/api/search"]["POST"].as_strategy())
    def call(case: Any) -> None:
        answer = http.post(
            "/api/search", content=json.dumps(case.as_transport_kwargs(base_url="http://x").get("json"))
        )
        assert answer.status_code in (200, 400, 404), answer.text

    call()


def replaced(path: Path, texts: dict[str, str], **options: Any) -> None:
    """Another index under the name of one that is open, as a program that writes files whole puts it there."""
    made = make(path.with_suffix(".new.q3e"), texts, **options)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    made.replace(path)


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[tuple[Path, httpx.Client]]:
    """An index of one's own and its server."""
    path = make(tmp_path / "mine.q3e", {"a": "the oak"}, 64)
    with served(LocalService(ServerSettings()), indexes=(str(path),)) as client:
        client.timeout = httpx.Timeout(60)
        yield path, client


def ids(http: httpx.Client, query: str, index: str | None = None, **fields: Any) -> list[str]:
    return [hit["id"] for hit in search(http, query, index, **fields)["hits"]]


def test_what_others_do_to_the_file_is_seen(mine: tuple[Path, httpx.Client]) -> None:
    path, http = mine
    assert ids(http, "oak") == ["a"]
    with VectorIndex(path, demo()) as other:
        other.add(["an oak too"], ["b"])
        assert ids(http, "oak", mode="words") == ["a", "b"]
        other.delete(["a"])
        assert ids(http, "oak") == ["b"]
    rebuild(path, demo(), 128)
    found = search(http, "oak", None)
    assert (len(found["hits"]), found["space"]) == (1, expected(["a"], dim=128).space)
    if sys.platform != "win32":  # which replaces no file that is open
        replaced(path, {"c": "the oaks"}, dim=32)
        assert ids(http, "oaks") == ["c"]
        assert http.get("/api/indexes").json()["indexes"][0]["dim"] == 32


def test_an_index_that_is_rebuilt_while_a_query_is_embedded_gets_it_embedded_again(tmp_path: Path) -> None:
    path = make(tmp_path / "a.q3e", NOTES, 64)

    class Rebuilding(LocalService):
        async def embed(self, request: ServiceRequest) -> ServiceResult:
            result = await super().embed(request)
            if request.dim == 64:
                rebuild(path, demo(), 128)
            return result

    with served(Rebuilding(ServerSettings()), indexes=(str(path),)) as http:
        found = search(http, "the budget of the garden", None, mode="vectors", k=1)
    query = expected(["the budget of the garden"], kind="query", dim=128)
    documents = expected(NOTES.values(), dim=128)
    assert found["space"] == documents.space
    assert found["hits"][0]["score"] == pytest.approx(float(max(documents.vectors @ query.vectors[0])), abs=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be moved")
def test_a_file_that_is_gone_or_damaged_is_told_and_one_that_comes_back_is_found(
    mine: tuple[Path, httpx.Client], caplog: pytest.LogCaptureFixture
) -> None:
    path, http = mine
    path.rename(path.with_suffix(".moved"))
    gone = http.post("/api/search", json={"query": "oak"})
    assert (gone.status_code, gone.json()["error"]) == (
        503, "the index 'mine' cannot be searched: its file is gone",
    )  # fmt: skip
    path.write_bytes(b"no index" * 1000)
    broken = http.post("/api/search", json={"query": "oak"})
    assert (broken.status_code, broken.json()["error"]) == (
        503, "the index 'mine' cannot be searched: the server's log says why",
    )  # fmt: skip
    assert f"{path} is damaged or not an index" in caplog.text
    assert http.get("/api/indexes").json()["indexes"] == [{"name": "mine", "error": broken.json()["error"]}]
    path.with_suffix(".moved").replace(path)
    assert ids(http, "oak") == ["a"]


class OtherEngine:
    """The demo model's engine under the digest of another file."""

    digest = "fa" * 32

    def __getattr__(self, name: str) -> Any:
        return getattr(demo().engine, name)


def other_model() -> Embedder:
    return Embedder(OtherEngine(), "demo")


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be replaced")
def test_an_index_of_another_file_of_the_model_is_a_conflict_that_names_both(
    mine: tuple[Path, httpx.Client],
) -> None:
    path, http = mine
    replaced(path, {"x": "the oak"}, embedder=other_model())
    answer = http.post("/api/search", json={"query": "oak"})
    assert answer.status_code == 409
    assert answer.json()["error"] == (
        "the index 'mine' holds 256-dim vectors of demo (file fafafafa), and demo on this server is another file "
        f"({demo().engine.digest[:8]}); the index can be embedded anew on the server's machine with: "
        "q3e-local index rebuild --db FILE -m demo -d 256"
    )
    assert ids(http, "oak", mode="words") == ["x"]


def named_twice(folder: Path) -> tuple[str, ...]:
    (folder / "other").mkdir()
    return str(make(folder / "a.q3e", {})), str(make(folder / "other" / "a.q3e", {}))


def damaged(folder: Path) -> tuple[str, ...]:
    (folder / "bad.q3e").write_bytes(b"nothing" * 1000)
    return (str(folder / "bad.q3e"),)


def of_unknown_model(folder: Path) -> tuple[str, ...]:
    return (str(make(folder / "a.q3e", {}, embedder=Embedder(OtherEngine(), "qwen3-embedding:4b"))),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda _: ("nope",), "there is no index named nope; make it with: q3e-local index FOLDER --name nope"),
        (lambda folder: (str(folder / "nope.q3e"),), "nope.q3e; make it with: q3e-local index FOLDER --db"),
        (lambda _: ("no name",), "an index is named, or given as the path of a .q3e file; got 'no name'"),
        (named_twice, "would both be served as 'a'; rename one of them"),
        (damaged, "bad.q3e is damaged or not an index"),
        (lambda folder: (str(make(folder / "a\tb.q3e", {})),), "has a name that is no text; rename it"),
        (
            of_unknown_model,
            "a model that is not served here; bring it with: q3e-local pull qwen3-embedding:4b, or embed",
        ),
        (
            lambda folder: (
                str(make(folder / "a.q3e", {}, embedder=Embedder(OtherEngine(), str(folder / "m.gguf")))),
            ),
            "m.gguf, a model that is not served here; bring it with: -m ",
        ),
        (
            lambda folder: (str(make(folder / "a.q3e", {}, embedder=other_model())),),
            "vectors of demo (file fafafafa), and demo on this machine is another file",
        ),
    ],
)
def test_an_index_that_cannot_be_searched_ends_the_start(
    tmp_path: Path, given: Callable[[Path], tuple[str, ...]], said: str
) -> None:
    with pytest.raises(Q3EError) as raised:
        Indexes(ServerSettings(indexes=given(tmp_path)))
    assert said in str(raised.value)


def test_an_index_finds_its_model_under_any_name_it_is_served_by(tmp_path: Path) -> None:
    path = make(tmp_path / "a.q3e", NOTES, embedder=Embedder(demo().engine, str(tmp_path / "gone.gguf")))
    shutil.copy(demo_file(), tmp_path / "mine.gguf")
    with Indexes(ServerSettings(indexes=(str(path), str(path)), models=(str(tmp_path / "mine.gguf"),))) as found:
        assert [(index.name, index.made.model) for index in found] == [("a", "mine")]


def demo_file() -> Path:
    from q3e_local.models import installed

    return installed.locate("demo").path


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A search for `slow` has begun, and may go on."""
    begun, go_on, ask = threading.Event(), threading.Event(), served_indexes.ask

    def waiting(database: Database, question: Any) -> Any:
        if question.text == "slow":
            begun.set()
            assert go_on.wait(20)
        return ask(database, question)

    monkeypatch.setattr(served_indexes, "ask", waiting)
    yield begun, go_on
    go_on.set()


def test_a_long_search_holds_up_nobody_else_and_its_queue_has_an_end(
    folder: Path, slow: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = slow
    options = {"indexes": (str(folder / "notes.q3e"), str(folder / "files.q3e")), "max_queue": 1}
    with served(FakeService(), **options) as http, ThreadPoolExecutor(1) as threads:
        first = threads.submit(search, http, "slow", mode="words")
        assert begun.wait(20)
        assert search(http, "oak", "files", mode="words")["hits"]
        assert http.get("/api/version").status_code == 200
        refused = http.post("/api/search", json={"query": "oak", "index": "notes", "mode": "words"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "the index 'notes' has 1 searches to do already" in refused.json()["error"]
        go_on.set()
        assert first.result()["hits"] == []
        assert ids(http, "oak", index="notes", mode="words") == ["oak"]


def test_a_client_that_leaves_takes_its_search_with_it(
    folder: Path, slow: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = slow
    service = FakeService()
    with served(service, indexes=(str(folder / "notes.q3e"),), max_queue=1) as http:

        def leave(body: dict[str, Any], has_begun: Callable[[], Any]) -> None:
            connection = HTTPConnection(http.base_url.host, http.base_url.port)
            connection.request("POST", "/api/search", json.dumps(body))
            until(has_begun)
            connection.close()

        leave({"query": "wait"}, lambda: service.requests)
        assert service.cancelled.wait(20)
        leave({"query": "slow", "mode": "words"}, begun.is_set)
        go_on.set()
        until(lambda: http.post("/api/search", json={"query": "oak", "mode": "words"}).is_success)


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_real_server_answers_many_at_once_while_another_process_indexes(tmp_path: Path) -> None:
    write(tmp_path / "files", FILES)
    home = {"Q3E_HOME": str(tmp_path / "home"), "Q3E_API_KEY": "k", "Q3E_INDEXES": "mine"}
    environ = {**os.environ, **home}
    index = [*PROGRAM, "index", str(tmp_path / "files"), "--name", "mine", "-m", "demo", "-q"]
    subprocess.run(index, env=environ, check=True, timeout=60)
    with running_server(env=home, program=[*PROGRAM, "serve", "--port", "0"]) as server:
        server.wait_for("indexes: mine (3 chunks, 256-dim vectors of demo)")
        body, key = {"query": "the budget is small"}, {"Authorization": "Bearer k"}
        assert server.ask("POST", "/api/search", body)[0] == 401
        assert server.ask("GET", "/api/indexes")[0] == 401
        write(tmp_path / "files", {f"{number}.txt": f"The linden has number {number}.\n" for number in range(300)})
        with subprocess.Popen(index, env=environ) as adding, ThreadPoolExecutor(32) as clients:
            n_rounds = 0
            while adding.poll() is None or not n_rounds:
                for status, _, answer in clients.map(
                    lambda _: server.ask("POST", "/api/search", body, key), range(32)
                ):
                    hit = json.loads(answer)["hits"][0]
                    assert (status, hit["text"], Path(hit["file"]).name) == (200, "The budget is small.", "a.md")
                n_rounds += 1
            assert adding.returncode == 0
        found = json.loads(server.ask("POST", "/api/search", {"query": "linden 217", "k": 1}, key)[2])
        assert found["hits"][0]["text"] == "The linden has number 217."
        counted = server.ask("GET", "/metrics", headers=key)[2].decode()
        assert f"q3e_searches_total {n_rounds * 32 + 1:.1f}" in counted
        assert float(re.search(r"^q3e_search_seconds_total (\S+)", counted, re.MULTILINE)[1]) > 0
        assert server.end() == 0
        assert not [line for line in server.lines if "Traceback" in line or "budget" in line]
