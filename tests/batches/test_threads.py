"""A process opens a model with the threads that the calling program gave it, and a forked process opens its own."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from command import expected

from q3e_local import EmbedBatches, by_name, machine
from q3e_local.batches.threads import granted_threads


@pytest.fixture(autouse=True)
def _asked_anew():
    granted_threads.cache_clear()
    yield
    granted_threads.cache_clear()
    by_name.close()


@pytest.fixture
def cores(monkeypatch):
    """A machine of 8 cores, and nobody who says how many of them are ours."""
    monkeypatch.setattr(machine, "physical_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delitem(sys.modules, "distributed", raising=False)


@pytest.mark.parametrize(
    ("said", "granted"), [("3", 3), ("4,2", 4), ("64", 8), (None, None), ("", None), ("0", None), ("many", None)]
)
def test_ray_and_spark_say_it_by_a_variable_and_the_cores_are_a_limit(cores, monkeypatch, said, granted):
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert granted_threads() == granted


def test_a_dask_worker_has_the_threads_of_all_tasks_that_it_runs_at_once(cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=4))
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(get_worker=lambda: worker))
    assert granted_threads() == 4


def test_a_process_that_only_talks_to_dask_is_no_worker(cores, monkeypatch):
    def no_worker():
        raise ValueError("No worker found")

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(get_worker=no_worker))
    assert granted_threads() == 2


@pytest.fixture
def opened(monkeypatch):
    """Nothing is open; a list of what is opened, as (model, options)."""
    by_name.close()
    calls = []
    load = by_name.load

    def counted(model, **options):
        calls.append((model, options))
        return load(model, **options)

    monkeypatch.setattr(by_name, "load", counted)
    return calls


def test_a_model_is_opened_at_the_first_batch_and_once_for_all_that_name_it(opened, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    embed, other = EmbedBatches("demo"), EmbedBatches("demo", "body", dim=64)
    assert opened == []
    embed(["a"])
    other({"body": ["a"]})
    assert opened == [("demo", {"cache": None, "n_threads": 1})]
    EmbedBatches("demo", n_threads=2)(["a"])
    assert opened[1:] == [("demo", {"cache": None, "n_threads": 2})]


def test_threads_that_begin_together_open_one(opened):
    embed, made = EmbedBatches("demo"), {}
    threads = [
        threading.Thread(target=lambda text=text: made.update({text: embed([text])[0]})) for text in ("a", "b", "c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    for text, vector in made.items():
        np.testing.assert_allclose(vector, expected([text]).vectors[0], atol=1e-6)


@pytest.mark.skipif(
    not hasattr(multiprocessing.process, "os") or sys.platform == "win32", reason="Windows has no fork"
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_opens_its_own(opened):
    embed = EmbedBatches("demo")
    wanted = embed(["a"])[0]
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=lambda: theirs.send(embed(["a"])[0]))
    child.start()
    try:
        assert ours.poll(60), "the forked process waits for threads that it does not have"
        np.testing.assert_allclose(ours.recv(), wanted, atol=1e-6)
    finally:
        child.kill()
        child.join()
