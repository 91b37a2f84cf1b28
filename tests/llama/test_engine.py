"""The life of a LlamaEngine: loading, settings, threads at once, closing, and what is heard of llama.cpp."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import LENGTHS, N_BATCH, N_CTX, hold, small

import q3e_local
from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, ModelFileError, NotEnoughMemoryError, OptionError
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import binding, forecast
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.kernels import in_use
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.defaults import Reason, Tuned
from q3e_local.server.workers.worker import WorkerEngine

# Loading


def test_weights_larger_than_the_machine_are_refused_before_loading(f32, monkeypatch):
    monkeypatch.setattr(machine, "total_memory", lambda: 5_000_000)
    monkeypatch.setattr(binding, "Weights", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(NotEnoughMemoryError, match=r"needs \d+\.\d MB for its weights, this machine has 5\.0 MB"):
        LlamaEngine(f32, EngineConfig(n_gpu_layers=0))


@pytest.mark.parametrize("quantization", ["f32", "q8_0", "q4_k_m"])
def test_weights_are_never_repacked(tiny_gguf, monkeypatch, quantization):
    """Repacked for AMX, by a llama.cpp that gcc 12 compiled, they ended the process with SIGILL."""
    repacking: list[bool] = []
    load = binding.lib.llama_model_load_from_file

    def loaded(path: bytes, params: Any) -> Any:
        repacking.append(params.use_extra_bufts)
        return load(path, params)

    monkeypatch.setattr(binding.lib, "llama_model_load_from_file", loaded)
    with LlamaEngine(tiny_gguf(quantization), small()):
        assert repacking == [False]


def test_layers_for_a_gpu_that_llama_cpp_was_not_built_for_are_refused(f32, monkeypatch):
    monkeypatch.setattr(binding, "can_offload", lambda: False)
    with pytest.raises(OptionError, match=r"^n_gpu_layers must be 0, got 3: this llama\.cpp was built without a GPU"):
        LlamaEngine(f32, EngineConfig(n_gpu_layers=3))


def test_a_llama_cpp_that_cannot_be_loaded_is_an_error_with_a_way_out(monkeypatch):
    for part in ("engine", "loading"):
        monkeypatch.delitem(sys.modules, f"q3e_local.llama.{part}")
    monkeypatch.setitem(sys.modules, "q3e_local.llama.binding", None)
    monkeypatch.delattr("q3e_local.llama.binding")
    with pytest.raises(
        EngineError, match=r"llama.cpp cannot be loaded: .*; compile it .* llama-cpp-python==0\.3\.36"
    ):
        q3e_local.load("demo")


@pytest.mark.parametrize("ask", [lambda path: WorkerEngine(path).load(), lambda path: forecast.devices()])
def test_a_llama_cpp_that_a_process_of_its_own_cannot_load_is_the_same_error_and_no_traceback(
    f32, tmp_path, monkeypatch, caplog, ask
):
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))  # where no library is
    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    with pytest.raises(EngineError, match=r"^llama.cpp cannot be loaded: .* not found; compile it on this machine"):
        ask(f32)
    assert "Traceback" not in caplog.text


def test_the_build_has_the_libraries_that_compute():
    names = [name for name, size, _ in binding.build() if size > 10_000]
    assert any("llama" in name for name in names)
    assert any("ggml-cpu" in name for name in names)


# What is heard of llama.cpp


@pytest.fixture
def refused(f32: Path, tmp_path: Path) -> Path:
    """A file that only llama.cpp's own check refuses: a key of its vocabulary has another name."""
    path = tmp_path / "refused.gguf"
    path.write_bytes(f32.read_bytes().replace(b"tokenizer.ggml.merges", b"tokenizer.ggml.mergez"))
    return path


def test_llama_cpps_lines_go_to_the_log_and_nothing_to_the_terminal(f32, refused, capfd, caplog):
    caplog.set_level(logging.DEBUG, "q3e_local.llama")
    with LlamaEngine(f32, small()) as engine:
        engine.decode([[engine.eos_id]])
    with pytest.raises(ModelFileError, match=r"llama\.cpp cannot load .*refused\.gguf: .*merges"):
        LlamaEngine(refused, small())
    assert capfd.readouterr() == ("", "")
    assert any(record.name == "q3e_local.llama" and "qwen3" in record.getMessage() for record in caplog.records)


def test_without_logging_set_up_a_load_and_a_failing_load_are_silent(f32, refused):
    script = """
import sys
from pathlib import Path
from q3e_local.errors import ModelFileError
from q3e_local.llama.engine import LlamaEngine
with LlamaEngine(Path(sys.argv[1])) as engine:
    engine.decode([[engine.eos_id]])
try:
    LlamaEngine(Path(sys.argv[2]))
except ModelFileError:
    sys.exit(7)
"""
    answer = subprocess.run([sys.executable, "-c", script, f32, refused], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout, answer.stderr) == (7, "", "")


# Settings


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_threads", 0),
        ("n_threads", 1025),
        ("n_gpu_layers", -1),
        ("n_ctx_max", 0),
        ("n_batch", 0),
        ("n_batch", 65_537),
        ("n_seq_max", 0),
        ("n_seq_max", 257),
    ],
)
def test_a_setting_out_of_range_is_refused_with_both_limits(option, value):
    with pytest.raises(OptionError, match=rf"^{option} must be between \d+ and \d+, got {value}$"):
        EngineConfig(**{option: value})


def test_an_option_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(OptionError, match="no option 'threads'; choose from n_threads, n_gpu_layers"):
        q3e_local.load("demo", threads=2)


def test_the_default_is_a_thread_for_each_physical_core(f32, monkeypatch):
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    for option, n_threads in ((None, 1), (2, 2)):
        with LlamaEngine(f32, small(n_threads=option)) as engine:
            assert engine.n_threads == n_threads


def test_n_ctx_max_lowers_the_files_limit_and_never_raises_it(f32):
    for option, n_ctx_max in ((100, 100), (10_000, N_CTX), (None, N_CTX)):
        with LlamaEngine(f32, small(n_ctx_max=option)) as engine:
            assert engine.n_ctx_max == n_ctx_max


def test_an_engine_runs_as_tuned_and_as_given(f32):
    digest, name = inspect(f32).digest, in_use.chosen().name
    platform = kept.here(binding.version(), binding.features(), "CPU", name)
    kept.keep(digest, platform, Tuned(n_threads=2, n_batch=96, day="2026-11-20"))
    other = replace(platform, kernels="avx2" if name == "off" else "off")
    kept.keep(digest, other, Tuned(n_threads=3, n_batch=128, day="2026-11-21"))
    with LlamaEngine(f32, EngineConfig()) as engine:
        assert (engine.n_threads, engine.n_batch) == (2, 96)
    with LlamaEngine(f32, EngineConfig(n_batch=64)) as engine:
        assert (engine.n_threads, engine.n_batch) == (2, 64)


def test_other_settings_can_be_used_without_loading_anew(f32, sequences, expected):
    with LlamaEngine(f32, small()) as engine:
        engine.decode([sequences[N_CTX]])
        for name, value in {"n_threads": 2, "n_batch": 8}.items():
            engine.use(engine.settings.changed(name, value, Reason("given", "given")))
            assert getattr(engine.settings, name) == value
            for n in (1, 9, N_CTX):
                hold(engine.decode([sequences[n]]), expected[n])


def test_settings_that_cannot_be_used_leave_the_engine_as_it_was(f32, eos_id, monkeypatch):
    with LlamaEngine(f32, small()) as engine:
        before = engine.decode([[5, 6, eos_id]])
        monkeypatch.setattr(machine, "available_memory", lambda: 1000)
        with pytest.raises(NotEnoughMemoryError, match="a batch of 64 tokens needs"):
            engine.use(engine.settings.changed("n_batch", 64, Reason("given", "given")))
        assert engine.n_batch == N_BATCH
        np.testing.assert_array_equal(engine.decode([[5, 6, eos_id]]), before)


# Threads and the end


def test_eight_threads_at_once_get_the_right_vectors_and_ids(engine, tokenizer, sequences, expected):
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(10):
            n = LENGTHS[(number + turn) % 8]
            hold(engine.decode([sequences[n]]), expected[n])
            text = f"text {number} of {turn}"
            assert [*engine.tokenize(text), engine.eos_id] == tokenizer.encode(text).ids

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()


def test_closing_while_others_work_lets_them_finish_or_fail_cleanly(f32, sequences):
    engine, started = LlamaEngine(f32, small()), threading.Barrier(5)

    def work() -> str:
        started.wait()
        try:
            while True:
                engine.tokenize("some text")
                assert engine.decode([sequences[N_CTX]]).shape == (1, 256)
        except EngineError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(work) for _ in range(4)]
        started.wait()
        engine.close()
    assert {each.result() for each in outcomes} <= {
        "the engine is closed", "the engine was closed while it worked",
    }  # fmt: skip


def test_after_closing_every_call_says_so_and_closing_again_is_fine(f32):
    engine = LlamaEngine(f32, small())
    engine.close()
    engine.close()
    for call in (lambda: engine.tokenize("a"), lambda: engine.decode([[5, engine.eos_id]])):
        with pytest.raises(EngineError, match="the engine is closed"):
            call()


def test_an_engine_that_nobody_closed_frees_its_memory_at_once(f32, monkeypatch):
    freed = []
    monkeypatch.setattr(binding.Weights, "free", lambda self: freed.append(self))
    gc.disable()  # it must not be part of a cycle
    engine = LlamaEngine(f32, small())
    engine.decode([[5, engine.eos_id]])
    del engine
    gc.enable()
    assert len(freed) == 1
