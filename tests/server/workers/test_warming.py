"""Batches that a server computes before it says that it is ready: where a GPU computes, and nowhere else."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import pytest
from fake_service import FakeService
from faults import open_on_gpu
from workers import FakeWorker

from q3e_local.embedding.engine import EngineConfig
from q3e_local.embedding.prompts import Prompts
from q3e_local.errors import EngineError
from q3e_local.models.installed import Located
from q3e_local.server.http.preload import Preload
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings
from q3e_local.server.workers.warming import warm_up
from q3e_local.server.workers.worker import WorkerEngine

LOCATED = Located("demo", Path("demo.gguf"), Prompts())


@pytest.fixture
def on_gpu() -> FakeWorker:
    worker = FakeWorker(LOCATED)
    worker.on_gpu = True
    return worker


def test_a_full_batch_and_a_single_text_are_computed(on_gpu, caplog):
    with caplog.at_level(logging.INFO):
        warm_up(on_gpu, "demo")
    full, single = on_gpu.batches
    assert len(full) > 1
    assert sum(map(len, full)) == on_gpu.n_batch
    assert len(full) <= on_gpu.n_seq_max
    assert [len(ids) for ids in single] == [16]
    assert all(ids[-1] == on_gpu.eos_id for ids in [*full, *single])
    assert "warmed demo up in " in caplog.text


def test_the_cpu_has_nothing_to_compile():
    worker = FakeWorker(LOCATED)
    warm_up(worker, "demo")
    assert worker.batches == []


def test_a_batch_holds_no_more_texts_than_it_may(on_gpu):
    on_gpu.n_batch, on_gpu.n_seq_max = 32, 1
    warm_up(on_gpu, "demo")
    assert [len(batch) for batch in on_gpu.batches] == [1, 1]


def test_what_fails_is_a_warning_and_the_server_starts(on_gpu, caplog):
    def fail(*arguments: object) -> None:
        raise EngineError("the device is gone")

    on_gpu.decode = fail
    warm_up(on_gpu, "demo")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "demo is not warmed up: the device is gone"
    ]


def test_it_works_through_the_process_of_a_model(tmp_path: Path, caplog) -> None:
    path = tmp_path / "faulty.gguf"
    path.write_text("fine", encoding="ascii")
    config = EngineConfig(n_batch=64)
    with (
        closing(WorkerEngine(path, config, open_engine=open_on_gpu)) as worker,
        caplog.at_level(logging.INFO, "q3e_local"),
    ):
        warm_up(worker, "faulty")
    assert "warmed faulty up in " in caplog.text


async def test_a_model_of_the_start_is_warmed_up_once_it_is_loaded_and_before_the_server_is_ready():
    service = FakeService()
    await Preload(service, ["demo", "demo-query"]).load()
    assert service.warmed == [("demo", True), ("demo-query", True)]


async def test_the_service_warms_the_worker_of_the_model_up(on_gpu):
    service = LocalService(ServerSettings(), make_worker=lambda located: on_gpu)
    try:
        await service.warm_up("demo")
    finally:
        await service.close()
    assert len(on_gpu.batches) == 2
