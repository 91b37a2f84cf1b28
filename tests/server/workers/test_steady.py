"""A job on a GPU whose process dies: each batch is computed once and for all, with less on the GPU if need be."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from batches import EOS, ids
from fake import FakeEngine, seen
from faults import open_on_gpu

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, ModelFileError, OptionError
from q3e_local.server.errors import WorkerDiedError
from q3e_local.server.workers.steady import SteadyEngine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process that aborts there opens a window")

MakeEngine = Callable[..., SteadyEngine]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_text("fine", encoding="ascii")
    return path


def opened(path: Path, **options: object) -> SteadyEngine:
    return SteadyEngine(path, EngineConfig(**options), open_engine=open_on_gpu)


def tries(path: Path) -> list[int]:
    """The layers on the GPU of each process that was started."""
    return [int(line.split()[0]) for line in path.with_suffix(".tries").read_text(encoding="ascii").splitlines()]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    of_ours = [record for record in caplog.records if record.name.endswith(".steady")]
    return [record.getMessage() for record in of_ours if record.levelno == logging.WARNING]


def test_a_batch_whose_process_died_is_computed_in_a_new_one_with_the_same_layers(path, caplog):
    with closing(opened(path)) as engine:
        assert [seen(row) for row in engine.decode([ids("before"), ids("once")])] == [(EOS, 7), (EOS, 5)]
        assert engine.placement.n_on_gpu == 4
        assert engine.tokenize("abc") == list(b"abc")
    assert tries(path) == [4, 4]
    (line,) = said(caplog)
    assert "was ended by SIGABRT" in line
    assert line.endswith("what it was doing is done again in a new process")


def test_one_that_dies_again_is_computed_with_fewer_layers_and_in_the_end_on_the_cpu(path, caplog):
    with closing(opened(path, n_batch=48, device="CUDA0")) as engine:
        assert seen(engine.decode([ids("memory of the gpu")])[0]) == (EOS, 18)
        assert (engine.placement.n_on_gpu, engine.n_batch) == (0, 48)
        assert seen(engine.decode([ids("abc")])[0]) == (EOS, 4)
    assert tries(path) == [4, 4, 2, 2, 1, 1, 0]
    assert [line.partition("going on with ")[2] for line in said(caplog) if "going on" in line] == [
        "2 layers on the GPU",
        "1 layers on the GPU",
        "all layers on the CPU",
    ]


def test_one_that_dies_on_the_cpu_too_is_an_error_with_its_last_words(path, caplog):
    with closing(opened(path, n_gpu_layers=1)) as engine:
        with pytest.raises(WorkerDiedError, match="SIGABRT") as died:
            engine.decode([ids("always")])
        assert "request" not in f"{caplog.text}{died.value}"  # of which a command has none
        assert seen(engine.decode([ids("abc")])[0]) == (EOS, 4)
    assert tries(path)[:4] == [1, 1, 0, 0]


def test_a_model_whose_loading_ends_the_process_is_loaded_on_the_cpu(path, caplog):
    path.write_text("full", encoding="ascii")
    with closing(opened(path)) as engine:
        assert seen(engine.decode([ids("abc")])[0]) == (EOS, 4)
        assert engine.placement.n_on_gpu == 0
    assert tries(path) == [4, 0]
    (line,) = said(caplog)  # and none that promises another try with these layers
    assert line.endswith("going on with all layers on the CPU")


def test_a_gpu_that_is_gone_when_fewer_layers_are_tried_leaves_all_to_the_cpu(path, caplog):
    """The number of layers was refused as if the user had given it."""
    path.write_text("unplugged", encoding="ascii")
    with closing(opened(path)) as engine:
        assert seen(engine.decode([ids("memory of the gpu")])[0]) == (EOS, 18)
        assert engine.placement.n_on_gpu == 0
    assert tries(path) == [4, 4, 0]
    assert said(caplog)[-1] == "n_gpu_layers must be 0, got 2: no GPU is here: going on with all layers on the CPU"
    with pytest.raises(OptionError, match="got 3: no GPU is here"):
        opened(path, n_gpu_layers=3)  # which the user did give


def test_a_file_that_another_replaced_meanwhile_is_not_loaded_in_its_place(path):
    path.write_text("replaced", encoding="ascii")
    with closing(opened(path)) as engine:
        with pytest.raises(ModelFileError, match="another file than the one that was loaded"):
            engine.decode([ids("memory of the gpu")])
        with pytest.raises(ModelFileError, match="another file than the one that was loaded"):
            engine.decode([ids("abc")])


def test_a_batch_keeps_the_size_that_callers_were_told(path):
    with closing(opened(path)) as engine:
        before = engine.n_batch
        engine.decode([ids("memory of the gpu")])
        assert engine.n_batch == before
    sizes = {line.split()[1] for line in path.with_suffix(".tries").read_text(encoding="ascii").splitlines()}
    assert sizes == {str(before)}


def test_a_job_has_each_vector_once_and_in_order_although_processes_die(path):
    texts = [f"text {place}" for place in range(40)]
    texts[7], texts[20], texts[33] = "once", "memory of the gpu", "abc"
    expected = Embedder(FakeEngine(n_batch=64), "fake").embed_documents(texts).vectors
    done: list[int] = []
    with closing(opened(path)) as engine:
        embedder = Embedder(engine, "steady")
        found = embedder.embed_documents(texts, progress=lambda n_texts, _: done.append(n_texts)).vectors
    np.testing.assert_array_equal(found, expected)
    assert done == sorted(done)
    assert done[-1] == 40


def test_a_process_that_was_killed_from_outside_is_started_again_for_words_too(path):
    with closing(opened(path)) as engine:
        psutil.Process(engine._worker.pid).kill()
        assert engine.tokenize("abc") == list(b"abc")
        psutil.Process(engine._worker.pid).kill()
        assert engine.pieces([97, 98]) == [b"a", b"b"]
    assert tries(path) == [4, 4, 4]


def test_coarse_vectors_are_no_better_once_another_process_computes(path):
    with closing(opened(path)) as engine:
        engine.decode([ids("fine")])
        assert engine.n_keepable >= engine.n_ctx_max
        engine.decode([ids("coarse")])
        engine.decode([ids("memory of the gpu")])
        assert (engine.placement.on_gpu, engine.n_keepable) == (False, 8)


def test_threads_at_once_step_down_together(path):
    with closing(opened(path)) as engine, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(engine.decode, [ids("memory of the gpu")]) for _ in range(3)]
        assert [seen(answer.result(60)[0]) for answer in answers] == [(EOS, 18)] * 3
        assert engine.placement.n_on_gpu == 0
    assert sorted(tries(path), reverse=True) == tries(path)


def test_closed_it_starts_nothing(path):
    engine = opened(path)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.decode([ids("abc")])
    assert tries(path) == [4]
