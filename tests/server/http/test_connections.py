"""Clients on real sockets: keys and limits, slow and silent clients, and clients that send what is no HTTP."""

from __future__ import annotations

import json
import select
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from server_process import HEAD, KEY, answer_of, running_server
from waiting import until

from q3e_local import __version__


@pytest.fixture(scope="module")
def impatient():
    """One that soon hangs up on clients that send nothing; on a busy machine sending takes a while."""
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


def test_keys_hosts_and_origins_on_a_real_socket(server):
    assert server.embed(headers={})[0] == 401
    assert server.embed(headers={"X-Api-Key": "key"})[0] == 200
    assert server.embed(headers=KEY | {"Host": "evil.example"})[0] == 403
    assert server.embed(headers=KEY | {"Origin": "https://evil.example"})[0] == 403
    status, headers, _ = server.embed(headers=KEY | {"Origin": "http://localhost:3000"})
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
    with ThreadPoolExecutor(100) as clients:
        assert [answer[0] for answer in clients.map(server.embed, ["hello"] * 100)] == [200] * 100
