"""A real server in another process, with a service that a reader can predict by eye.

As a program, `python server_process.py OPTIONS-AS-JSON` runs `q3e-local serve`'s own code with the service below.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from fake_service import FakeService

from q3e_local.errors import ModelFileError
from q3e_local.server.errors import QueueFullError
from q3e_local.server.service import ServiceRequest, ServiceResult
from q3e_local.wording.address import parse

N_EMBD = 64
PATIENCE_S = 60.0  # for what takes less than a second on an idle machine
KEY = {"Authorization": "Bearer key"}
HEAD = b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n"


class EyeService(FakeService):
    """The fake with vectors that point along (number of tokens, 1, 0, 0, …), and with gates.

    A text `wait` says `at work` on stderr and takes until the file `gate` exists; the first request with a text
    `busy` finds the queue full. The first load takes until the file `load_gate` exists, or fails with `load_error`.
    Each text takes `text_s` seconds.
    """

    n_embd, n_ctx, dim_min, digest = N_EMBD, 50, 32, "fa" * 8
    n_batches = 0
    gate = load_gate = load_error = ""
    text_s = 0.0

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self._was_busy = False

    def row(self, last: int, n_ids: int, is_query: bool) -> tuple[float, ...]:
        return n_ids, 1, 0, 0

    async def embed(self, request: ServiceRequest) -> ServiceResult:
        if "busy" in request.inputs and not self._was_busy:
            self._was_busy = True
            raise QueueFullError("the queue is full", 1)
        self.n_batches += 1
        await asyncio.sleep(self.text_s * len(request.inputs))
        return await super().embed(request)

    async def wait(self) -> None:
        sys.stderr.write("at work\n")
        sys.stderr.flush()
        await self._opened(self.gate)

    async def _opened(self, gate: str) -> None:
        """Wait until there is a file of this name. Without a name nothing is waited for."""
        while gate and not Path(gate).exists():
            await asyncio.sleep(0.01)

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        if not self.in_memory:
            await self._opened(self.load_gate)
            if self.load_error:
                raise ModelFileError(self.load_error)
        await super().load(model, keep_alive_s)

    def counters(self) -> dict[str, float]:
        return {"n_batches": self.n_batches, "n_worker_restarts": 0}

    async def close(self) -> None:
        sys.stderr.write("service closed\n")
        sys.stderr.flush()


class Running:
    """A server that runs. `lines` are what it wrote to stderr so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._read = threading.Thread(target=self._collect, daemon=True)
        self._read.start()

    def _collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))

    def wait_for(self, part: str, seconds: float = PATIENCE_S) -> str:
        """The first line that has this part."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in list(self.lines):
                if part in line:
                    return line
            if self.process.poll() is not None and not self._read.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError(f"{part!r} is not in\n" + "\n".join(self.lines))

    @property
    def url(self) -> str:
        return self.wait_for(" listens on ").split()[-1]

    def connect(self) -> http.client.HTTPConnection:
        address = parse(self.url).to_connect()
        return http.client.HTTPConnection(address.host, address.port, timeout=PATIENCE_S)

    def socket(self) -> socket.socket:
        address = parse(self.url).to_connect()
        return socket.create_connection((address.host, address.port), timeout=PATIENCE_S)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body."""
        connection = self.connect()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        answer = connection.getresponse()
        answered = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return answered

    def embed(self, text: str = "hello", headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        return self.ask("POST", "/api/embed", {"model": "demo", "input": text}, KEY if headers is None else headers)

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended and all lines are read."""
        code = self.process.wait(seconds)
        self._read.join(PATIENCE_S)
        return code

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and answer its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def clients_of(pid: int) -> set[int]:
    """The ports of those who have a connection to a server's process."""
    return {connection.raddr.port for connection in psutil.Process(pid).net_connections() if connection.raddr}


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that have the models of a server's process."""
    return [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]


def in_background(work: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work, *arguments, **options)
    pool.shutdown(wait=False)
    return future


@contextmanager
def running_server(
    *, env: dict[str, str] | None = None, program: list[str] | None = None, **options: Any
) -> Iterator[Running]:
    """A server on a free port, with the fake service; gone at the end, whatever happens."""
    command = program or [sys.executable, __file__, json.dumps({"port": 0} | options)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")}
    streams = {"stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, env=inherited | (env or {}), **streams) as process:
        running = Running(process)
        try:
            yield running
        finally:
            process.kill()
            running.wait()


def _on_worker(faulty: Path) -> Callable[[Any], Any]:
    """Makes the real service, on a worker that fails as the file says."""
    from faults import open_faulty

    from q3e_local.server.local.local_service import LocalService
    from q3e_local.server.workers.worker import WorkerEngine

    return lambda settings: LocalService(settings, None, lambda _: WorkerEngine(faulty, open_engine=open_faulty))


def main() -> int:
    from q3e_local.server import run
    from q3e_local.server.http import connection, guard
    from q3e_local.server.settings import settings

    options = json.loads(sys.argv[1])
    faulty = options.pop("faulty", "")
    stop_s = options.pop("stop_s", 10.0)
    connection._HEADERS_S = options.pop("headers_s", connection._HEADERS_S)
    connection._STALLED_S = options.pop("stalled_s", connection._STALLED_S)
    guard.Guard.__init__.__kwdefaults__["idle_s"] = options.pop("idle_s", 20.0)
    for name in ("gate", "load_gate", "load_error", "text_s", "digest"):
        setattr(EyeService, name, options.pop(name, getattr(EyeService, name)))
    lists = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    make = _on_worker(Path(faulty)) if faulty else EyeService
    return run.serve(settings(options | lists, config=Path("none")), make, stop_s)


if __name__ == "__main__":
    from q3e_local.errors import Q3EError

    try:
        sys.exit(main())
    except Q3EError as error:
        sys.exit(f"Error: {error}")
