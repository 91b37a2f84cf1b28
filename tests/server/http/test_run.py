"""A real server in a process of its own: sockets, signals, slow clients, logs and metrics. Loopback only."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from command import PROGRAM
from paths import ROOT
from server_process import PATIENCE_S, Running, running_server

from q3e_local import __version__
from q3e_local.models.catalog import models_folder
from q3e_local.server.http import metrics

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and Unix sockets of POSIX")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One that nobody stops; it asks for a key."""
    home = str(tmp_path_factory.mktemp("home"))
    env = {"Q3E_HOME": home, "HF_HUB_CACHE": home}  # a module's server has no test's own environment
    with running_server(env=env, api_keys=["key"], max_body_bytes=100_000, log_format="text") as running:
        yield running


@pytest.fixture(scope="module")
def impatient():
    """One that soon hangs up on clients that send nothing; on a busy machine sending takes a while."""
    with running_server(idle_s=1.5, headers_s=1.5) as running:
        yield running


KEY = {"Authorization": "Bearer key"}
HELLO = {"model": "demo", "input": "hello"}


def embed(running: Running, text: str = "hello", headers=KEY):
    return running.ask("POST", "/api/embed", {"model": "demo", "input": text}, headers)


def in_background(work, *arguments):
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work, *arguments)
    pool.shutdown(wait=False)
    return future


NEVER = "/no/such/file"  # a gate that stays shut


def wait_until_running(running: Running, path: str = "/api/embed", field: str = "input"):
    """Start a request that waits for the server's gate, and answer its future once the server works on it."""
    running.wait_for("try: ")
    future = in_background(running.ask, "POST", path, {"model": "demo", field: "wait"})
    running.wait_for("at work")
    return future


def test_the_start_says_where_what_and_how_to_try(server):
    assert server.url.startswith("http://127.0.0.1:")
    line = server.wait_for("try: ")
    assert "$Q3E_API_KEY" in line
    assert any("keys: 1, one of which the last line takes from Q3E_API_KEY" in one for one in server.lines[:4])
    assert not any("key" in one.split("keys:")[-1].replace("Q3E_API_KEY", "") for one in server.lines[:4])


@posix
def test_the_curl_line_of_the_start_works(server):
    command = server.wait_for("try: ").removeprefix("try: ").replace("curl", "curl -sS", 1)
    got = subprocess.run(
        ["/bin/sh", "-c", command], env=os.environ | {"Q3E_API_KEY": "key"}, capture_output=True, check=True
    )
    assert len(json.loads(got.stdout)["embeddings"]) == 1


def test_requests_one_after_another_share_a_connection(server):
    connection = server.connect()
    for _ in range(3):
        connection.request("POST", "/api/embed", json.dumps(HELLO), KEY)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("server") == f"q3e-local/{__version__}"
        answer.read()
    connection.close()


def test_keys_hosts_and_origins_on_a_real_socket(server):
    assert embed(server, headers={})[0] == 401
    assert embed(server, headers={"X-Api-Key": "key"})[0] == 200
    assert embed(server, headers=KEY | {"Host": "evil.example"})[0] == 403
    assert embed(server, headers=KEY | {"Origin": "https://evil.example"})[0] == 403
    status, headers, _ = embed(server, headers=KEY | {"Origin": "http://localhost:3000"})
    assert (status, headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
    assert server.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize("n_bytes", [100_001, 8_000_000])
def test_a_body_too_large_is_answered_413_even_while_it_is_sent(server, n_bytes):
    status, _, body = server.ask("POST", "/v1/embeddings", b"x" * n_bytes, KEY)
    assert status == 413
    assert json.loads(body)["error"]["message"] == "the request body is larger than 100000 bytes"


def test_a_body_in_chunks_is_held_to_the_limit_too(server):
    connection = server.connect()
    connection.request("POST", "/api/embed", (b"x" * 10_000 for _ in range(20)), KEY, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def answer_of(connection: socket.socket) -> bytes:
    """All until the server hangs up."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


HEAD = b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n"


def test_a_body_that_stops_coming_is_answered_408(impatient):
    with impatient.socket() as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert answer_of(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b"POST /api/em", HEAD, HEAD + b"X-A: "])
def test_headers_that_do_not_come_end_the_connection(impatient, sent):
    with impatient.socket() as connection:
        connection.sendall(sent)
        assert answer_of(connection) == b""


def test_headers_without_end_are_refused(server):
    with server.socket() as connection:
        got = b""
        try:
            connection.sendall(HEAD + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(200)))
            got = answer_of(connection)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert got == b"" or got.startswith(b"HTTP/1.1 400 ")
    assert embed(server)[0] == 200


def test_slow_and_silent_clients_do_not_hold_up_others():
    with running_server(idle_s=600, headers_s=600) as running:
        silent = [running.socket() for _ in range(50)]
        for connection in silent[::2]:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        assert embed(running)[0] == 200
        assert select.select(silent, [], [], 0)[0] == []  # nobody has hung up on them meanwhile
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9\r\n\r\n", b"\r\n\r\n\x00\xff\r\n\r\n"]
)
def test_what_is_no_http_is_answered_400_and_hung_up(server, garbage):
    with server.socket() as connection:
        connection.sendall(garbage)
        assert answer_of(connection)[:13] in (b"HTTP/1.1 400 ", b"")
    assert embed(server)[0] == 200


def test_the_log_has_a_line_a_request_and_no_text_and_no_key(server):
    embed(server, "a very private text")
    server.ask("GET", "/api/tags%0a%1b[31m?secret=1", headers=KEY)
    line = server.wait_for("POST /api/embed 200 ")
    assert line.endswith(" tokens")
    assert server.wait_for("GET /api/tags%0a%1b[31m 404 ")
    log = "\n".join(line for line in server.lines if not line.startswith("try: "))
    assert "private" not in log
    assert "secret" not in log
    assert "Bearer" not in log


def test_metrics_count_requests_texts_and_tokens(server):
    def value(name: str) -> float:
        text = server.ask("GET", "/metrics", headers=KEY)[2].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    names = (
        "q3e_texts_total",
        "q3e_tokens_total",
        'q3e_requests_total{method="POST",route="/api/embed",status="200"}',
    )
    before = [value(name) for name in names]
    server.ask("POST", "/api/embed", {"model": "demo", "input": ["abc", "de"]}, KEY)
    assert [value(name) for name in names] == [before[0] + 2, before[1] + 7, before[2] + 1]
    assert value("q3e_loaded_models") == 1
    assert value("q3e_worker_restarts_total") == 0
    shown = server.ask("GET", "/metrics", headers=KEY)[2].decode()
    docs = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    names = [name for name in re.findall(r"^# TYPE (\S+) ", shown, re.MULTILINE) if not name.endswith("_created")]
    names += [f"{name}_total" for name, _ in metrics._COUNTERS.values()]  # this server's service is a fake
    assert [name for name in names if f"`{name}`" not in docs] == []
    for unknown in ("/nowhere", "/nowhere/else"):
        server.ask("GET", unknown, headers=KEY)
    text = server.ask("GET", "/metrics", headers=KEY)[2].decode()
    assert "nowhere" not in text
    assert server.ask("GET", "/metrics")[0] == 401


def test_a_json_log_is_json_throughout():
    with running_server(log_format="json", models=["demo"]) as running:
        line = json.loads(running.wait_for('"listening"'))
        port = int(line["address"].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request("POST", "/api/embed", json.dumps(HELLO))
        assert connection.getresponse().status == 200
        connection.close()
        found = json.loads(running.wait_for('"/api/embed"'))
        assert (found["method"], found["status"], found["n_texts"], found["n_tokens"]) == ("POST", 200, 1, 6)
        assert found["milliseconds"] > 0
        running.end()
        for line in running.lines:
            if line != "service closed":
                assert json.loads(line)["level"] in ("info", "warning")


def test_a_busy_port_is_one_line_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running_server(port=port) as running:
            assert running.wait() == 1
            assert running.lines == [
                f"Error: port {port} on 127.0.0.1 is taken by another program; "
                "stop that, or choose another with --port"
            ]


def test_a_port_that_we_have_already_is_said_to_be_ours(server):
    port = int(server.url.rpartition(":")[2])
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0")):
        with running_server(host=host, port=port) as running:
            assert running.wait() == 1
            assert running.lines == [
                f"Error: q3e-local is already serving on port {port} of {shown}; "
                "use that, or choose another with --port"
            ]


def test_a_port_that_ollama_has_is_said_to_be_ollamas():
    with socket.create_server(("127.0.0.1", 0)) as taken, ThreadPoolExecutor(1) as pool:

        def answer():
            connection = taken.accept()[0]
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nOllama is running")

        answered = pool.submit(answer)
        with running_server(port=taken.getsockname()[1]) as running:
            assert running.wait() == 1
            assert " is taken by Ollama; stop that, or choose another with --port" in running.lines[0]
        answered.result(PATIENCE_S)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "no-such-host.invalid"}, "Error: there is no host 'no-such-host.invalid' to listen on"),
        ({"host": "203.0.113.7"}, "Error: cannot listen on 203.0.113.7, port 0: "),
        ({"models": ["nobody-knows"]}, "Error: there is no model 'nobody-knows'; all models: "),
        ({"models": ["./nope.gguf"]}, "Error: there is no file nope.gguf"),
    ],
)
def test_what_cannot_be_served_is_said_and_nothing_started(options, said):
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
        assert embed(running)[0] == 200


def test_loading_what_is_unloaded_at_once_is_warned_about():
    with running_server(models=["demo"], keep_alive_s="0") as running:
        assert "keep_alive 0 unloads what --model loads at once" in running.wait_for("WARNING: ")
    with running_server(models=["demo"], keep_alive_s="-1") as running:
        running.wait_for("try: ")
        assert not any("WARNING" in line for line in running.lines)


@pytest.mark.parametrize(
    ("alias", "said"),
    [
        ('{model = "nope"}', "aliases.mine.model: the alias mine stands for nope, and there is no such model"),
        ('{model = "demo", dim = 1024}', "aliases.mine.dim must be 256 or less, which demo has, got 1024"),
    ],
)
def test_a_name_of_the_users_that_can_never_work_ends_the_start(alias, said, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(f"[aliases]\nmine = {alias}\n")
    program = [*PROGRAM, "serve", "--port", "0"]
    with running_server(env={"Q3E_HOME": str(tmp_path)}, program=program) as running:
        assert running.wait() == 2
        assert running.lines == [f"Error: {tmp_path / 'config' / 'config.toml'}: {said}"]


def test_a_name_whose_model_is_not_here_yet_is_warned_about(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text('[aliases]\nmine = {model = "qwen3-embedding:4b"}\n')
    program = [*PROGRAM, "serve", "--port", "0"]
    with running_server(env={"Q3E_HOME": str(tmp_path)}, program=program) as running:
        assert "aliases.mine.model is not on this machine yet; get it with" in running.wait_for("WARNING: ")
        assert running.url


def test_a_public_address_without_a_key_is_warned_about():
    with running_server(host="0.0.0.0") as running:
        assert running.wait_for("WARNING: ").endswith(
            f"every machine that reaches {running.url} may use this server; "
            "ask for a key with --api-key or Q3E_API_KEY"
        )
        assert embed(running)[0] == 200
    with running_server(host="0.0.0.0", api_keys=["k"]) as running:
        running.wait_for("try: ")
        embed(running)
        running.end()
        assert not any("WARNING" in line for line in running.lines)


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_runs_refuses_new_requests_and_exits_0(number, tmp_path):
    gate = tmp_path / "gate"
    with running_server(gate=str(gate), stop_s=600) as running:
        url = running.url
        slow = wait_until_running(running)
        idle = running.connect()
        idle.request("GET", "/health")
        idle.getresponse().read()
        running.process.send_signal(number)
        running.wait_for("finishing 1 request")
        # A new connection, and one that was kept.
        status, headers, body = embed(running)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "5", "close")
        assert json.loads(body) == {"error": "the server is stopping"}
        idle.request("GET", "/health")
        assert idle.getresponse().status == 503
        idle.close()
        assert not slow.done()
        gate.touch()
        assert slow.result(PATIENCE_S)[0] == 200
        assert running.wait() == 0
        running.wait_for("service closed")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1)


NOT_FINISHED = "the server is stopping, and this request was not finished"
OF_OPENAI = {"message": NOT_FINISHED, "type": "server_error", "param": None, "code": None}


@posix
@pytest.mark.parametrize(
    ("path", "field", "error"),
    [
        ("/api/embed", "input", {"error": NOT_FINISHED}),
        ("/v1/embeddings", "input", {"error": OF_OPENAI}),
        ("/embed", "inputs", {"error": NOT_FINISHED, "error_type": "Unhealthy"}),
        ("/embedding", "content", {"error": {"code": 503, "message": NOT_FINISHED, "type": "unavailable_error"}}),
    ],
)
def test_what_cannot_be_finished_in_time_is_answered_503(path, field, error):
    with running_server(gate=NEVER, stop_s=0.3) as running:
        slow = wait_until_running(running, path, field)
        assert running.end() == 0
        status, headers, body = slow.result(PATIENCE_S)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "5", "close")
        assert json.loads(body) == error
        running.wait_for("requests that were not finished: 1")
        running.wait_for("service closed")
        assert not any("Traceback" in line or "ERROR" in line for line in running.lines)


@posix
@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)],
)
def test_a_second_signal_ends_at_once(first, second):
    with running_server(gate=NEVER, stop_s=600) as running:
        slow = wait_until_running(running)
        running.process.send_signal(first)
        running.wait_for("finishing 1 request")
        running.process.send_signal(second)
        assert running.wait() == 128 + second
        assert slow.result(PATIENCE_S)[0] == 503
        assert running.lines[-1].endswith("stopped")
        assert not any("Traceback" in line or "ERROR" in line for line in running.lines)


@posix
def test_a_request_on_its_way_when_the_server_stops_is_answered():
    with running_server() as running:
        running.wait_for("try: ")
        with running.socket() as fresh, running.socket() as kept:
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answered = b""
            while not answered.endswith(b"}"):
                answered += kept.recv(65536)
            for connection in (fresh, kept):
                connection.sendall(HEAD)
            running.process.send_signal(signal.SIGTERM)
            until_refused(running)
            for connection in (fresh, kept):
                connection.sendall(b"Content-Length: 2\r\n\r\n{}")
                assert answer_of(connection).startswith(b"HTTP/1.1 503 ")
        assert running.wait() == 0


@posix
def test_whoever_could_connect_is_answered_while_the_server_stops():
    body = json.dumps(HELLO).encode()
    request = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)

    answers: set[bytes] = set()

    def ask_until_refused(running: Running) -> None:
        while True:
            try:
                connection = running.socket()
            except ConnectionRefusedError:
                return
            with connection:
                connection.sendall(request)
                answers.add(connection.recv(65536)[:13])  # raises when it is reset

    with running_server() as running, ThreadPoolExecutor(20) as pool:
        running.wait_for("try: ")
        clients = [pool.submit(ask_until_refused, running) for _ in range(20)]
        until(lambda: answers)
        running.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.result(PATIENCE_S)
        assert b"HTTP/1.1 200 " in answers <= {b"HTTP/1.1 200 ", b"HTTP/1.1 503 "}
        assert running.wait() == 0


def until(true: Callable[[], object]) -> None:
    """Wait for something that must happen, however busy the machine is."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def until_refused(running: Running):
    """Wait until nobody listens any more."""

    def is_refused() -> bool:
        try:
            running.socket().close()
        except ConnectionRefusedError:
            return True
        return False

    until(is_refused)


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
        waiting = in_background(embed, running)
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
def test_a_signal_ends_the_load_of_the_start():
    with running_server(models=["demo"], load_gate=NEVER, stop_s=600) as running:
        running.wait_for("loading demo")
        assert running.end() == 0
        assert not any("try: " in line or "Traceback" in line for line in running.lines)


@posix
def test_an_idle_server_stops_at_once():
    """It waits neither for its patience with what runs, nor for that with a client that only holds its connection."""
    with running_server(stop_s=600, idle_s=600, headers_s=600) as running, running.socket():
        embed(running)
        assert running.end() == 0


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
    # What a killed server leaves is taken over; another file is not.
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


def test_an_answer_that_nobody_takes_ends_the_connection_and_one_that_is_read_slowly_does_not():
    with running_server(max_items=60_000, stalled_s=2) as running:
        body = json.dumps({"model": "demo", "input": ["x"] * 60_000}).encode()
        request = HEAD + b"Connection: %s\r\nContent-Length: %d\r\n\r\n%s"
        kept, closed, slow = (running.socket() for _ in range(3))
        for client, connection in ((kept, b"keep-alive"), (closed, b"close")):
            client.sendall(request % (connection, len(body), body))
        slow.sendall(request % (b"close", len(body), body))
        got = bytearray()
        while part := slow.recv(1 << 19):
            got += part
            time.sleep(0.04)
        answer = bytes(got).partition(b"\r\n\r\n")[2]
        assert len(json.loads(answer)["embeddings"]) == 60_000
        # The log has a line for an answer that is taken or given up.
        until(lambda: sum("POST /api/embed " in line for line in running.lines) == 3)
        assert len(answer_of(kept)) < len(answer)
        assert len(answer_of(closed)) < len(answer)
        for client in (kept, closed, slow):
            client.close()


def test_many_clients_at_once(server):
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(embed(server)[0])) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == [200] * 100
