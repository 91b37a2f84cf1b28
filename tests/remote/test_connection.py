"""The connection to a running server: what is said of addresses and answers that are of no use, and no proxies."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, closing

import pytest

from q3e_local.remote.connection import Cancellation, Server, ServerRefusedError, ServerUnreachableError

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}'


@pytest.fixture
def answering():
    """Start a listener that answers its first connections with these bytes, one after the other, and hangs up.

    None in place of bytes is no answer, until the test ends. Gives its address.
    """
    with ExitStack() as stack:
        over = threading.Event()

        def start(*answers: bytes | None) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def answer() -> None:
                for content in answers:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65_536)
                        if content is None:
                            over.wait(30)
                        else:
                            connection.sendall(content)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            stack.callback(thread.join, 30)
            stack.callback(over.set)
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield start


@pytest.fixture
def connect():
    """Make a Server, and close it at the end: a socket that is collected open warns in whatever test runs then."""
    with ExitStack() as stack:
        yield lambda address, **options: stack.enter_context(closing(Server(address, **options)))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the connection to {} failed: "),
        (b"no HTTP at all\r\n\r\n", "what answers at {} is no HTTP server"),
        (None, "the server at {} does not answer in time"),
        (b"HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\nno", "the server at {} is no q3e-local: it does not know /a"),
        # Python's own http.server, asked with POST; the status was all that was said.
        (b"HTTP/1.0 501 x\r\nContent-Length: 2\r\n\r\nno", "the server at {} is no q3e-local: it does not know /a"),
    ],
)
def test_what_answers_and_is_of_no_use(answer, said, answering, connect):
    address = answering(answer)
    with pytest.raises(ServerUnreachableError) as raised:
        connect(address, answer_s=0.5).ask("GET", "/a")
    assert str(raised.value).startswith(said.format(address))


def test_a_refusal_has_the_servers_words_and_status(answering, connect):
    address = answering(b'HTTP/1.1 400 x\r\nContent-Length: 16\r\n\r\n{"error": "too"}')
    with pytest.raises(ServerRefusedError, match=f"{address}: too") as raised:
        connect(address).ask("POST", "/a", {})
    assert raised.value.status == 400


def test_a_kept_connection_that_ended_is_followed_by_a_new_one(answering, connect):
    server = connect(answering(ANSWER, ANSWER))
    assert [server.ask("GET", "/a"), server.ask("GET", "/a")] == [{"a": 1}] * 2


def test_a_server_that_is_gone_in_the_middle_is_told_from_one_that_never_ran(connect):
    """It read as if none had been started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = connect(str(port))

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(ANSWER)

        thread = threading.Thread(target=answer_once)
        thread.start()
        assert server.ask("GET", "/a") == {"a": 1}
        thread.join()
    with pytest.raises(ServerUnreachableError) as raised:
        server.ask("GET", "/a")
    assert str(raised.value) == (
        f"the server at http://127.0.0.1:{port} stopped while it was in use; "
        f"start one with: q3e-local serve --port {port}"
    )


def test_a_host_that_does_not_exist(connect):
    with pytest.raises(ServerUnreachableError, match=r"there is no host 'nobody\.invalid'; is the server's address"):
        connect("nobody.invalid").ask("GET", "/a")


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("127.0.0.1:9", "start one with: q3e-local serve --port 9"),
        ("localhost:13", "start one with: q3e-local serve --port 13"),
        ("http://127.0.0.1:9/behind/a/proxy", "is the server behind it running?"),
    ],
)
def test_the_advice_starts_a_server_where_one_was_looked_for(address, advice, connect):
    with pytest.raises(ServerUnreachableError) as raised:
        connect(address).ask("GET", "/a")
    assert str(raised.value).startswith("no server answers at ")
    assert str(raised.value).endswith(f"; {advice}")


def test_a_request_can_be_ended_from_another_thread(answering, connect):
    server, cancellation = connect(answering(None)), Cancellation()
    timer = threading.Timer(0.3, cancellation.cancel)
    timer.start()
    with pytest.raises(ServerUnreachableError):
        server.ask("GET", "/a", cancellation=cancellation)
    timer.join()
    with pytest.raises(ServerUnreachableError, match="cancelled"):
        server.ask("GET", "/a", cancellation=cancellation)


def test_no_variable_sends_texts_to_a_proxy(answering, connect, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert connect(answering(ANSWER)).ask("GET", "/a") == {"a": 1}
