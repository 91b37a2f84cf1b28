"""How a server stops: running requests are finished or answered, new ones refused, a second signal ends all."""

from __future__ import annotations

import json
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from server_process import HEAD, PATIENCE_S, Running, answer_of, in_background, running_server
from waiting import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


NEVER = "/no/such/file"  # a gate that stays shut


def wait_until_running(running: Running, path: str = "/api/embed", field: str = "input"):
    """Start a request that waits for the server's gate, and answer its future once the server works on it."""
    running.wait_for("try: ")
    future = in_background(running.ask, "POST", path, {"model": "demo", field: "wait"})
    running.wait_for("at work")
    return future


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_requests_are_finished_new_ones_refused_and_the_exit_code_is_0(number, tmp_path):
    gate = tmp_path / "gate"
    with running_server(gate=str(gate), stop_s=600) as running:
        url = running.url
        slow = wait_until_running(running)
        idle = running.connect()
        idle.request("GET", "/health")
        idle.getresponse().read()
        running.process.send_signal(number)
        running.wait_for("finishing 1 request")
        # First on a new connection, then on a connection that was kept.
        status, headers, body = running.embed()
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


@pytest.mark.parametrize(
    ("path", "field", "error"),
    [
        ("/api/embed", "input", {"error": NOT_FINISHED}),
        ("/v1/embeddings", "input", {"error": OF_OPENAI}),
        ("/embed", "inputs", {"error": NOT_FINISHED, "error_type": "Unhealthy"}),
        ("/embedding", "content", {"error": {"code": 503, "message": NOT_FINISHED, "type": "unavailable_error"}}),
    ],
)
def test_a_request_that_is_not_finished_in_time_is_answered_503(path, field, error):
    with running_server(gate=NEVER, stop_s=0.3) as running:
        slow = wait_until_running(running, path, field)
        assert running.end() == 0
        status, headers, body = slow.result(PATIENCE_S)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "5", "close")
        assert json.loads(body) == error
        running.wait_for("requests that were not finished: 1")
        running.wait_for("service closed")
        assert not any("Traceback" in line or "ERROR" in line for line in running.lines)


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
            until(lambda: is_refused(running))
            for connection in (fresh, kept):
                connection.sendall(b"Content-Length: 2\r\n\r\n{}")
                assert answer_of(connection).startswith(b"HTTP/1.1 503 ")
        assert running.wait() == 0


def test_every_client_that_could_connect_is_answered_while_the_server_stops():
    body = json.dumps({"model": "demo", "input": "hello"}).encode()
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


def is_refused(running: Running) -> bool:
    """Whether nobody listens any more."""
    try:
        running.socket().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_signal_ends_the_load_of_the_start():
    with running_server(models=["demo"], load_gate=NEVER, stop_s=600) as running:
        running.wait_for("loading demo")
        assert running.end() == 0
        assert not any("try: " in line or "Traceback" in line for line in running.lines)


def test_an_idle_server_stops_at_once():
    """It waits neither for the time that running requests have, nor for a client that only holds its connection."""
    with running_server(stop_s=600, idle_s=600, headers_s=600) as running, running.socket():
        running.embed()
        assert running.end() == 0
