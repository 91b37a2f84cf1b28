"""A worker whose process dies: only the calls in flight fail, and the next call finds a new process."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import faults
import psutil
import pytest
from batches import EOS, ids
from fake import seen
from faults import open_faulty, open_tuned
from paths import TESTS
from waiting import until

from q3e_local.errors import EngineError, ModelFileError
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.workers.batch_queue import BatchQueue
from q3e_local.server.workers.failed_loads import RETRY_S, FailedLoads
from q3e_local.server.workers.liveness import Bounds
from q3e_local.server.workers.worker import WorkerEngine

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def kill(worker: WorkerEngine) -> int:
    """Kill the process, which is started first where there is none. Answers its id."""
    worker.load()
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    process.kill()
    return process.pid


def assert_answers(worker: WorkerEngine) -> None:
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)


def n_tries(path: Path) -> int:
    return len(path.with_suffix(".tries").read_text().split())


@pytest.mark.parametrize(
    "call", [lambda worker: worker.decode([ids("abc")])[0][1], lambda worker: len(worker.tokenize("abcd"))]
)
def test_killed_and_called_at_once_the_call_is_made_again(
    worker: WorkerEngine, call: Callable[[WorkerEngine], int]
) -> None:
    kill(worker)
    assert call(worker) == 4


def test_killed_while_working_only_that_call_fails(worker: WorkerEngine, caplog: pytest.LogCaptureFixture) -> None:
    worker.load()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(worker.decode, [ids("sleep")])
        until(lambda: "asleep" in caplog.text)
        assert worker.tokenize("beside the decode") == list(b"beside the decode")
        kill(worker)
        with pytest.raises(WorkerDiedError, match=r"faulty.*was ended by.*try again, a new one is started then"):
            call.result(20)
    assert_answers(worker)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


@posix
def test_a_call_that_ctrl_c_interrupts_ends_the_process_and_is_no_failure(
    worker: WorkerEngine, caplog: pytest.LogCaptureFixture
) -> None:
    worker.load()
    pid = worker.pid
    assert pid is not None

    def interrupt() -> None:
        until(lambda: "asleep" in caplog.text)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.decode([ids("sleep")])
    until(lambda: not psutil.pid_exists(pid))
    assert_answers(worker)
    assert worker.n_deaths == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@posix
@pytest.mark.parametrize(("text", "cause"), [("abort", "SIGABRT"), ("exit", "exit code 7"), ("segfault", "SIGSEGV")])
def test_a_text_that_ends_the_process_fails_with_its_batch(worker: WorkerEngine, text: str, cause: str) -> None:
    with pytest.raises(WorkerDiedError, match=cause):
        worker.decode([ids("before"), ids(text)])
    assert_answers(worker)


@posix
@pytest.mark.parametrize(
    ("text", "cause"),
    [("assert", r"SIGABRT.*last words: ggml.c:1: GGML_ASSERT\(n_tokens > 0\) failed"), ("stop", "it hung")],
)
async def test_a_text_that_ends_or_stops_the_process_costs_other_requests_nothing(
    path: Path, caplog: pytest.LogCaptureFixture, text: str, cause: str
) -> None:
    bounds = Bounds(least_s=2.0, factor=0.0, look_s=0.05)
    with closing(WorkerEngine(path, open_engine=open_faulty, bounds=bounds)) as worker:
        queue = BatchQueue(worker, 100)
        requests = (queue.decode([ids(each)]) for each in ("before", text, "after"))
        results = await asyncio.gather(*requests, return_exceptions=True)
        await queue.close(5)
    assert (seen(results[0][0]), seen(results[2][0])) == ((EOS, 7), (EOS, 6))
    with pytest.raises(WorkerDiedError, match=cause):
        raise results[1]
    assert worker.n_deaths == 2  # with the others, and by itself
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(re.search(cause, error) for error in errors)


@posix
def test_a_text_that_ends_the_process_while_tokenizing_fails_alone(worker: WorkerEngine) -> None:
    with pytest.raises(WorkerDiedError, match="SIGABRT"):
        worker.tokenize("tokenize:abort")
    assert worker.tokenize("abc") == list(b"abc")


def test_a_process_that_hung_up_but_lives_on_is_replaced(
    worker: WorkerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pipes are gone. A worker that used the process again would report the same process id for ever."""
    monkeypatch.setattr("q3e_local.server.workers.process._ENDING_S", 0.3)  # otherwise the end takes 5 s
    worker.load()
    first = worker.pid
    assert first is not None
    with pytest.raises(WorkerDiedError, match="does not answer any more"):
        worker.decode([ids("deaf")])
    assert_answers(worker)
    assert worker.pid != first
    until(lambda: not psutil.pid_exists(first))


@posix
@pytest.mark.parametrize(("content", "cause"), [("abort", "SIGABRT"), ("kill", "SIGKILL")])
def test_a_load_that_ends_the_process_fails_and_is_not_repeated_at_once(
    path: Path, worker: WorkerEngine, content: str, cause: str
) -> None:
    path.write_text(content)
    with pytest.raises(WorkerDiedError, match=f"{cause}.* while it loaded$"):
        worker.load()
    for _ in range(3):  # the error names the same process, and does not say that another one is started
        with pytest.raises(
            WorkerDiedError, match=rf"{cause}.* while it loaded; this was \d s ago, .* again in \d s$"
        ):
            worker.load()
    assert n_tries(path) == worker.n_deaths == 1


def test_a_model_that_cannot_load_says_so_each_time_but_is_tried_once(path: Path, worker: WorkerEngine) -> None:
    path.write_text("broken")
    for _ in range(5):
        with pytest.raises(ModelFileError, match=r"faulty\.gguf is broken"):
            worker.load()
    assert n_tries(path) == 1
    assert worker.pid is None
    path.write_text("fine again")
    assert worker.tokenize("a") == [97]


def test_a_failed_load_is_forgotten_after_a_while(tmp_path: Path) -> None:
    now = 0.0
    failed = FailedLoads(lambda: now)
    failed.check(tmp_path)
    failed.remember(tmp_path, EngineError("no"))
    now = RETRY_S - 0.1
    with pytest.raises(EngineError, match="no"):
        failed.check(tmp_path)
    now = RETRY_S
    failed.check(tmp_path)


def test_another_file_under_the_same_path_is_not_taken_for_the_first(path: Path, worker: WorkerEngine) -> None:
    kill(worker)
    path.write_text("another")
    with pytest.raises(ModelFileError, match="another file than the one that was loaded"):
        worker.decode([ids("abc")])


def test_what_was_tuned_meanwhile_does_not_change_the_batches_of_a_model_in_use(path: Path) -> None:
    path.with_suffix(".tuned").write_text("64")
    with closing(WorkerEngine(path, open_engine=open_tuned)) as worker:
        kill(worker)
        path.with_suffix(".tuned").write_text("32")
        assert_answers(worker)
        assert (worker.n_batch, worker.n_restarts) == (64, 1)


@posix
def test_signals_to_all_processes_leave_the_worker_at_its_work(worker: WorkerEngine) -> None:
    """Ctrl-C and a service manager's SIGTERM reach the worker too; the server decides when its work is over."""
    worker.load()
    first = worker.pid
    assert first is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(first, number)
    assert_answers(worker)
    assert worker.pid == first


@posix
@pytest.mark.parametrize("end", faults.ENDS)
def test_the_worker_ends_with_its_server_and_leaves_stdout_alone(path: Path, end: str) -> None:
    command = [sys.executable, TESTS / "faults.py", path, end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    until(lambda: not psutil.pid_exists(int(done.stdout)))
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["fine", "slow"])
def test_closing_ends_a_load_and_a_decode(path: Path, content: str) -> None:
    """A load or a decode that takes long does not hold up the close."""
    path.write_text(content)
    worker = WorkerEngine(path, open_engine=open_faulty)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(worker.decode, [ids("sleep")])
        until(path.with_suffix(".tries").exists)
        process = psutil.Process(worker.pid)
        worker.close()
        with pytest.raises(EngineError, match="closed"):
            call.result(20)
    assert not process.is_running()
