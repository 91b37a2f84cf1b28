"""`--server` named several times: three real servers, one of them slow, one killed, one of another model."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import PROGRAM, records, run, write
from fake import FakeEngine
from server_process import N_EMBD, Running, running_server
from waiting import until

from q3e_local import Embedder, VectorIndex
from q3e_local.remote import member
from q3e_local.remote.connection import Server

NOBODY = "127.0.0.1:9"  # discard: nobody listens
LINES = [f"{n:04} {'x' * (n % 40)}" for n in range(1200)]  # 6 to 45 ids; the fake takes 50
FAST_S = 0.003


@contextmanager
def starting() -> Iterator[Callable[..., Running]]:
    """`start(text_s)`: a server that takes so many seconds for a text; gone at the end of the block."""
    with ExitStack() as stack:
        yield lambda text_s=0.0, **options: stack.enter_context(
            running_server(models=["demo"], text_s=text_s, **options)
        )


@pytest.fixture
def start():
    with starting() as start:
        yield start


@pytest.fixture(scope="module")
def three() -> Iterator[list[Running]]:
    """Servers that stay: two, and one of half their speed."""
    with starting() as start:
        yield [start(FAST_S), start(FAST_S), start(2 * FAST_S)]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("Q3E_SERVER", "OLLAMA_HOST", "Q3E_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def quickly(monkeypatch):
    """A server that failed is tried again after a moment."""
    monkeypatch.setattr(member, "_PAUSES_S", (0.1, 0.1))


@pytest.fixture
def lines(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"lines.txt": "\n".join(LINES)})
    return "lines.txt"


def on(*servers: Running | str) -> list[str]:
    """The options that name these servers."""
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return [word for url in urls for word in ("--server", url)]


def embed(*arguments: object) -> Any:
    return run("embed", "-m", "demo", *arguments)


def in_the_background(*arguments: object) -> subprocess.Popen[str]:
    command = [*PROGRAM, "embed", "-m", "demo", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def n_lines(path: str) -> int:
    return Path(path).read_bytes().count(b"\n") if Path(path).exists() else 0


def assert_all_in(path: str, lines: list[str] = LINES) -> None:
    """The output has every line once, in the order of the input, with its own vector."""
    found = records(Path(path).read_text())
    assert [int(record["id"].rpartition(":")[2]) for record in found] == [*range(1, len(lines) + 1)]
    wanted = np.zeros((len(lines), N_EMBD), np.float32)
    wanted[:, 0], wanted[:, 1] = [len(line) + 1 for line in lines], 1
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack([record["embedding"] for record in found]), wanted, rtol=1e-6)


def at_the_second_window(monkeypatch: pytest.MonkeyPatch, url: str, do: Callable[[], object]) -> None:
    """Call `do` before the second batch of texts is sent to this server."""
    ask, windows = Server.ask, itertools.count(1)

    def asked(server: Server, method: str, path: str, *arguments: Any) -> dict[str, Any]:
        if path == "/q3e/embed" and server.name == url and next(windows) == 2:
            do()
        return ask(server, method, path, *arguments)

    monkeypatch.setattr(Server, "ask", asked)


def test_three_servers_share_the_texts_and_a_slow_one_does_less(three, lines):
    result = embed("--lines", lines, *on(*three), "-o", "out.jsonl")
    assert result.exit_code == 0
    assert_all_in("out.jsonl")
    shares, summary, space = result.stderr.splitlines()
    assert re.sub(r"[\d,]+ texts", "N texts", shares) == ", ".join(f"N texts by {each.url}" for each in three)
    fast, other, slow = (int(number.replace(",", "")) for number in re.findall(r"([\d,]+) texts", shares))
    assert fast + other + slow == len(LINES)
    assert slow < 0.8 * (fast + other) / 2
    assert summary.startswith("1,200 texts, ")
    assert space == "model demo, dim 64, space q3e1-fafafafafafafafa-64-plain"
    assert embed("--text", "a", *on(*three), "-o", "quiet.jsonl", "-q").stderr == ""


def test_one_that_is_killed_half_way_is_left_out_with_one_line_and_nothing_is_lost(
    three, start, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    short_lived, texts = start(FAST_S), LINES * 2
    write(tmp_path, {"many.txt": "\n".join(texts)})
    with in_the_background("--lines", "many.txt", *on(short_lived, *three[1:]), "-o", "out.jsonl") as command:
        until(lambda: n_lines("out.jsonl") > 50)
        short_lived.process.kill()
        assert command.stderr is not None
        said = command.stderr.read().splitlines()
    assert command.returncode == 0
    assert_all_in("out.jsonl", texts)
    # Which of the two it is depends on how long the others need for the rest.
    (line,) = [line for line in said if line.startswith(short_lived.url)]
    assert re.search(r"is left out after 3 failures: |failed, and others did its texts: ", line)
    assert len(said) == 4


def test_a_server_of_another_model_is_refused_with_both_spaces_and_nothing_is_written(three, start, lines):
    servers = [*three[:2], start(digest="0b" * 8)]
    result = embed("--lines", lines, *on(*servers), "-o", "out.jsonl")
    assert result.exit_code == 1
    (said,) = result.stderr.splitlines()
    assert said == (
        f"Error: the servers make different vectors: {servers[0].url} those of the space "
        f"q3e1-fafafafafafafafa-64-plain, {servers[2].url} those of q3e1-0b0b0b0b0b0b0b0b-64-plain; "
        "let all have the same file of the model"
    )
    assert not Path("out.jsonl").exists()


def test_when_all_are_gone_what_was_done_is_kept_and_resume_goes_on(three, start, lines, monkeypatch, quickly):
    servers = [start(FAST_S), start(FAST_S)]
    at_the_second_window(monkeypatch, servers[0].url, lambda: [each.end(signal.SIGKILL) for each in servers])
    result = embed("--lines", lines, *on(*servers), "-o", "out.jsonl")
    assert result.exit_code == 1
    n_kept = n_lines("out.jsonl")
    assert 0 < n_kept < len(LINES)
    kept, error = result.stderr.splitlines()
    assert kept.startswith(f"{n_kept:,} texts are in out.jsonl; go on with: q3e-local embed -m demo ")
    assert kept.endswith(" --resume")
    assert error.startswith(("Error: the server at ", "Error: no server answers at ", "Error: the connection to "))
    result = embed("--lines", lines, *on(*three), "-o", "out.jsonl", "--resume")
    assert result.exit_code == 0
    assert f"{len(LINES) - n_kept:,} texts ({n_kept:,} were there already)" in result.stderr
    assert_all_in("out.jsonl")


def test_the_variable_has_commas_and_an_option_comes_before_it(three, monkeypatch):
    one, other, _ = (each.url for each in three)
    monkeypatch.setenv("Q3E_SERVER", f" {one}, {other},")
    assert re.match(f".* by {one}, .* by {other}$", embed("--text", "a").stderr.splitlines()[0])
    assert " by " not in embed("--text", "a", *on(one)).stderr
    monkeypatch.setenv("Q3E_SERVER", " ")
    assert embed("--text", "a").exit_code == 0  # by the model here


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_a_socket_and_an_address_with_a_key(start, lines, monkeypatch, tmp_path):
    socket = f"unix:{tmp_path / 'a socket'}"
    one, other = start(api_keys=["k"], unix_socket=socket.removeprefix("unix:")), start(api_keys=["k"])
    one.wait_for("try: ")
    assert "wants a key; set Q3E_API_KEY to it" in embed("--lines", lines, *on(socket, other)).stderr
    monkeypatch.setenv("Q3E_API_KEY", "k")
    result = embed("--lines", lines, *on(socket, other), "-o", "out.jsonl")
    assert result.exit_code == 0
    assert f"by {socket}, " in result.stderr
    assert_all_in("out.jsonl")


@pytest.mark.parametrize(
    ("servers", "code", "said"),
    [
        ((NOBODY, f"http://{NOBODY}"), 2, f"Error: the server http://{NOBODY} is named twice; name each server once"),
        ((NOBODY, "ftp://x"), 2, "Error: a server's address is one of http or https, or unix:PATH, got 'ftp:"),
        ((NOBODY, "127.0.0.1:13"), 1, "Error: none of the 2 servers can be used: no server answers at http://127."),
    ],
)
def test_what_is_refused(servers, code, said):
    result = embed("--text", "a", *on(*servers))
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(said)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_ctrl_c_ends_at_once_though_a_server_hangs_and_says_how_to_go_on(three, start, lines, tmp_path):
    from screen import on_screen

    gate = tmp_path / "gate"
    texts = [*LINES[:500], *["wait"] * 300, *LINES[500:]]
    write(tmp_path, {"wait.txt": "\n".join(texts)})
    options = ["--lines", "wait.txt", *on(start(gate=str(gate)), three[0]), "-o", "out.jsonl"]
    with on_screen([*PROGRAM, "embed", "-m", "demo", *options], columns=200) as screen:
        until(lambda: n_lines("out.jsonl") > 50, lambda: screen.text)
        screen.press(b"\x03")
        assert screen.end() == 130
        n_kept = n_lines("out.jsonl")
        assert f"Interrupted: {n_kept:,} texts are in out.jsonl; go on with: q3e-local embed -m demo" in screen.text
    gate.touch()
    assert embed(*options, "--resume").exit_code == 0
    assert_all_in("out.jsonl", texts)


# Indexes and questions.


@pytest.fixture
def many(tmp_path, monkeypatch) -> Path:
    """600 files of a passage or two."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "home"))
    write(tmp_path, {f"many/{n:03}.txt": f"file {n:03} has a sentence. It has another too." for n in range(600)})
    return tmp_path / "many"


def index(db: str, *servers: Running | str) -> Any:
    return run("index", "many", "-m", "demo", "--db", db, "--chunk-tokens", 40, *on(*servers))


def contents(db: str) -> list[dict[str, Any]]:
    assert run("index", "export", "--db", db, "--to", "all.jsonl", "--force", "-q").exit_code == 0
    return [json.loads(line) for line in Path("all.jsonl").read_text(encoding="utf-8").splitlines()]


def test_an_index_that_three_servers_made_is_that_of_one_though_one_was_killed(
    three, start, many, monkeypatch, quickly
):
    short_lived = start()
    at_the_second_window(monkeypatch, short_lived.url, lambda: short_lived.end(signal.SIGKILL))
    result = index("three.q3e", three[0], short_lived, three[2])
    assert result.exit_code == 0
    first, *_, last = result.stderr.splitlines()
    assert first == "files: 600 new"
    assert re.fullmatch(r"[\d,]+ texts by http://[\d.:]+(, [\d,]+ texts by http://[\d.:]+){2}", last)
    assert index("one.q3e", three[0]).exit_code == 0
    theirs, ours = contents("one.q3e"), contents("three.q3e")
    assert len(ours) >= 600
    assert ours == theirs
    assert index("three.q3e", *three[:2]).stderr.startswith("files: 600 unchanged")


def test_an_index_goes_on_where_all_servers_went(three, start, many, monkeypatch, quickly):
    servers = [start(FAST_S), start(FAST_S)]
    at_the_second_window(monkeypatch, servers[0].url, lambda: [each.end(signal.SIGKILL) for each in servers])
    result = index("many.q3e", *servers)
    assert result.exit_code == 1
    said, error = result.stderr.splitlines()
    n_kept = int(said.split()[0])
    again = f"q3e-local index many -m demo --db many.q3e --chunk-tokens 40 {' '.join(on(*servers))}"
    assert said == f"{n_kept} files are done and kept; go on with the others by: {again}"
    assert 0 < n_kept < 600
    assert error.startswith(("Error: the server at ", "Error: no server answers at ", "Error: the connection to "))
    result = index("many.q3e", *three)
    assert result.stderr.splitlines()[0] == f"files: {600 - n_kept} new, {n_kept} unchanged"


def test_a_question_goes_to_one_of_them_and_explain_says_to_which(three, many):
    write(Path("few"), {"one.txt": "file one", "two.txt": "file two"})
    assert run("index", "few", "-m", "demo", "--db", "few.q3e", "--chunk-tokens", 40, *on(*three)).exit_code == 0
    ask = ["search", "file", "--db", "few.q3e", "--no-best", *on(*three)]
    result = run(*ask)
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 2
    said = run(*ask, "--explain").stderr.splitlines()[-1]
    assert said.count("1 text by http://") == 1
    assert said.count("0 texts by http://") == 2


def test_the_advice_of_an_index_that_does_not_fit_names_all_servers(three, many):
    engine = FakeEngine()
    engine.digest = "0b" * 32
    with VectorIndex("other.q3e", Embedder(engine, "demo"), 64) as index:
        index.add(["a text about a cat"])
    refused = run("search", "cat", "--db", "other.q3e", *on(*three))
    assert refused.exit_code == 1
    assert refused.stderr.rstrip().endswith(f" -m demo -d 64 {' '.join(on(*three))}")


def test_a_job_shares_its_texts_too(three, lines):
    result = run("duplicates", "-m", "demo", "--lines", lines, *on(*three), "-o", "out.csv")
    assert result.exit_code == 0
    assert all(f" texts by {each.url}" in result.stderr for each in three)
