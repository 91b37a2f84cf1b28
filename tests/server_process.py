"""A real server in a process of its own, with a service that a reader can predict by eye.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from q3e_local.embedding.preparing import Terms
from q3e_local.errors import ModelFileError, OptionError, TextTooLongError, UnknownModelError
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.server.errors import QueueFullError
from q3e_local.server.service import Described, LoadedModel, ServiceRequest, ServiceResult, Stopped
from q3e_local.wording.address import parse

KERNELS = Kernels("avx2", "the fastest that this CPU runs", faster=("buy a faster one",))
N_EMBD = 64
N_CTX = 50
PATIENCE_S = 60.0  # for what takes less than a second on an idle machine


class EyeService:
    """Bytes are tokens; a text's vector points along (number of tokens, 1, 0, 0, …).

    A text `wait` says `at work` on stderr and takes until the file `gate` exists; the first request with a text
    `busy` finds the queue full. The first load takes until the file `load_gate` exists, or fails with `load_error`.
    """

    n_batches = 0
    gate = load_gate = load_error = ""

    def __init__(self, settings: Any) -> None:
        self.names: list[str] = []
        self._was_busy = False

    async def embed(self, request: ServiceRequest) -> ServiceResult:
        await self.load(request.model, None)
        if request.dim is not None and not 32 <= request.dim <= N_EMBD:
            raise OptionError(f"dim must be between 32 and {N_EMBD} for demo, got {request.dim}", "dim")
        if "busy" in request.inputs and not self._was_busy:
            self._was_busy = True
            raise QueueFullError("the queue is full", 1)
        limit = request.max_tokens or N_CTX
        counts, cut = [], []
        for index, text in enumerate(request.inputs):
            if text == "wait":
                sys.stderr.write("at work\n")
                sys.stderr.flush()
                await self._opened(self.gate)
            n_tokens = len(text.encode() if isinstance(text, str) else text) + 1
            if n_tokens > limit and not request.truncate:
                raise TextTooLongError(f"has {n_tokens} tokens, the limit is {limit}; truncate it or split it", index)
            counts.append(min(n_tokens, limit))
            cut.append(n_tokens > limit)
        vectors = np.zeros((len(counts), request.dim or N_EMBD), np.float32)
        vectors[:, 0], vectors[:, 1] = counts, 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.n_batches += 1
        space = f"q3e1-{'fa' * 8}-{vectors.shape[1]}-{request.kind or 'plain'}"
        return ServiceResult(vectors, tuple(counts), tuple(cut), request.model, space, 0.0, 0.0)

    async def describe(self, request: ServiceRequest) -> Described:
        await self.load(request.model, None)
        dim = request.dim or N_EMBD
        if not 32 <= dim <= N_EMBD:
            raise OptionError(f"dim must be between 32 and {N_EMBD} for demo, got {request.dim}", "dim")
        space = f"q3e1-{'fa' * 8}-{dim}-{request.kind or 'plain'}"
        terms = Terms("", dim, request.max_tokens or N_CTX, request.truncate, space)
        return Described(request.model, "fa" * 32, N_EMBD, N_CTX, (), terms)

    async def count_tokens(self, model: str, texts: tuple[str, ...]) -> list[int]:
        await self.load(model, None)
        return [len(text.encode()) for text in texts]

    async def _opened(self, gate: str) -> None:
        """Wait until there is a file of this name. Without a name nothing is waited for."""
        while gate and not Path(gate).exists():
            await asyncio.sleep(0.01)

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        if model != "demo":
            raise UnknownModelError(f"there is no model {model!r}")
        if not self.names:
            await self._opened(self.load_gate)
            if self.load_error:
                raise ModelFileError(self.load_error)
        self.names = [model]

    async def unload(self, model: str) -> None:
        self.names = []

    async def stop(self, model: str, wait_s: float) -> Stopped:
        if model != "demo":
            raise UnknownModelError(f"there is no model {model!r}")
        was_loaded, self.names = bool(self.names), []
        return Stopped(model, was_loaded, True)

    async def tokenize(self, model: str, text: str, *, add_end_token: bool, kind: Any = None) -> list[int]:
        return list(text.encode())

    async def detokenize(self, model: str, ids: list[int]) -> str:
        return bytes(ids).decode()

    async def pieces(self, model: str, ids: list[int]) -> list[bytes]:
        return [bytes([each]) for each in ids]

    def loaded(self) -> list[LoadedModel]:
        return [LoadedModel(name, 1_000_000, N_CTX, time.time() + 300, False, KERNELS) for name in self.names]

    async def pull(self, name: str, progress: Any) -> None:
        raise UnknownModelError(name)

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
        """The first line with this in it."""
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
        got = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return got

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


@contextmanager
def running_server(
    *, env: dict[str, str] | None = None, program: list[str] | None = None, **options: Any
) -> Iterator[Running]:
    """A server on a free port, with the fake service; gone at the end, whatever happens."""
    command = program or [sys.executable, __file__, json.dumps({"port": 0} | options)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=inherited | (env or {}))
    running = Running(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        running.wait()
        assert process.stderr is not None
        process.stderr.close()


def main() -> int:
    from q3e_local.server import run
    from q3e_local.server.http import connection, guard
    from q3e_local.server.settings import settings

    options = json.loads(sys.argv[1])
    stop_s = options.pop("stop_s", 10.0)
    connection._HEADERS_S = options.pop("headers_s", connection._HEADERS_S)
    connection._STALLED_S = options.pop("stalled_s", connection._STALLED_S)
    guard.Guard.__init__.__kwdefaults__["idle_s"] = options.pop("idle_s", 20.0)
    for name in ("gate", "load_gate", "load_error"):
        setattr(EyeService, name, options.pop(name, ""))
    lists = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    return run.serve(settings(options | lists, config=Path("none")), EyeService, stop_s)


if __name__ == "__main__":
    from q3e_local.errors import Q3EError

    try:
        sys.exit(main())
    except Q3EError as error:
        sys.exit(f"Error: {error}")
