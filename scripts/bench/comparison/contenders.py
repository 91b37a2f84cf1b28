"""The parent's hand on each contender: start, measure, weigh, stop.

Knows processes and memory; the work is done in children and servers.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from comparison import client
from comparison.kind import NotHereError
from comparison.workloads import Given, Workload
from q3e_local.wording.endings import manner

HERE = Path(__file__).parent
START_S = 600  # 4B takes a while on a slow disk, more where a contender repacks its weights
ANSWER_S = 1800  # one text of 8,192 tokens takes a slow contender minutes
OF_LLAMA = ("library", "llama_embed")
_ENDING_S = 5.0  # how long a process that hung up may take to end


class DiedError(RuntimeError):
    """A contender's process ended by itself, or gave no answer; the text says how, as `SIGILL (...)`."""


@dataclass(frozen=True)
class Measured:
    """One contender in one round. `latencies` where each text was a request of its own."""

    seconds: float
    n_texts: int
    n_tokens: int
    vectors: Any = None
    latencies: list[float] | None = None

    @property
    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "seconds": self.seconds,
            "texts": self.n_texts,
            "tokens": self.n_tokens,
            "tokens_per_s": self.n_tokens / self.seconds,
            "texts_per_s": self.n_texts / self.seconds,
        }
        if self.latencies:
            marks = np.quantile(self.latencies, [0.5, 0.9, 0.99]) * 1000
            found["latency_ms"] = dict(zip(("p50", "p90", "p99"), marks.tolist(), strict=True))
        return found


@dataclass
class Memory:
    """Bytes, summed over a contender's processes: each one's peak RSS, and the PSS when it was last looked at."""

    peak_rss: int = 0
    pss: int = 0

    def see(self, other: Memory) -> None:
        self.peak_rss, self.pss = max(self.peak_rss, other.peak_rss), max(self.pss, other.pss)


class Contender(Protocol):
    """`start` raises NotHereError; `settings` says what it ran with once it has started.

    `start` and `measure` raise DiedError where its process ends or is silent, RuntimeError where it says no.
    """

    settings: Any
    memory: Memory

    def start(self) -> None: ...

    def measure(self, given: Given, workload: Workload) -> Measured: ...

    def stop(self) -> None: ...


def memory_of(pid: int) -> Memory:
    """A process and all below it. On Linux peaks are the kernel's own; elsewhere RSS as it is now."""
    found = Memory()
    try:
        top = psutil.Process(pid)
        processes = [top, *top.children(recursive=True)]
    except psutil.Error:
        return found
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            found.peak_rss += _high_water(process)
            with contextlib.suppress(AttributeError):
                found.pss += process.memory_full_info().pss
    return found


def _high_water(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


def environment() -> dict[str, str]:
    """Ours without the variables that would change what a contender does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("Q3E_", "OLLAMA_", "LLAMA_"))}
    kept |= {name: os.environ[name] for name in ("Q3E_HOME",) if name in os.environ}
    return kept | {"HF_HUB_OFFLINE": "1"}


@dataclass
class InChild:
    """A library in a child process."""

    kind: str
    options: dict[str, Any]
    scratch: Path
    python: str = sys.executable
    variables: dict[str, str] = field(default_factory=dict)  # of its environment
    takes_ids: bool = False
    n_batch: int = 0  # texts it computes at once; 0: what it likes
    settings: Any = None
    memory: Memory = field(default_factory=Memory)
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [self.python, str(HERE / "child.py")]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=environment() | self.variables,
            )  # fmt: skip
        except OSError as error:
            raise NotHereError(f"{self.python} does not start: {error.strerror}") from None
        try:
            self.settings = self.ask({"kind": self.kind, "options": self.options})["settings"]
            if self.n_batch:
                self.settings["texts a call"] = self.n_batch
        except BaseException:
            self.stop()
            raise

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with in_time(process):
            with contextlib.suppress(BrokenPipeError):  # what it said before it ended is read below
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line.endswith("\n"):
                raise DiedError(crashed(process.wait(), is_llama=self.kind in OF_LLAMA))
        answer: dict[str, Any] = json.loads(line)
        if "not_here" in answer:
            raise NotHereError(answer["not_here"])
        if "error" in answer:
            raise RuntimeError(f"{self.kind}: {answer['error']}")
        return answer

    def measure(self, given: Given, workload: Workload) -> Measured:
        vectors = self.scratch / f"{self.kind}-{os.getpid()}.npy"
        request = {"texts": given.texts, "instruction": given.instruction, "vectors": str(vectors)}
        if self.takes_ids:
            request |= {"ids": given.ids, "n_batch": self.n_batch}
        answer = self.ask(request)
        assert self._process is not None
        self.memory.see(memory_of(self._process.pid))
        return Measured(answer["seconds"], len(given.texts), answer["tokens"], np.load(vectors))

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None


@dataclass
class Cli:
    """`q3e-local embed`, one process for each measurement: starting, loading and writing a .npy are in its time."""

    model: Path
    scratch: Path
    settings: Any = None
    memory: Memory = field(default_factory=Memory)

    def start(self) -> None:
        self.settings = {"command": "q3e-local embed --jsonl text -o vectors.npy"}

    def measure(self, given: Given, workload: Workload) -> Measured:
        texts, vectors = self.scratch / "texts.jsonl", self.scratch / "cli.npy"
        rows = vectors.with_name(f"{vectors.name}.rows.jsonl")
        texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in given.texts), encoding="utf-8")
        command = [sys.executable, "-m", "q3e_local", "embed", str(texts), "--jsonl", "text", "-m", str(self.model)]
        command += ["-o", str(vectors), "--force", "--offline", "-q", "--no-cache"]
        if given.instruction is not None:
            command += ["--as", "query", "--instruction", given.instruction]
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            with in_time(process):
                with process.stderr:
                    said = process.stderr.read()
                peak = _wait(process)
                _check(process.returncode, said)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - began
        # It is gone before its PSS could be asked for.
        self.memory.see(Memory(peak_rss=peak))
        n_tokens = sum(json.loads(line)["tokens"] for line in rows.read_text(encoding="utf-8").splitlines())
        return Measured(seconds, len(given.texts), n_tokens, np.load(vectors))

    def stop(self) -> None:
        pass


@contextlib.contextmanager
def in_time(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Kill a process that does not answer in time: whoever waits for it hears of its end. Raises DiedError then."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(ANSWER_S, kill)
    timer.start()
    try:
        yield
    except DiedError:
        if late.is_set():
            raise DiedError(f"no answer for {ANSWER_S:,} s") from None
        raise
    finally:
        timer.cancel()


def crashed(exit_code: int, said: str = "", is_llama: bool = False) -> str:
    """How a process ended. The reasons for most signals are those of llama.cpp, and said of it alone."""
    how = manner(exit_code)
    return _with_last(how if is_llama or "llama.cpp" not in how else how.partition(" (")[0], said)


def _check(exit_code: int, said: str) -> None:
    if exit_code != 0:
        raise DiedError(_with_last(manner(exit_code), said))


def _with_last(how: str, said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return f"{how}: {lines[-1].strip()}" if lines else how


def _wait(process: subprocess.Popen[str]) -> int:
    """Wait for a process: the bytes it held at most, as the system counted them."""
    if not hasattr(os, "wait4"):
        process.wait()
        return 0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass
class Server:
    """A server on a free port and its clients. One client sends all texts in one request; many send one each."""

    command: Sequence[str]  # `--host` and `--port` are added
    model: str  # as requests name it
    scratch: Path
    takes_instruction: bool = False
    variables: dict[str, str] = field(default_factory=dict)  # of its environment
    settings: Any = None
    memory: Memory = field(default_factory=Memory)
    _process: subprocess.Popen[bytes] | None = None
    _port: int = 0

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        log = self.scratch / f"{Path(self.command[0]).name}-{self._port}.log"
        with log.open("wb") as output:
            command = [*self.command, "--host", "127.0.0.1", "--port", str(self._port)]
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment() | self.variables
            )
        try:
            self._wait_until_ready(log)
        except BaseException:
            self.stop()
            raise
        log.unlink()

    def _wait_until_ready(self, log: Path) -> None:
        assert self._process is not None
        ends = time.monotonic() + START_S
        while not client.is_ready(self._port):
            if self._process.poll() is not None or time.monotonic() > ends:
                last = log.read_text(encoding="utf-8", errors="replace")
                raise DiedError(f"{_with_last(manner(self._process.poll()), last)}, while it started; see {log.name}")
            time.sleep(0.05)

    def measure(self, given: Given, workload: Workload) -> Measured:
        bodies = self._bodies(given, one_each=workload.n_clients > 0)
        assert self._process is not None
        with in_time(self._process):
            try:
                answered = client.ask(self._port, bodies, max(1, workload.n_clients))
            except (OSError, EOFError) as error:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_ENDING_S)
                code = self._process.poll()
                raise DiedError(manner(code) if code is not None else f"it hung up: {error}") from None
        self.memory.see(memory_of(self._process.pid))
        vectors, n_tokens = client.vectors_of(answered.bodies)
        latencies = answered.latencies if workload.n_clients else None
        return Measured(answered.seconds, len(given.texts), n_tokens, vectors, latencies)

    def _bodies(self, given: Given, one_each: bool) -> list[bytes]:
        fields: dict[str, Any] = {"model": self.model, "encoding_format": "base64"}
        texts = given.prompted
        if self.takes_instruction and given.instruction is not None:
            fields |= {"input_type": "query", "instruction": given.instruction}
            texts = given.texts
        inputs: list[Any] = list(texts) if one_each else [texts]
        return [json.dumps({**fields, "input": one}).encode() for one in inputs]

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None


def end(process: subprocess.Popen[Any]) -> None:
    """Ask a process to end, and make it."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    process.terminate()
    killer = threading.Timer(20, process.kill)
    killer.start()
    process.wait()
    killer.cancel()
    if process.stdout is not None:
        process.stdout.close()
