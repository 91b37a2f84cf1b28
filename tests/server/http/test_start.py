"""How a server starts: where it listens, the lines that it prints, what it loads, and what ends the start."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import rerankers
from command import PROGRAM, write
from server_process import PATIENCE_S, Running, answer_of, in_background, running_server

from q3e_local.models.catalog import models_folder
from q3e_local.server.http.announce import announce
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.settings import ServerSettings

posix = pytest.mark.skipif(sys.platform == "win32", reason="a shell and Unix sockets of POSIX")


def test_the_start_says_where_what_and_how_to_try(server):
    assert server.url.startswith("http://127.0.0.1:")
    line = server.wait_for("try: ")
    assert "$Q3E_API_KEY" in line
    (keys,) = [line for line in server.lines[:4] if line.startswith("keys: ")]
    assert keys.startswith("keys: 1, one of which the last line takes from Q3E_API_KEY; ")
    assert not any("key" in line.replace("keys:", "").replace("Q3E_API_KEY", "") for line in server.lines[:4])


@posix
def test_the_curl_line_of_the_start_works(server):
    command = server.wait_for("try: ").removeprefix("try: ").replace("curl", "curl -sS", 1)
    environ = os.environ | {"Q3E_API_KEY": "key"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environ, capture_output=True, check=True)
    assert len(json.loads(done.stdout)["embeddings"]) == 1


def test_a_server_that_is_started_with_a_reranker_says_how_to_rank(capsys, tmp_path):
    path = rerankers.write(tmp_path / "tiny-reranker.gguf", "cls")
    chosen = ServerSettings(models=(str(path), "demo"))
    with socket.create_server(("127.0.0.1", 0)) as listening, Indexes(chosen) as indexes:
        announce(chosen, [listening], indexes)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "/v1/rerank -d" in line
    assert '{"model": "tiny-reranker", "query": ' in line


@contextmanager
def taken(answer: bytes) -> Iterator[int]:
    """A port on which another program listens, which sends `answer` to a client."""
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as pool:
        other.settimeout(PATIENCE_S)

        def serve() -> None:
            connection = other.accept()[0]
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        pool.submit(serve)
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "owner"),
    [(b"", "another program"), (b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nOllama is running", "Ollama")],
)
def test_a_busy_port_is_one_line_that_names_it_and_who_has_it(answer, owner):
    with taken(answer) as port, running_server(port=port) as running:
        assert running.wait() == 1
        assert running.lines == [
            f"Error: port {port} on 127.0.0.1 is taken by {owner}; stop that, or choose another with --port"
        ]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_another_q3e_local_has_is_said_to_be_served_already(server, host):
    port = int(server.url.rpartition(":")[2])
    with running_server(host=host, port=port) as running:
        assert running.wait() == 1
        assert running.lines == [
            f"Error: q3e-local is already serving on port {port} of {host}; use that, or choose another with --port"
        ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "no-such-host.invalid"}, "Error: there is no host 'no-such-host.invalid' to listen on"),
        ({"host": "203.0.113.7"}, "Error: cannot listen on 203.0.113.7, port 0: "),
        ({"models": ["nobody-knows"]}, "Error: there is no model 'nobody-knows'; all models: "),
        ({"models": ["./nope.gguf"]}, "Error: there is no file nope.gguf"),
    ],
)
def test_a_start_that_is_impossible_is_one_line(options, said):
    with running_server(**options) as running:
        assert running.wait() == 1
        assert len(running.lines) == 1
        assert running.lines[0].startswith(said)


def test_a_file_is_shown_by_the_name_it_is_served_under(tmp_path):
    shutil.copy(models_folder() / "demo.gguf", tmp_path)
    with running_server(models=[str(tmp_path / "demo.gguf")]) as running:
        command = running.wait_for("try: ")
        assert '"model": "demo"' in command
        assert any(" loading demo, " in line for line in running.lines)
        assert any(line.startswith("models: demo; ") for line in running.lines)
        assert running.embed()[0] == 200


def test_loading_models_that_are_unloaded_at_once_is_warned_about():
    with running_server(models=["demo"], keep_alive_s="0") as running:
        assert "keep_alive 0 unloads what --model loads at once" in running.wait_for("WARNING: ")
    with running_server(models=["demo"], keep_alive_s="-1") as running:
        running.wait_for("try: ")
        assert not any("WARNING" in line for line in running.lines)


@contextmanager
def serving_alias(home: Path, alias: str) -> Iterator[Running]:
    """The program on a config file with this alias."""
    write(home / "config", {"config.toml": f"[aliases]\nmine = {alias}\n"})
    with running_server(env={"Q3E_HOME": str(home)}, program=[*PROGRAM, "serve", "--port", "0"]) as running:
        yield running


def test_an_alias_that_can_never_work_ends_the_start(tmp_path):
    with serving_alias(tmp_path, '{model = "demo", dim = 1024}') as running:
        assert running.wait() == 2
        said = "aliases.mine.dim must be 256 or less, which demo has, got 1024"
        assert running.lines == [f"Error: {tmp_path / 'config' / 'config.toml'}: {said}"]


def test_an_alias_whose_model_is_not_here_yet_is_warned_about(tmp_path):
    with serving_alias(tmp_path, '{model = "qwen3-embedding:4b"}') as running:
        assert "aliases.mine.model is not on this machine yet; get it with" in running.wait_for("WARNING: ")
        assert running.url


def test_a_public_address_without_a_key_is_warned_about():
    with running_server(host="0.0.0.0") as running:
        assert running.wait_for("WARNING: ").endswith(
            f"every machine that reaches {running.url} may use this server; "
            "ask for a key with --api-key or Q3E_API_KEY"
        )
        assert running.embed()[0] == 200
    with running_server(host="0.0.0.0", api_keys=["k"]) as running:
        running.wait_for("try: ")
        running.embed()
        running.end()
        assert not any("WARNING" in line for line in running.lines)


def test_the_server_answers_while_it_loads_what_it_was_started_with(tmp_path):
    gate = tmp_path / "gate"
    with running_server(models=["demo"], load_gate=str(gate)) as running:
        url = running.wait_for("open at ").split()[-1]
        running.lines.append(f" listens on {url}")  # where `ask` looks for it
        status, headers, body = running.ask("GET", "/health")
        assert (status, headers["retry-after"]) == (503, "1")
        found = json.loads(body)
        assert (found["status"], found["healthy"], found["loading"]) == ("loading model", False, ["demo"])
        assert found["error"] == {"code": 503, "message": "Loading model", "type": "unavailable_error"}
        assert running.ask("GET", "/api/version")[0] == 200
        assert not any("try: " in line for line in running.lines)
        waiting = in_background(running.embed)
        gate.touch()
        assert waiting.result(PATIENCE_S)[0] == 200
        running.wait_for("try: ")
        assert running.ask("GET", "/health")[0] == 200


def test_a_model_of_the_start_that_cannot_be_loaded_ends_the_server():
    with running_server(models=["demo"], load_error="demo.gguf is broken") as running:
        assert running.wait() == 1
        assert running.lines[-1] == "Error: demo.gguf is broken"
        assert "service closed" in running.lines
        assert not any("try: " in line or "Traceback" in line for line in running.lines)


@posix
def test_a_unix_socket(tmp_path):
    path = tmp_path / "s"

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return answer_of(connection)

    with running_server(unix_socket=str(path)) as running:
        assert "--unix-socket" in running.wait_for("try: ")
        assert ask().startswith(b"HTTP/1.1 200 ")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with running_server(unix_socket=str(path)) as second:
            assert second.wait() == 1
            second.wait_for(f"Error: another server listens on {path}")
        assert ask().startswith(b"HTTP/1.1 200 ")
        assert running.end() == 0
    assert not path.exists()
    # The socket that a killed server leaves is taken over; another file is not.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    with running_server(unix_socket=str(path)) as running:
        running.wait_for("try: ")
        assert ask().startswith(b"HTTP/1.1 200 ")
        running.end()
    path.write_text("precious")
    with running_server(unix_socket=str(path)) as running:
        assert running.wait() == 1
    assert path.read_text() == "precious"
