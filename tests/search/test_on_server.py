"""`index` and `search` with `--server`: the index is on this machine, and the model on a server."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import demo, run, write
from fake import FakeEngine
from fake_service import served
from hard_texts import DOCUMENTS
from notes import NOTES as FOUR_NOTES
from server_process import running_server

from q3e_local import Embedder, EmbedRequest, VectorIndex
from q3e_local.embedding.request import Embedded
from q3e_local.errors import OptionError
from q3e_local.remote.connection import Server
from q3e_local.remote.embedder import RemoteEmbedder
from q3e_local.search.indexing.rebuild import rebuild
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

NOTES = FOUR_NOTES | {"odd.txt": "cafe\u0301 and <|endoftext|> and <think>\n\n" + "long " * 300}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(LocalService(ServerSettings(models=("demo",)))) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the notes, which no test changes."""
    folder = tmp_path_factory.mktemp("notes")
    write(folder / "notes", NOTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("Q3E_HOME", str(folder))
        path = folder / "notes.q3e"
        assert run("index", folder / "notes", "-m", "demo", "-d", 64, "--db", path, "-q").exit_code == 0
    return path


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "home"))
    for name in ("Q3E_SERVER", "OLLAMA_HOST", "Q3E_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def before_each_request(monkeypatch: pytest.MonkeyPatch, do: Callable[[str], None]) -> None:
    """Call `do` with the path of each request before it is sent."""
    ask = Server.ask

    def asked(server: Server, method: str, path: str, *more: Any) -> dict[str, Any]:
        do(path)
        return ask(server, method, path, *more)

    monkeypatch.setattr(Server, "ask", asked)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests so far; the list grows."""
    paths: list[str] = []
    before_each_request(monkeypatch, paths.append)
    return paths


def contents(db: str) -> list[dict[str, Any]]:
    """All chunks of an index with their vectors."""
    assert run("index", "export", "--db", db, "--to", "all.jsonl", "--force", "-q").exit_code == 0
    return [json.loads(line) for line in Path("all.jsonl").read_text(encoding="utf-8").splitlines()]


def test_an_index_made_on_a_server_is_the_index_made_here(url: str, requested: list[str]) -> None:
    write(Path("notes"), NOTES | {name: text() for name, text in DOCUMENTS.items()})
    here = run("index", "notes", "-m", "demo", "--db", "here.q3e", "--no-cache")
    there = run("index", "notes", "-m", "demo", "--db", "there.q3e", "--server", url)
    assert (here.exit_code, there.exit_code) == (0, 0)
    assert there.stderr.splitlines()[0] == here.stderr.splitlines()[0] == "files: 10 new"
    ours, theirs = contents("here.q3e"), contents("there.q3e")
    assert len(ours) > 30
    vectors = [np.array([chunk.pop("embedding") for chunk in chunks], np.float32) for chunks in (ours, theirs)]
    assert theirs == ours
    assert np.einsum("ij,ij->i", *vectors).min() > 0.9999
    shown = [json.loads(run("index", "show", "--json", "--db", db).stdout) for db in ("here.q3e", "there.q3e")]
    facts = [(facts["model"], facts["space"], facts["tokens"]) for facts in shown]
    assert facts[0] == facts[1]
    # A request or two count the words of all files; a text that cannot be parted is counted chunk by chunk.
    assert requested.count("/q3e/tokens") <= 10 + sum("unmarked" in chunk["file"] for chunk in ours)
    # An index that was made on the server can be updated here, and the other way round.
    for options in ([], ["--server", url]):
        assert run("index", "notes", "--db", "there.q3e", *options).stderr.startswith("files: 10 unchanged")


@pytest.mark.parametrize(
    "options",
    ["", "--hybrid", "--vector-only --exact", "--task sts", "--instruction Find", "--no-best"],
)
def test_a_search_finds_the_same(options: str, url: str, notes: Path) -> None:
    for question in ("who looked after the animal?", "PRJ-2041"):
        command = ("search", question, "--db", notes, *options.split())
        here = [json.loads(line) for line in run(*command).stdout.splitlines()]
        result = run(*command, "--server", url)
        there = [json.loads(line) for line in result.stdout.splitlines()]
        assert (result.exit_code, result.stderr) == (0, "")
        assert [hit.pop("score") for hit in there] == pytest.approx([hit.pop("score") for hit in here], abs=1e-4)
        assert there == here  # the best sentences too


def test_the_variable_names_the_server_and_words_alone_need_none(
    url: str, requested: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Path("notes"), NOTES)
    monkeypatch.setenv("Q3E_SERVER", url)
    assert run("index", "notes", "-m", "demo", "-q").exit_code == 0
    assert "/q3e/embed" in requested
    requested.clear()
    assert run("search", "cat", "--words-only").exit_code == 0
    assert run("index", "notes", "-q").exit_code == 0  # nothing changed
    assert requested == []
    assert run("search", "cat").exit_code == 0
    assert "/q3e/embed" in requested


def test_explain_says_how_it_was_searched(url: str, notes: Path) -> None:
    said = run("search", "PRJ-2041", "--db", notes, "--server", url, "--explain").stderr
    assert "to the letter: 'PRJ-2041'" in said


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--no-cache"], 2, "--cache and --no-cache are for a model in this process"),
        (["--threads", "2"], 2, "--threads is for a model in this process; the server has its own"),
        (["-m", "nobody"], 2, "there is no model 'nobody'"),
        (["--server", "127.0.0.1:9"], 1, "no server answers at http://127.0.0.1:9; start one with: q3e-local serve"),
    ],
)
def test_what_is_refused(
    options: list[str], code: int, said: str, url: str, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("Q3E_SERVER", url)
    write(Path("new"), {"new.txt": "new"})
    before = contents(str(notes))
    for command in (("index", "new"), ("search", "cat"), ("index", "rebuild", "-d", "32")):
        result = run(*command, "--db", notes, *options)
        assert (result.exit_code, result.stdout) == (code, "")
        assert said in result.stderr
        assert "Traceback" not in result.stderr
    assert contents(str(notes)) == before


@pytest.mark.skipif(sys.platform == "win32", reason="quotes of another kind")
def test_an_index_of_another_file_is_refused_and_the_advice_names_the_server(url: str) -> None:
    with VectorIndex("other.q3e", Embedder(FakeEngine(), "demo"), 64) as index:
        index.add(["a text about a cat"])
    refused = run("search", "cat", "--db", "other.q3e", "--server", url)
    assert refused.exit_code == 1
    advice = refused.stderr.rstrip().partition("anew with: q3e-local ")[2]
    assert advice == f"index rebuild --db {Path.cwd()}/other.q3e -m demo -d 64 --server {url}"
    assert run(*shlex.split(advice), "-q").exit_code == 0
    (hit,) = run("search", "cat", "--db", "other.q3e", "--server", url).stdout.splitlines()
    expected = (
        demo().embed_query("cat", 64).vectors[0] @ demo().embed_documents(["a text about a cat"], 64).vectors[0]
    )
    assert json.loads(hit)["score"] == pytest.approx(float(expected), abs=1e-4)


def test_a_server_without_the_indexs_model_says_so(url: str, tmp_path: Path, tiny_gguf: Callable[..., Path]) -> None:
    write(Path("notes"), NOTES)
    model = tiny_gguf("f16")
    assert run("index", "notes", "-m", model, "-q").exit_code == 0
    result = run("search", "cat", "--server", url)
    assert result.exit_code == 2
    assert f"holds 256-dim vectors of {model}, and that model cannot be used: the server: " in result.stderr
    assert "give its name on the server with --model, or search without a model: --words-only" in result.stderr


def test_a_file_is_found_under_the_name_it_is_served_by(tmp_path: Path, tiny_gguf: Callable[..., Path]) -> None:
    write(Path("notes"), NOTES)
    model = tiny_gguf("f16")
    assert run("index", "notes", "-m", model, "-q").exit_code == 0
    with served(LocalService(ServerSettings(models=(str(model),))), models=(str(model),)) as client:
        result = run("search", "cat", "--server", client.base_url)
        assert (result.exit_code, result.stderr) == (0, "")
        write(Path("notes"), {"new.txt": "new"})
        result = run("index", "notes", "--server", client.base_url)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (0, "files: 1 new, 5 unchanged")


# A server that goes away. The fake one counts bytes as tokens, 50 at most in a text.


def many(n_files: int) -> None:
    write(Path("many"), {f"{n:03}.txt": f"file {n:03} has a sentence. It has another too." for n in range(n_files)})


def index_many(url: str) -> Any:
    return run("index", "many", "-m", "demo", "--db", "many.q3e", "--chunk-tokens", 40, "--server", url)


def at_the_third_window(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Call `do` before the third batch of texts is sent."""
    windows = itertools.count(1)
    before_each_request(monkeypatch, lambda path: path == "/q3e/embed" and next(windows) == 3 and do())


def test_a_server_that_dies_leaves_what_was_done_and_the_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    many(600)
    with running_server(models=["demo"]) as running, monkeypatch.context() as patch:
        at_the_third_window(patch, lambda: (running.process.kill(), running.process.wait()))
        result = index_many(running.url)
    assert result.exit_code == 1
    said, error = result.stderr.splitlines()
    n_kept = int(said.split()[0])
    again = f"q3e-local index many -m demo --db many.q3e --chunk-tokens 40 --server {running.url}"
    assert said == f"{n_kept} files are done and kept; go on with the others by: {again}"
    assert 0 < n_kept < 600
    assert error.startswith(("Error: the server at ", "Error: the connection to "))
    with running_server(models=["demo"]) as running:
        result = index_many(running.url)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (0, f"files: {600 - n_kept} new, {n_kept} unchanged")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM")
def test_a_server_that_was_restarted_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    many(600)
    with ExitStack() as stack:
        first = stack.enter_context(running_server(models=["demo"]))
        port = int(first.url.rpartition(":")[2])

        def restart() -> None:
            first.end()
            stack.enter_context(running_server(models=["demo"], port=port)).wait_for("try: ")

        at_the_third_window(monkeypatch, restart)
        result = index_many(first.url)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (0, "files: 600 new")


# The library.


def test_a_remote_embedder_is_a_text_model(url: str) -> None:
    texts = ["one", "caf\u00e9 and cafe\u0301", "", "\u4f60\u597d"]
    with RemoteEmbedder(Server(url), "demo") as remote:
        assert repr(remote) == f"<RemoteEmbedder demo on {url}>"
        assert (remote.n_embd, remote.n_ctx_max, remote.digest, remote.loads_as) == (
            demo().n_embd, demo().n_ctx_max, demo().digest, "demo",
        )  # fmt: skip
        assert remote.count_tokens(texts) == demo().count_tokens(texts)
        for options in ({}, {"kind": "query", "dim": 64}, {"task": "sts", "max_tokens": 20, "truncate": True}):
            assert remote.resolve(EmbedRequest((), **options)) == demo().resolve(EmbedRequest((), **options))
        there, here = remote.embed_queries(texts, 64), demo().embed_queries(texts, 64)
        np.testing.assert_allclose(there.vectors, here.vectors, atol=1e-5)
        assert (there.space, there.prompt_tokens) == (here.space, here.prompt_tokens)
        with pytest.raises(OptionError, match="dim must be between 32 and 256 for demo, got 8"):
            remote.embed_documents(texts, 8)
        with VectorIndex("own.q3e", remote, 64) as index:
            index.add(texts[:2], ids=["a", "b"])
            assert len(index.search("one")) == 2
        rebuild("own.q3e", remote, 128)
        with VectorIndex("own.q3e", remote) as index:
            ids = [hit.id for hit in index.search("one")]
    with VectorIndex("own.q3e", demo()) as index:
        assert (index.dim, len(index)) == (128, 2)
        assert [hit.id for hit in index.search("one")] == ids


def test_results_of_a_server_are_handed_back_before_a_progress_that_ends_the_call(url: str) -> None:
    def stop(n_texts: int, n_tokens: int) -> None:
        raise KeyboardInterrupt

    with RemoteEmbedder(Server(url), "demo") as remote:
        results = remote.stream(EmbedRequest(["one", "two"]), stop)
        done = [next(results), next(results)]
        with pytest.raises(KeyboardInterrupt):
            next(results)
    assert [text.prompt_tokens for text in done if isinstance(text, Embedded)] == demo().count_tokens(["one", "two"])


def test_a_server_that_takes_few_texts_at_once_gets_few(requested: list[str]) -> None:
    settings = ServerSettings(models=("demo",), max_items=3)
    with ExitStack() as stack:
        client = stack.enter_context(served(LocalService(settings), models=("demo",), max_items=3))
        remote = stack.enter_context(RemoteEmbedder(Server(str(client.base_url)), "demo"))
        texts = [f"text number {n}" for n in range(10)]
        assert remote.embed_documents(texts).prompt_tokens == demo().embed_documents(texts).prompt_tokens
        assert requested.count("/q3e/embed") == 4
        assert remote.count_tokens(texts) == demo().count_tokens(texts)
