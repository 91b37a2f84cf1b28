"""A worker that hangs is noticed, ended and replaced: real processes, which SIGSTOP stops."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from batches import EOS, ids
from fake import seen
from fake_service import served
from faults import open_faulty
from server_process import in_background, running_server, workers_of
from waiting import until

from q3e_local.embedding.engine import EngineConfig
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings
from q3e_local.server.workers.liveness import Bounds, TaskInProgress
from q3e_local.server.workers.worker import WorkerEngine

posix = pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
# Long enough that even a busy machine gives CPU time to a process that wants it.
SHORT = Bounds(least_s=2.0, factor=0.0, look_s=0.05)


@pytest.fixture
def bounds() -> Bounds:
    return SHORT


def stop(worker: WorkerEngine) -> psutil.Process:
    """Stop its process, so that it does nothing any more."""
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    process = psutil.Process(worker.pid)
    until(lambda: process.status() == psutil.STATUS_STOPPED)
    return process


@posix
def test_a_worker_stopped_while_idle_delays_the_next_request_and_fails_none(worker: WorkerEngine) -> None:
    worker.load()
    for call in (lambda: worker.decode([ids("a")]), lambda: worker.tokenize("x" * 1_000_000)):
        process = stop(worker)
        assert len(call()) in (1, 1_000_000)
        assert not process.is_running()
    assert worker.n_deaths == 2


@posix
def test_a_worker_that_computes_for_ever_is_ended_too(worker: WorkerEngine) -> None:
    worker.load()
    # Set after loading, which takes longer than the new bounds; no caller changes the bounds of a worker.
    worker._process._liveness._bounds = Bounds(least_s=60.0, factor=0.0, busy_factor=0.01, look_s=0.05)
    with pytest.raises(WorkerDiedError, match=r"it worked for 0\.6 s, the limit for a batch of 5 tokens, and did"):
        worker.decode([ids("spin")])
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)


@posix
def test_a_load_that_hangs_is_ended_and_not_tried_again_and_again(path: Path, worker: WorkerEngine) -> None:
    path.write_text("stop")
    with pytest.raises(WorkerDiedError, match=r"hung: it neither .* 2 s, the limit for loading$"):
        worker.load()
    with pytest.raises(WorkerDiedError, match=r"hung: .* this was \d s ago, and is tried again in \d s$"):
        worker.load()
    assert worker.n_deaths == 1


@posix
def test_a_worker_that_cannot_be_killed_is_left_behind(worker: WorkerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs in a driver is such a process."""
    monkeypatch.setattr("q3e_local.server.workers.process._ENDING_S", 0.3)  # otherwise the end takes 5 s
    worker.load()
    left = worker._process._process  # no test can have a real process that outlives a kill
    kill = left.kill
    monkeypatch.setattr(left, "kill", lambda: None)
    process = psutil.Process(worker.pid)
    try:
        with pytest.raises(WorkerDiedError, match="it hung"):
            worker.decode([ids("stop")])
        assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
        assert worker.pid != process.pid
        assert process.is_running()
    finally:
        kill()
        left.join(20)


def test_each_piece_of_a_long_text_is_reported_to_the_server(
    tiny_gguf: Callable[..., Path], eos_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_done = 0

    def part_done(progress: TaskInProgress) -> None:
        nonlocal n_done
        n_done += 1

    monkeypatch.setattr(TaskInProgress, "part_done", part_done)
    with closing(WorkerEngine(tiny_gguf("f16"), EngineConfig(n_threads=1, n_batch=64))) as worker:
        worker.decode([[5] * 639 + [eos_id]])
        assert n_done == 10
        worker.decode([[5] * 63 + [eos_id]])
        assert n_done == 10


@posix
def test_closing_ends_a_stopped_worker_and_whoever_waits_for_it(path: Path) -> None:
    worker = WorkerEngine(path, open_engine=open_faulty)
    worker.load()
    process = stop(worker)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(worker.decode, [ids("abc")]), pool.submit(worker.tokenize, "x" * 1_000_000)]
        until(lambda: len(worker._process._liveness._under_way) == 2)  # a call that has begun shows nowhere else
        worker.close()
        for call in calls:
            assert "closed" in str(call.exception(20))
    assert not process.is_running()


@posix
def test_a_request_whose_worker_hangs_fails_and_the_next_is_answered(worker: WorkerEngine) -> None:
    service = LocalService(ServerSettings(), EngineConfig(n_threads=1), lambda path: worker)
    with served(service, models=("demo",)) as http:
        http.post("/api/generate", json={"model": "demo"})
        pid = worker.pid
        answer = http.post("/api/embed", json={"model": "demo", "input": "stop"})
        assert (answer.status_code, answer.json()["error"]) == (
            500,
            f"the process of faulty (pid {pid}) was ended because it hung: it neither computed nor read for 2 s, the "
            "limit for a batch of 5 tokens; try again, a new one is started then",
        )
        assert not psutil.pid_exists(pid)
        counters = service.counters()
        assert (counters["n_worker_deaths"], counters["n_worker_restarts"]) == (1, 0)
        assert http.post("/api/embed", json={"model": "demo", "input": "abc"}).status_code == 200


@posix
@pytest.mark.parametrize("at_work", [False, True])
def test_a_server_whose_worker_is_stopped_ends_within_its_bound(path: Path, tmp_path: Path, at_work: bool) -> None:
    """Long before the worker counts as hung, which takes 30 s and more here."""
    env = {"Q3E_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    with running_server(env=env, models=["demo"], faulty=str(path), stop_s=0.5) as running:
        running.wait_for("try: ", 60)
        (worker,) = workers_of(running.process.pid)
        if at_work:
            answer = in_background(running.embed, "stop")
        else:
            worker.suspend()
        until(lambda: worker.status() == psutil.STATUS_STOPPED)
        running.process.send_signal(signal.SIGTERM)
        assert running.wait(25) == 0
        until(lambda: not worker.is_running())
        if at_work:
            assert answer.result(20)[0] == 503
