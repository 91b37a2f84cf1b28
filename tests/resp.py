"""Redis for tests: a real server where the machine has one, and a small one, which has faults when a test wants them.

The small one knows the few commands that the cache sends.
"""

from __future__ import annotations

import fnmatch
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from waiting import until


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class FakeRedis:
    """Keeps strings in `data`. `fault` says what is wrong with it; `commands` has the names of the commands so far.

    Faults: `silent` answers nothing, `half` half of an answer and then nothing more, `hangs up` closes at once,
    `http` answers as a web server, `few` gives a value too few, `swapped` gives values in the wrong order, `full` has
    no memory left, `wrong type` answers a number, `password` wants a password.
    """

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.fault: str | None = None
        self.commands: list[str] = []
        self.n_connections = 0
        self.port = 0
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                fake.n_connections += 1
                self.request.settimeout(20)
                while (command := _command(self.rfile)) is not None:
                    name = command[0].upper()
                    fake.commands.append(name.decode())
                    answer = fake.answer(name, command[1:])
                    if fake.fault == "hangs up":
                        return
                    if fake.fault == "half" and name == b"MGET":
                        self.wfile.write(answer[: len(answer) // 2])
                        return
                    if fake.fault != "silent":
                        self.wfile.write(answer)

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, name: bytes, given: list[bytes]) -> bytes:
        if self.fault == "http":
            return b"HTTP/1.1 400 Bad Request\r\n\r\n"
        if self.fault == "password":
            return b"-NOAUTH Authentication required.\r\n"
        if name == b"MGET":
            values = [self.data.get(key) for key in given]
            if self.fault == "few":
                values.pop()
            if self.fault == "swapped":
                values.reverse()
            return b":7\r\n" if self.fault == "wrong type" else encoded(values)
        if name == b"MSET":
            if self.fault == "full":
                return b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
            self.data |= dict(zip(given[::2], given[1::2], strict=True))
            return b"+OK\r\n"
        if name == b"SCAN":
            pattern = given[given.index(b"MATCH") + 1].decode()
            return encoded([b"0", [key for key in self.data if fnmatch.fnmatchcase(key.decode(), pattern)]])
        if name == b"STRLEN":
            return b":%d\r\n" % len(self.data.get(given[0], b""))
        if name == b"UNLINK":
            return b":%d\r\n" % sum(self.data.pop(key, None) is not None for key in given)
        return b"+OK\r\n" if name == b"SELECT" else b"-ERR unknown command\r\n"


@contextmanager
def fake_redis() -> Iterator[FakeRedis]:
    server = FakeRedis()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def real_redis(*options: str, port: int | None = None) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Start a real server on loopback: its port and process. Skips the test where the machine has none."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("redis-server is not on the PATH; the small one of our own stands in for it")
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *options]
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port))
        yield port, process
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _command(stream: Any) -> list[bytes] | None:
    try:
        head = stream.readline()
        if not head.startswith(b"*"):
            return None
        words = []
        for _ in range(int(head[1:])):
            length = int(stream.readline()[1:])
            words.append(stream.read(length + 2)[:-2])
    except OSError:
        return None
    return words


def encoded(value: Any) -> bytes:
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(encoded(one) for one in value)
    return b"$%d\r\n%s\r\n" % (len(value), value)
