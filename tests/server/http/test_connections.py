"""Clients on real sockets: keys and limits, slow and silent clients, and clients that send what is no HTTP."""

from __future__ import annotations

import json
import select
import time
from contextlib import suppress

import pytest
from server_process import HEAD, KEY, answer_of, clients_of, running_server
from waiting import until

from q3e_local import __version__


@pytest.fixture(scope="module")
def impatient():
    """A server that soon hangs up on clients that send nothing, but not before a busy client has sent something."""
    with running_server(idle_s=1.5, headers_s=1.5) as running:
        yield running


def test_requests_one_after_another_share_a_connection(server):
    connection = server.connect()
    for _ in range(3):
        connection.request("POST", "/api/embed", json.dumps({"model": "demo", "input": "hello"}), KEY)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("server") == f"q3e-local/{__version__}"
        answer.read()
    connection.close()


@pytest.mark.parametrize("n_bytes", [100_001, 8_000_000])
def test_a_body_too_large_is_answered_413_even_while_it_is_sent(server, n_bytes):
    status, _, body = server.ask("POST", "/v1/embeddings", b"x" * n_bytes, KEY)
    assert status == 413
    assert json.loads(body)["error"]["message"] == "the request body is larger than 100000 bytes"


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
        answer = b""
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(HEAD + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(200)))
            answer = answer_of(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert server.embed()[0] == 200


def test_slow_and_silent_clients_do_not_hold_up_others():
    with running_server(idle_s=600, headers_s=600) as running:
        silent = [running.socket() for _ in range(50)]
        for connection in silent[::2]:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        assert running.embed()[0] == 200
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
    assert server.embed()[0] == 200


def test_an_answer_that_is_not_taken_ends_the_connection_and_a_client_that_reads_slowly_gets_all():
    with running_server(max_items=60_000, stalled_s=2) as running:
        body = json.dumps({"model": "demo", "input": ["x"] * 60_000}).encode()
        request = HEAD + b"Connection: %s\r\nContent-Length: %d\r\n\r\n%s"
        kept, closed, slow = (running.socket() for _ in range(3))
        for client, connection in ((kept, b"keep-alive"), (closed, b"close")):
            client.sendall(request % (connection, len(body), body))
        slow.sendall(request % (b"close", len(body), body))
        received = bytearray()
        while part := slow.recv(1 << 19):
            received += part
            time.sleep(0.04)
        answer = bytes(received).partition(b"\r\n\r\n")[2]
        assert len(json.loads(answer)["embeddings"]) == 60_000
        # The log has its lines as soon as all is handed over, so it does not say when an answer is given up. Whoever
        # reads before that gets all.
        ports = {client.getsockname()[1] for client in (kept, closed)}
        until(lambda: ports.isdisjoint(clients_of(running.process.pid)))
        assert len(answer_of(kept)) < len(answer)
        assert len(answer_of(closed)) < len(answer)
        for client in (kept, closed, slow):
            client.close()
