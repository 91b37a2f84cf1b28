"""WorkerEngine: an engine like any other, whose process may die at any time without harm to ours."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fake import seen
from faults import open_faulty, open_tuned
from paths import TESTS

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import BadVectorError, EngineError, ModelFileError, NotEnoughMemoryError, OptionError
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.settings.defaults import TUNABLE
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.http import logs
from q3e_local.server.workers.batch_queue import BatchQueue
from q3e_local.server.workers.worker import RETRY_S, FailedLoads, WorkerEngine
from q3e_local.vectors import finish

EOS = 256
KILL = signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM


def ids(text: str) -> list[int]:
    return [*text.encode(), EOS]


def until(true: Callable[[], object]) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "faulty.gguf"
    path.write_text("fine", encoding="ascii")
    return path


@pytest.fixture
def worker(path: Path) -> Iterator[WorkerEngine]:
    worker = WorkerEngine(path, open_engine=open_faulty)
    yield worker
    worker.close()


def n_tries(path: Path) -> int:
    return len(path.with_suffix(".tries").read_text().split())


def test_it_is_the_engine_of_its_process(tiny_gguf: Callable[..., Path], eos_id: int) -> None:
    path, config = tiny_gguf("f16"), EngineConfig(n_threads=1, n_batch=64)
    texts = ["gravity", "Strange <|endoftext|> <think> é 中国", ""]
    worker = WorkerEngine(path, config)
    with LlamaEngine(path, config) as engine:
        worker.load()
        try:
            for name in (
                "digest",
                "n_embd",
                "n_ctx_max",
                "n_batch",
                "n_seq_max",
                "eos_id",
                "added_tokens",
                "n_vocab",
            ):
                assert getattr(worker, name) == getattr(engine, name), name
            found = worker.tokenize_all(texts)
            assert found == [engine.tokenize(text) for text in texts] == [worker.tokenize(text) for text in texts]
            assert [worker.detokenize(one) for one in found] == texts
            batch = [[*one, eos_id] for one in found]
            np.testing.assert_array_equal(worker.decode(batch), engine.decode(batch))
            assert worker.decode([]).shape == (0, engine.n_embd)
            with pytest.raises(EngineError, match="must be ids below"):
                worker.decode([[1, 2]])
            with pytest.raises(OptionError, match="between 0 and 1020, got 1 to 1021"):
                worker.detokenize([1, 1021])
            finish(worker.decode(batch))
        finally:
            worker.close()


def test_detokenizing_gives_the_text_back_whatever_its_length(tiny_gguf: Callable[..., Path]) -> None:
    with LlamaEngine(tiny_gguf("f16"), EngineConfig(n_threads=1, n_batch=64)) as engine:
        for text in ("", "a", "capital of China 中国 😀\n\t" * 300, "<|im_start|><tool_call>"):
            assert engine.detokenize(engine.tokenize(text)) == text
        cut = engine.tokenize("中")[:1]
        assert "�" in engine.detokenize(cut) or engine.detokenize(cut) == "中"


def test_closing_ends_the_process_and_every_later_call(worker: WorkerEngine) -> None:
    worker.load()
    process = psutil.Process(worker.pid)
    worker.close()
    assert not process.is_running()
    worker.close()
    for call in (worker.load, lambda: worker.tokenize("a"), lambda: worker.decode([ids("a")])):
        with pytest.raises(EngineError, match="closed"):
            call()


@pytest.mark.parametrize("content", ["fine", "slow"])
def test_closing_ends_what_runs(path: Path, content: str) -> None:
    """A load or a decode that takes long does not hold up the end."""
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


def test_killed_while_idle_nobody_notices_but_the_log(worker: WorkerEngine, caplog: pytest.LogCaptureFixture) -> None:
    worker.load()
    first = worker.pid
    assert first is not None
    os.kill(first, KILL)
    until(lambda: caplog.records)
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
    assert worker.pid != first
    assert worker.n_restarts == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"the process of faulty (pid {first}) was ended by" in line
    if sys.platform != "win32":
        assert "SIGKILL (the system ran out of memory, or someone ended it)" in line


def test_killed_and_asked_at_once_the_call_is_made_again(worker: WorkerEngine) -> None:
    for call in (lambda: worker.decode([ids("abc")]), lambda: worker.tokenize("abc")):
        worker.load()
        assert worker.pid is not None
        os.kill(worker.pid, KILL)
        assert len(call()) in (1, 3)


def test_killed_while_working_only_that_call_fails(worker: WorkerEngine, caplog: pytest.LogCaptureFixture) -> None:
    worker.load()
    first = worker.pid
    assert first is not None
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(worker.decode, [ids("sleep")])
        until(lambda: "asleep" in caplog.text)
        assert worker.tokenize("beside the decode") == ids("beside the decode")[:-1]
        os.kill(first, KILL)
        with pytest.raises(WorkerDiedError, match=r"faulty.*was ended by.*the next request starts a new one"):
            call.result(20)
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("abort", "SIGABRT"),
        ("exit", "exit code 7"),
        ("segfault", "SIGSEGV"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_text_that_ends_the_process_fails_alone(worker: WorkerEngine, text: str, cause: str) -> None:
    with pytest.raises(WorkerDiedError, match=cause):
        worker.decode([ids("before"), ids(text)])
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_text_that_ends_the_process_costs_those_of_other_requests_nothing(worker: WorkerEngine) -> None:
    async def scenario() -> list[Any]:
        queue = BatchQueue(worker, 100)
        texts = ("before", "assert", "after")
        results = await asyncio.gather(*(queue.decode([ids(text)]) for text in texts), return_exceptions=True)
        await queue.close(5)
        return results

    worker.load()
    before, failed, after = asyncio.run(scenario())
    assert "SIGABRT" in str(failed)
    assert "GGML_ASSERT" in str(failed)
    assert (seen(before[0]), seen(after[0])) == ((EOS, 7), (EOS, 6))
    assert worker.n_deaths == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_text_that_ends_the_process_while_tokenizing_fails_alone(worker: WorkerEngine) -> None:
    with pytest.raises(WorkerDiedError, match="SIGABRT"):
        worker.tokenize("tokenize:abort")
    assert worker.tokenize("abc") == ids("abc")[:-1]


@pytest.mark.skipif(sys.platform == "win32", reason="stderr of POSIX")
def test_the_last_words_of_native_code_are_in_the_error_and_the_log(
    worker: WorkerEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WorkerDiedError, match=r"SIGABRT.*last words: ggml.c:1: GGML_ASSERT\(n_tokens > 0\) failed"):
        worker.decode([ids("assert")])
    until(lambda: [record for record in caplog.records if record.levelno == logging.ERROR])
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "GGML_ASSERT(n_tokens > 0) failed" in line


def test_a_process_that_hung_up_but_lives_on_is_replaced(
    worker: WorkerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pipes are gone: asking it once more would report the same process id for ever."""
    monkeypatch.setattr("q3e_local.server.workers.process._ENDING_S", 0.3)
    worker.load()
    first = worker.pid
    assert first is not None
    with pytest.raises(WorkerDiedError, match="does not answer any more"):
        worker.decode([ids("deaf")])
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
    assert worker.pid != first
    until(lambda: not psutil.pid_exists(first))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_death_shows_at_once_and_is_counted_and_so_is_the_new_load(
    worker: WorkerEngine, caplog: pytest.LogCaptureFixture, at_once: bool
) -> None:
    caplog.set_level(logging.INFO, "q3e_local.server")
    assert not worker.is_running
    worker.load()
    assert (worker.is_running, worker.n_deaths) == (True, 0)
    assert worker.pid is not None
    os.kill(worker.pid, KILL)
    if not at_once:
        until(lambda: not worker.is_running)
        until(lambda: worker.n_deaths == 1)
    worker.decode([ids("abc")])
    assert (worker.is_running, worker.n_deaths, worker.n_restarts) == (True, 1, 1)
    died, again = [record.getMessage() for record in caplog.records]
    assert died.startswith("the process of faulty (pid ")
    assert again.startswith("loaded faulty again in ")
    assert "was ended by" in again


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("memory", NotEnoughMemoryError, "this text needs 9.00 GB"),
        ("out of memory", NotEnoughMemoryError, "no memory left"),
        ("engine", EngineError, "llama_decode answered 1"),
        ("raise", EngineError, "KeyError: 'a mistake of ours'"),
        ("BAD", BadVectorError, "text 1: the fake has no vector"),
    ],
)
def test_errors_cross_as_they_are_and_the_process_stays(
    worker: WorkerEngine, text: str, kind: type[Exception], message: str
) -> None:
    worker.load()
    first = worker.pid
    with pytest.raises(kind, match=message) as failed:
        worker.decode([ids("fine"), ids(text)])
    assert type(failed.value) is kind
    assert getattr(failed.value, "index", 1) == 1
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
    assert worker.pid == first


def test_its_log_lines_come_to_ours(worker: WorkerEngine, caplog: pytest.LogCaptureFixture) -> None:
    worker.decode([ids("log")])
    until(lambda: caplog.records)
    assert caplog.record_tuples == [("q3e_local.llama.engine", logging.WARNING, "a line from the child")]


def test_a_model_that_cannot_load_says_so_each_time_but_is_tried_once(path: Path) -> None:
    path.write_text("broken")
    worker = WorkerEngine(path, open_engine=open_faulty)
    for _ in range(5):
        with pytest.raises(ModelFileError, match=r"faulty\.gguf is broken"):
            worker.load()
    assert n_tries(path) == 1
    assert worker.pid is None
    path.write_text("fine again")
    assert worker.tokenize("a") == [97]
    worker.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("content", "cause"), [("abort", "SIGABRT"), ("kill", "SIGKILL")])
def test_a_load_that_ends_the_process_is_told_and_not_tried_again_and_again(
    path: Path, content: str, cause: str
) -> None:
    path.write_text(content)
    worker = WorkerEngine(path, open_engine=open_faulty)
    with pytest.raises(WorkerDiedError, match=f"{cause}.* while it loaded$"):
        worker.load()
    for _ in range(3):  # the same process, and no promise that the next request starts another
        with pytest.raises(
            WorkerDiedError, match=rf"{cause}.* while it loaded; this was \d s ago, .* again in \d s$"
        ):
            worker.load()
    assert n_tries(path) == worker.n_deaths == 1
    worker.close()


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


def test_killed_between_load_and_first_answer(path: Path) -> None:
    worker = WorkerEngine(path, open_engine=open_faulty)
    worker.load()
    assert worker.pid is not None
    os.kill(worker.pid, KILL)
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
    worker.close()


def test_another_file_under_the_same_path_is_not_taken_for_the_first(path: Path, worker: WorkerEngine) -> None:
    worker.load()
    assert worker.pid is not None
    os.kill(worker.pid, KILL)
    path.write_text("another")
    with pytest.raises(ModelFileError, match="another file than the one that was loaded"):
        worker.decode([ids("abc")])


def test_what_was_tuned_meanwhile_does_not_change_the_batches_of_a_model_in_use(path: Path) -> None:
    path.with_suffix(".tuned").write_text("64")
    worker = WorkerEngine(path, open_engine=open_tuned)
    try:
        worker.load()
        assert worker.n_batch == 64
        assert worker.pid is not None
        path.with_suffix(".tuned").write_text("32")
        os.kill(worker.pid, KILL)
        worker.decode([ids("abc")])
        assert (worker.n_batch, worker.n_restarts) == (64, 1)
    finally:
        worker.close()


def test_calls_from_many_threads_each_get_their_own_answer(worker: WorkerEngine) -> None:
    def ask(n: int) -> None:
        text = "x" * n
        assert len(worker.tokenize(text)) == n
        assert seen(worker.decode([ids(text)])[0]) == (EOS, n + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(1, 60)))
    assert worker.n_restarts == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_signals_to_all_processes_leave_the_worker_at_its_work(worker: WorkerEngine) -> None:
    """Ctrl-C and a service manager's SIGTERM reach it as well; the server decides when it is over."""
    worker.load()
    first = worker.pid
    assert first is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(first, number)
    assert seen(worker.decode([ids("abc")])[0]) == (EOS, 4)
    assert worker.pid == first


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit()", "worker.close()"])
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_worker_ends_with_its_server_and_leaves_stdout_alone(path: Path, tmp_path: Path, end: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom faults import open_faulty\n"
        "from q3e_local.server.workers.worker import WorkerEngine\n"
        "if __name__ == '__main__':\n"
        f"    worker = WorkerEngine(Path({str(path)!r}), open_engine=open_faulty)\n"
        "    worker.load()\n    print(worker.pid, flush=True)\n"
        f"    {end}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    until(lambda: not psutil.pid_exists(int(done.stdout)))
    assert "Traceback" not in done.stderr


def test_the_server_imports_no_llama_cpp(path: Path) -> None:
    code = "import sys, q3e_local.server.local.local_service; print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_thread_stays(path: Path) -> None:
    before = set(threading.enumerate())
    worker = WorkerEngine(path, open_engine=open_faulty)
    worker.load()
    worker.close()
    assert set(threading.enumerate()) <= before


def test_the_server_can_log_how_its_process_runs_the_model(
    tiny_gguf: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "q3e_local")
    path = tiny_gguf("f16")
    worker = WorkerEngine(path, EngineConfig(n_threads=1))
    worker.load()
    worker.close()
    lines = [record.getMessage() for record in caplog.records if record.name == "q3e_local.settings"]
    assert lines[0] == f"{path.stem}: {worker.kernels.explained}"
    assert lines[1 + len(worker.kernels.faster) :][:2] == [
        f"{path.stem}: n_threads 1 (given)",
        f"{path.stem}: n_batch 512 (default)",
    ]
    assert len(lines) == 1 + len(worker.kernels.faster) + len(TUNABLE)


@pytest.mark.parametrize("explain", [False, True])
def test_it_does_so_only_when_asked(explain: bool, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("q3e_local", "uvicorn")
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).propagate) for name in names}
    logger = logging.getLogger("q3e_local.settings")
    try:
        logs.set_up("text", explain)
        logger.info("n_batch 512 (default)")
        assert ("n_batch 512 (default)" in capsys.readouterr().err) is explain
    finally:
        for name, (handlers, propagate) in before.items():
            logging.getLogger(name).handlers[:], logging.getLogger(name).propagate = handlers, propagate
            logging.getLogger(name).setLevel(logging.NOTSET)
        logger.setLevel(logging.NOTSET)
        logging.getLogger("q3e_local.llama").setLevel(logging.NOTSET)
