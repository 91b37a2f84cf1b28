"""The indexes of a server: files that change while it runs, indexes that end the start, and long searches."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from command import PROGRAM, demo, expected, write
from fake_service import FakeService, served
from served_indexes import FILES, NOTES, ids, make, search
from server_process import running_server
from servers import served_locally
from waiting import until

from q3e_local import Embedder, VectorIndex
from q3e_local.errors import Q3EError
from q3e_local.models.installed import locate
from q3e_local.search.ask import ask
from q3e_local.search.database import Database
from q3e_local.search.indexing.rebuild import rebuild
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.service import ServiceRequest, ServiceResult
from q3e_local.server.settings import ServerSettings


def replaced(path: Path, texts: dict[str, str], **options: Any) -> None:
    """Put another index in the place of an index that is open, as a program does that renames whole files."""
    made = make(path.with_suffix(".new.q3e"), texts, **options)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    made.replace(path)


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[tuple[Path, httpx.Client]]:
    """The path of an index, and a client of its server."""
    path = make(tmp_path / "mine.q3e", {"a": "the oak"}, 64)
    with served_locally(indexes=(str(path),)) as client:
        yield path, client


def test_changes_by_other_processes_are_seen(mine: tuple[Path, httpx.Client]) -> None:
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
def test_a_file_that_is_gone_or_damaged_is_an_error_until_it_is_back(
    mine: tuple[Path, httpx.Client], caplog: pytest.LogCaptureFixture
) -> None:
    path, http = mine
    path.rename(path.with_suffix(".moved"))
    error = "the index 'mine' cannot be searched: its file is gone"
    gone = http.post("/api/search", json={"query": "oak"})
    assert (gone.status_code, gone.json()) == (503, {"error": error})
    path.write_bytes(b"no index" * 1000)
    error = "the index 'mine' cannot be searched: the server's log says why"
    broken = http.post("/api/search", json={"query": "oak"})
    assert (broken.status_code, broken.json()) == (503, {"error": error})
    assert f"{path} is damaged or not an index" in caplog.text
    assert http.get("/api/indexes").json()["indexes"] == [{"name": "mine", "error": error}]
    path.with_suffix(".moved").replace(path)
    assert ids(http, "oak") == ["a"]


class OtherEngine:
    """The demo model's engine under the digest of another file."""

    digest = "fa" * 32

    def __getattr__(self, name: str) -> Any:
        return getattr(demo().engine, name)


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be replaced")
def test_an_index_of_another_file_of_the_model_is_a_conflict_that_names_both(
    mine: tuple[Path, httpx.Client],
) -> None:
    path, http = mine
    replaced(path, {"x": "the oak"}, embedder=Embedder(OtherEngine(), "demo"))
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


def of(model: str) -> Callable[[Path], tuple[str, ...]]:
    """Makes an index of another file of this model."""
    return lambda folder: (str(make(folder / "a.q3e", {}, embedder=Embedder(OtherEngine(), model))),)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (lambda _: ("nope",), "there is no index named nope; make it with: q3e-local index FOLDER --name nope"),
        (lambda folder: (str(folder / "nope.q3e"),), "nope.q3e; make it with: q3e-local index FOLDER --db"),
        (lambda _: ("no name",), "an index is named, or given as the path of a .q3e file; got 'no name'"),
        (named_twice, "would both be served as 'a'; rename one of them"),
        (damaged, "bad.q3e is damaged or not an index"),
        (lambda folder: (str(make(folder / "a\tb.q3e", {})),), "has a name that is no text; rename it"),
        (of("qwen3-embedding:4b"), "not served here; bring it with: q3e-local pull qwen3-embedding:4b, or embed"),
        (of("m.gguf"), "m.gguf, a model that is not served here; bring it with: -m "),
        (of("demo"), "vectors of demo (file fafafafa), and demo on this machine is another file"),
    ],
)
def test_an_index_that_cannot_be_searched_ends_the_start(
    tmp_path: Path, names: Callable[[Path], tuple[str, ...]], said: str
) -> None:
    with pytest.raises(Q3EError) as raised:
        Indexes(ServerSettings(indexes=names(tmp_path)))
    assert said in str(raised.value)


def test_an_index_finds_its_model_under_any_name_it_is_served_by(tmp_path: Path) -> None:
    path = make(tmp_path / "a.q3e", NOTES, embedder=Embedder(demo().engine, str(tmp_path / "gone.gguf")))
    shutil.copy(locate("demo").path, tmp_path / "mine.gguf")
    with Indexes(ServerSettings(indexes=(str(path), str(path)), models=(str(tmp_path / "mine.gguf"),))) as found:
        assert [(index.name, index.made.model) for index in found] == [("a", "mine")]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Two events: a search for `slow` has begun, and may go on."""
    begun, go_on = threading.Event(), threading.Event()

    def waiting(database: Database, question: Any) -> Any:
        if question.text == "slow":
            begun.set()
            assert go_on.wait(20)
        return ask(database, question)

    monkeypatch.setattr("q3e_local.server.local.indexes.ask", waiting)
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
