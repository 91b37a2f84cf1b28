"""A worker that hangs is noticed, ended and replaced; one that is slow, or stopped together with us, is not.

The rule is tested on counted looks; the rest with real processes that are stopped by SIGSTOP.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fake import FakeEngine, seen
from fake_service import served
from faults import open_faulty
from paths import TESTS
from server_process import running_server

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings
from q3e_local.server.workers.batch_queue import BatchQueue
from q3e_local.server.workers.liveness import Bounds, Liveness, Pace, Progress, Task
from q3e_local.server.workers.worker import WorkerEngine

EOS = FakeEngine.eos_id
posix = pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
# Of real processes: long enough that a busy machine gives some CPU to one that wants it.
SHORT = Bounds(least_s=2.0, factor=0.0, look_s=0.05)


def ids(text: str) -> list[int]:
    return [*text.encode(), EOS]


def until(true: Callable[[], object]) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


# The rule


class Watched:
    """A process that does as the test says, and a watch with bounds of 30 s and ten times the work."""

    def __init__(self) -> None:
        self.activity: tuple[float, int] | None = (0.0, 0)
        self.now = 0.0
        self.liveness = Liveness(Bounds(), lambda: self.activity, lambda: self.now)
        assert self.liveness.look(0) is None

    def looks_until_hung(self, does: Callable[[], None] = lambda: None, n_max: int = 100_000) -> tuple[int, str]:
        """How many seconds pass, and how it hangs then; `does` is what the process does in each second."""
        for n in range(1, n_max + 1):
            does()
            self.now += 1
            hung = self.liveness.look(1)
            if hung is not None:
                return n, hung
        return n_max, ""

    def computes(self) -> None:
        assert self.activity is not None
        self.activity = (self.activity[0] + 0.1, self.activity[1])

    def reads(self) -> None:
        assert self.activity is not None
        self.activity = (self.activity[0], self.activity[1] + 4096)

    def hides(self) -> None:
        self.activity = None


@pytest.mark.parametrize(("expected_s", "limit"), [(0.0, 30), (1.5, 45), (60.0, 630)])
def test_a_process_that_does_nothing_hangs_after_a_time_that_follows_its_work(expected_s: float, limit: int) -> None:
    watched = Watched()
    with watched.liveness.doing(Task("a batch of 9 tokens", expected_s)):
        seconds, hung = watched.looks_until_hung()
    assert seconds == limit + 1
    assert hung == f"neither computed nor read for {limit} s, the limit for a batch of 9 tokens"


@pytest.mark.parametrize("does", [Watched.computes, Watched.reads, Watched.hides])
def test_a_process_that_computes_or_reads_has_ten_times_as_long(does: Callable[[Watched], None]) -> None:
    watched = Watched()
    with watched.liveness.doing(Task("loading", 3)):
        seconds, hung = watched.looks_until_hung(lambda: does(watched))
    assert seconds == 601
    assert hung == "worked for 600 s, the limit for loading, and did not finish"


def test_a_process_that_had_hardly_any_cpu_for_a_while_is_not_taken_for_a_stopped_one() -> None:
    watched = Watched()
    n = 0

    def starved() -> None:
        nonlocal n
        n += 1
        if n % 29 == 0:
            watched.computes()

    with watched.liveness.doing(Task("a batch", 0)):
        assert watched.looks_until_hung(starved, 250) == (250, "")


def test_the_threads_of_an_idle_process_do_not_count_as_work() -> None:
    watched = Watched()

    def ticks() -> None:
        assert watched.activity is not None
        watched.activity = (watched.activity[0] + 0.001, 0)

    with watched.liveness.doing(Task("a batch", 0)):
        assert watched.looks_until_hung(ticks)[0] == 31


def test_each_piece_of_a_long_text_has_its_own_time() -> None:
    watched = Watched()
    with watched.liveness.doing(Task("a piece of a text of 32768 tokens", 1)) as progress:
        for _ in range(200):
            assert watched.looks_until_hung(watched.computes, 300) == (300, "")
            progress.part_done()
        # After pieces of 300 s, it may take 600 s and ten times that.
        assert watched.looks_until_hung()[0] == 30 + 10 * 600 + 1


def test_who_waits_for_nothing_does_not_hang_and_work_that_is_done_is_forgotten() -> None:
    watched = Watched()
    assert watched.looks_until_hung(n_max=1000) == (1000, "")
    with watched.liveness.doing(Task("a long text", 100)):
        with watched.liveness.doing(Task("a batch", 0)):
            assert watched.looks_until_hung(n_max=30) == (30, "")
        assert watched.looks_until_hung()[0] == 1030 - 30 + 1


def test_while_the_machine_sleeps_or_all_of_us_are_stopped_no_time_passes() -> None:
    """Each look is an hour after the one before: it counts as two looks."""
    now, n_looks = 0.0, 0

    def clock() -> float:
        nonlocal now
        now += 3600
        return now

    def activity() -> tuple[float, int]:
        nonlocal n_looks
        n_looks += 1
        return 0.0, 0

    liveness = Liveness(Bounds(least_s=0.1, factor=0, look_s=0.001), activity, clock)
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(liveness.watch)
        with liveness.doing(Task("a batch", 0)):
            assert "neither computed nor read" in (hung.result(20) or "")
    assert n_looks > 0.1 / 0.002


def test_a_watch_that_is_closed_ends() -> None:
    liveness = Liveness(Bounds(), lambda: (0.0, 0))
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(liveness.watch)
        with liveness.doing(Task("a batch", 0)):
            liveness.close()
            assert hung.result(20) is None
        assert pool.submit(liveness.watch).result(20) is None


def test_the_pace_gets_slower_at_once_and_faster_slowly_and_few_tokens_say_little() -> None:
    pace = Pace()
    assert pace.expected_s(500) == pytest.approx(10)  # 50 tokens a second, for all that is known
    pace.measure(500, 1)
    assert pace.expected_s(500) == pytest.approx(1)
    pace.measure(500, 5)
    assert pace.expected_s(500) == pytest.approx(5)
    pace.measure(500, 1)
    assert pace.expected_s(500) == pytest.approx(4.2)
    pace = Pace()
    pace.measure(2, 1.28)  # the weights are read for two tokens too
    assert pace.expected_s(512) == pytest.approx(5.12)
    assert pace.expected_s(1) == pytest.approx(1.28)


def test_what_a_process_does_shows_in_what_the_system_says_of_it(tmp_path: Path) -> None:
    before = machine.activity(os.getpid())
    assert before is not None
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = machine.activity(os.getpid())
    assert after is not None
    assert after[0] >= before[0] + 0.05
    assert machine.activity(2**22 + 1) is None


# Real processes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "faulty.gguf"
    path.write_text("fine", encoding="ascii")
    return path


@pytest.fixture
def worker(path: Path) -> Iterator[WorkerEngine]:
    worker = WorkerEngine(path, open_engine=open_faulty, bounds=SHORT)
    yield worker
    worker.close()


def stop(worker: WorkerEngine) -> psutil.Process:
    """Stop its process, so that it does nothing any more."""
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    process = psutil.Process(worker.pid)
    until(lambda: process.status() == psutil.STATUS_STOPPED)
    return process


@posix
def test_a_worker_stopped_at_work_is_ended_its_call_fails_and_the_next_is_answered(worker: WorkerEngine) -> None:
    worker.load()
    first = worker.pid
    with pytest.raises(
        WorkerDiedError,
        match=rf"^the process of faulty \(pid {first}\) was ended because it hung: it neither computed nor read for "
        "2 s, the limit for a batch of 5 tokens; try again, the next request starts a new one$",
    ):
        worker.decode([ids("stop")])
    assert first is not None
    assert not psutil.pid_exists(first)
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
    assert (worker.n_deaths, worker.n_restarts) == (1, 1)


@posix
def test_a_worker_stopped_at_rest_costs_the_next_request_time_and_nothing_else(worker: WorkerEngine) -> None:
    worker.load()
    for call in (lambda: worker.decode([ids("a")]), lambda: worker.tokenize("x" * 1_000_000)):
        process = stop(worker)
        assert len(call()) in (1, 1_000_000)
        assert not process.is_running()
    assert worker.n_deaths == 2


@posix
def test_a_worker_that_computes_for_ever_is_ended_too(path: Path) -> None:
    bounds = Bounds(least_s=60.0, factor=0.0, look_s=0.05)
    worker = WorkerEngine(path, open_engine=open_faulty, bounds=bounds)
    try:
        worker.load()
        assert worker._process is not None
        worker._process._liveness._bounds = Bounds(least_s=60.0, factor=0.0, busy_factor=0.01, look_s=0.05)
        with pytest.raises(
            WorkerDiedError, match=r"it worked for 0\.6 s, the limit for a batch of 5 tokens, and did"
        ):
            worker.decode([ids("spin")])
        assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
    finally:
        worker.close()


@posix
def test_a_load_that_hangs_is_ended_and_not_tried_again_and_again(path: Path) -> None:
    path.write_text("stop")
    worker = WorkerEngine(path, open_engine=open_faulty, bounds=SHORT)
    with pytest.raises(WorkerDiedError, match=r"hung: it neither .* 2 s, the limit for loading$"):
        worker.load()
    with pytest.raises(WorkerDiedError, match=r"hung: .* this was \d s ago, and is tried again in \d s$"):
        worker.load()
    assert worker.n_deaths == 1
    worker.close()


@posix
def test_a_text_that_hangs_the_worker_fails_alone(worker: WorkerEngine) -> None:
    async def scenario() -> list[Any]:
        queue = BatchQueue(worker, 100)
        texts = ("before", "stop", "after")
        results = await asyncio.gather(*(queue.decode([ids(text)]) for text in texts), return_exceptions=True)
        await queue.close(5)
        return results

    worker.load()
    before, failed, after = asyncio.run(scenario())
    assert "it hung" in str(failed)
    assert (seen(before[0]), seen(after[0])) == ((EOS, 7), (EOS, 6))
    assert worker.n_deaths == 2  # with the others, and by itself


@posix
def test_a_worker_that_cannot_be_killed_is_left_behind(worker: WorkerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that hangs in a driver."""
    monkeypatch.setattr("q3e_local.server.workers.process._ENDING_S", 0.3)
    worker.load()
    assert worker._process is not None
    left = worker._process._process
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

    def part_done(progress: Progress) -> None:
        nonlocal n_done
        n_done += 1

    monkeypatch.setattr(Progress, "part_done", part_done)
    worker = WorkerEngine(tiny_gguf("f16"), EngineConfig(n_threads=1, n_batch=64))
    try:
        worker.decode([[5] * 639 + [eos_id]])
        assert n_done == 10
        worker.decode([[5] * 63 + [eos_id]])
        assert n_done == 10
    finally:
        worker.close()


@posix
def test_closing_ends_a_stopped_worker_and_whoever_waits_for_it(path: Path) -> None:
    worker = WorkerEngine(path, open_engine=open_faulty)
    worker.load()
    process = stop(worker)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(worker.decode, [ids("abc")]), pool.submit(worker.tokenize, "x" * 1_000_000)]
        until(lambda: worker._process is not None and len(worker._process._liveness._under_way) == 2)
        worker.close()
        for call in calls:
            assert "closed" in str(call.exception(20))
    assert not process.is_running()


# The server


@pytest.fixture(scope="module")
def service_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "faulty.gguf"
    path.write_text("fine", encoding="ascii")
    return path


@pytest.fixture(scope="module")
def hanging(service_path: Path) -> Iterator[tuple[LocalService, httpx.Client]]:
    """A service whose worker counts as hung after 2 s without a sign of life, and a client of its server."""
    settings: dict[str, Any] = {"models": ("demo",), "cache": None}

    def make(_: Path) -> WorkerEngine:
        return WorkerEngine(service_path, open_engine=open_faulty, bounds=SHORT)

    service = LocalService(ServerSettings(**settings), EngineConfig(n_threads=1), make)
    with served(service, **settings) as client:
        client.timeout = httpx.Timeout(60)
        yield service, client


@posix
@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/api/embed", {"model": "demo", "input": "stop"}, lambda answer: answer["error"]),
        ("/v1/embeddings", {"model": "demo", "input": "stop"}, lambda answer: answer["error"]["message"]),
        ("/embed", {"inputs": "stop"}, lambda answer: answer["error"]),
        ("/embedding", {"content": "stop"}, lambda answer: answer["error"]["message"]),
    ],
)
def test_a_request_whose_worker_hangs_gets_its_500_in_its_dialect(
    hanging: tuple[LocalService, httpx.Client], path: str, body: dict[str, Any], message: Callable[[Any], str]
) -> None:
    service, http = hanging
    n_deaths = service.counters()["n_worker_deaths"]
    answer = http.post(path, json=body)
    assert answer.status_code == 500
    assert "was ended because it hung: it neither computed nor read for 2 s, the limit for " in message(answer.json())
    assert service.counters()["n_worker_deaths"] == n_deaths + 1
    assert http.post("/api/embed", json={"model": "demo", "input": "abc"}).status_code == 200


SERVER = """
import sys
from pathlib import Path
from faults import open_faulty
from q3e_local.server import run
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import settings
from q3e_local.server.workers.worker import WorkerEngine

def make(settings):
    return LocalService(settings, None, lambda _: WorkerEngine(Path(sys.argv[1]), open_engine=open_faulty))

if __name__ == "__main__":
    chosen = settings({"port": 0, "models": ("demo",), "cache": None}, config=Path("none"))
    sys.exit(run.serve(chosen, make, stop_s=0.5))
"""


@posix
@pytest.mark.parametrize("at_work", [False, True])
def test_a_server_whose_worker_is_stopped_ends_within_its_bound(path: Path, tmp_path: Path, at_work: bool) -> None:
    """Long before the worker counts as hung, which takes 30 s and more here."""
    script = tmp_path / "script.py"
    script.write_text(SERVER)
    env = {"PYTHONPATH": str(TESTS), "Q3E_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    with running_server(env=env, program=[sys.executable, str(script), str(path)]) as running:
        running.wait_for("try: ", 60)
        (worker,) = [
            child
            for child in psutil.Process(running.process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        answers: list[int] = []
        request = threading.Thread(
            target=lambda: answers.append(running.ask("POST", "/api/embed", {"model": "demo", "input": "stop"})[0])
        )
        if at_work:
            request.start()
        else:
            worker.suspend()
        until(lambda: worker.status() == psutil.STATUS_STOPPED)
        running.process.send_signal(signal.SIGTERM)
        assert running.wait(25) == 0
        until(lambda: not worker.is_running())
        if at_work:
            request.join(20)
            assert answers == [503]
