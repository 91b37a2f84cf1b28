"""WorkerEngine: an engine like any other, though its model is in another process."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from batches import EOS, ids
from fake import seen
from faults import open_faulty, open_on_gpu
from gpus import device
from waiting import until

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import BadVectorError, EngineError, NotEnoughMemoryError, OptionError
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.settings.defaults import TUNABLE, Host, defaults
from q3e_local.server.http import logs
from q3e_local.server.workers.worker import WorkerEngine

CONFIG = EngineConfig(n_threads=1, n_batch=64)


@pytest.fixture
def engine(tiny_gguf: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with LlamaEngine(tiny_gguf("f16"), CONFIG) as engine:
        yield engine


def test_it_is_the_engine_of_its_process(engine: LlamaEngine, tiny_gguf: Callable[..., Path], eos_id: int) -> None:
    texts = ["gravity", "Strange <|endoftext|> <think> é 中国", ""]
    with closing(WorkerEngine(tiny_gguf("f16"), CONFIG)) as worker:
        for name in ("digest", "n_embd", "n_ctx_max", "n_batch", "n_seq_max", "eos_id", "added_tokens", "n_vocab"):
            assert getattr(worker, name) == getattr(engine, name), name
        tokenized = worker.tokenize_all(texts)
        assert tokenized == [engine.tokenize(text) for text in texts] == [worker.tokenize(text) for text in texts]
        assert [worker.detokenize(of_text) for of_text in tokenized] == texts
        batch = [[*of_text, eos_id] for of_text in tokenized]
        np.testing.assert_array_equal(worker.decode(batch), engine.decode(batch))
        assert worker.decode([]).shape == (0, engine.n_embd)
        with pytest.raises(EngineError, match="must be ids below"):
            worker.decode([[1, 2]])
        with pytest.raises(OptionError, match="between 0 and 1020, got 1 to 1021"):
            worker.detokenize([1, 1021])


def test_detokenizing_gives_the_text_back_whatever_its_length(engine: LlamaEngine) -> None:
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


def test_that_vectors_are_coarse_is_known_with_the_first_of_them_and_for_good(worker: WorkerEngine) -> None:
    worker.decode([ids("fine")])
    assert worker.n_keepable >= worker.n_ctx_max
    worker.decode([ids("coarse")])
    assert worker.n_keepable == 8
    psutil.Process(worker.pid).kill()
    worker.decode([ids("fine")])
    assert worker.n_keepable == 8  # a vector of the first process may still be on its way to a cache


def test_one_that_shall_leave_gpus_is_loaded_on_the_cpu(path: Path) -> None:
    for options in ({}, {"device": "CUDA0"}, {"n_gpu_layers": 3}):
        with closing(WorkerEngine(path, EngineConfig(**options), open_engine=open_on_gpu)) as worker:
            worker.leave_gpus()
            worker.load()
            assert not worker.on_gpu


def test_calls_from_many_threads_each_get_their_own_answer(worker: WorkerEngine) -> None:
    def call(n: int) -> None:
        text = "x" * n
        assert len(worker.tokenize(text)) == n
        assert seen(worker.decode([ids(text)])[0]) == (EOS, n + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(1, 60)))
    assert worker.n_restarts == 0


def test_the_server_imports_no_llama_cpp() -> None:
    code = "import sys, q3e_local.server.local.local_service; print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_thread_stays(path: Path) -> None:
    before = set(threading.enumerate())
    with closing(WorkerEngine(path, open_engine=open_faulty)) as worker:
        worker.load()
    assert set(threading.enumerate()) <= before


def test_the_server_can_log_how_its_process_runs_the_model(
    tiny_gguf: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "q3e_local")
    path = tiny_gguf("f16")
    with closing(WorkerEngine(path, EngineConfig(n_threads=1))) as worker:
        worker.load()
    lines = [record.getMessage() for record in caplog.records if record.name == "q3e_local.settings"]
    assert lines[0] == f"{path.stem}: {worker.kernels.explained}"
    assert lines[1 + len(worker.kernels.faster) :][:2] == [
        f"{path.stem}: n_threads 1 (given)",
        f"{path.stem}: {defaults(Host(1, kernels=worker.kernels.variant)).explained('n_batch')}",
    ]
    assert len(lines) == 1 + len(worker.kernels.faster) + len(TUNABLE)


@pytest.mark.parametrize("explain", [False, True])
def test_the_server_logs_it_only_with_explain(explain: bool, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("q3e_local", "uvicorn", "q3e_local.settings", "q3e_local.llama")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    try:
        logs.set_up("text", explain)
        logging.getLogger("q3e_local.settings").info("n_batch 512 (default)")
        assert ("n_batch 512 (default)" in capsys.readouterr().err) is explain
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(logging.NOTSET)


def test_where_the_layers_are_and_what_gpus_have_free_crosses_from_the_process(tmp_path: Path) -> None:
    path = tmp_path / "faulty.gguf"
    path.write_text("fine", encoding="ascii")
    with closing(WorkerEngine(path, open_engine=open_on_gpu)) as worker:
        worker.look()
        assert worker.known is None  # a look loads nothing
        worker.load()
        assert (worker.placement.n_on_gpu, worker.placement.shares, worker.n_bytes) == (4, (900_000,), 1_000_000)
        worker.look()
        assert [each.free_bytes for each in worker.placement.devices] == [device().free_bytes - 1]
        worker.decode([ids("leave the gpu")])
        assert (worker.placement.on_gpu, worker.placement.why) == (False, "for want of GPU memory")
        assert worker.n_bytes == 2_000_000
        worker.look()  # at nothing, now
        assert not worker.on_gpu


def test_a_look_does_not_wait_for_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "faulty.gguf"
    path.write_text("fine", encoding="ascii")
    with closing(WorkerEngine(path, open_engine=open_on_gpu)) as worker, ThreadPoolExecutor(1) as pool:
        worker.load()
        work = pool.submit(worker.decode, [ids("sleep")])
        until(worker._asking["work"].locked)
        began = time.monotonic()
        worker.look()
        assert time.monotonic() - began < 5  # of the minute that the batch takes
        assert [each.free_bytes for each in worker.placement.devices] == [device().free_bytes]
        worker.close()
        with pytest.raises(EngineError):
            work.result()
