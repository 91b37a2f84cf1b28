"""The models that this process has open, each once, and how many threads it may compute with.

Knows what Ray, Spark and Dask tell a process about its share of the machine; nothing of batches.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from dataclasses import dataclass, field

from q3e_local import machine
from q3e_local.embedding.text_model import TextModel
from q3e_local.opening import connect, load


@dataclass(frozen=True)
class Source:
    """What computes: a model in this process, or a server's."""

    model: str
    server: str | None = None
    n_threads: int | None = None


@dataclass
class _Opened:
    """The open models of a process. `lock` is held while a model is opened, so that none is opened twice."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    models: dict[Source, TextModel] = field(default_factory=dict)


_opened = _Opened()
# In a forked process: what its parent had open. Its threads are not here, so nothing of it may be used or freed.
_of_parents: list[_Opened] = []


def model_of(source: Source) -> TextModel:
    """The open model, which is opened if it is not yet. It stays open until the process ends.

    Raises what `load` or `connect` raises.
    """
    with _opened.lock:
        if source not in _opened.models:
            _opened.models[source] = _open(source)
        return _opened.models[source]


def granted_threads() -> int | None:
    """Threads that the calling program gave this process, up to the cores that it may use; None where nothing says.

    Ray sets OMP_NUM_THREADS to an actor's `num_cpus` (ray/_private/utils.py), Spark to `spark.task.cpus`
    (PythonRunner.scala). Dask sets it to 1 for each of the tasks that a worker runs at once (distributed.yaml); they
    share this process's model, which may so have the threads of all of them.
    """
    granted = _dask_threads() or _omp_threads()
    return None if granted is None else min(granted, machine.physical_cores())


def _open(source: Source) -> TextModel:
    if source.server is not None:
        return connect(source.server, source.model)
    return load(source.model, n_threads=source.n_threads or granted_threads())


def _omp_threads() -> int | None:
    # A list has a number for each level of nested loops, the outermost first.
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def _dask_threads() -> int | None:
    """The tasks that the Dask worker which calls may run at once; None outside of a worker."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        n_threads: int = distributed.get_worker().state.nthreads
    except ValueError:  # this is not a task of a worker
        return None
    return n_threads


def _close() -> None:
    """Free what is open, while llama.cpp is still there to free it."""
    while _opened.models:
        _opened.models.popitem()[1].close()


def _begin_anew() -> None:
    global _opened
    _of_parents.append(_opened)
    _opened = _Opened()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
