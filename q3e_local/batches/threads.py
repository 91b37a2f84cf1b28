"""How many threads this process may compute with, by what Ray, Spark or Dask says of its share of the machine."""

from __future__ import annotations

import os
import sys
from functools import cache

from q3e_local import machine


@cache
def granted_threads() -> int | None:
    """Threads that the calling program gave this process, up to the cores that it may use; None where nothing says.

    Asked once, so that all batches of a process have the same model.
    Ray sets OMP_NUM_THREADS to an actor's `num_cpus` (ray/_private/utils.py), Spark to `spark.task.cpus`
    (PythonRunner.scala). Dask sets it to 1 for each of the tasks that a worker runs at once (distributed.yaml); they
    share this process's model, which may so have the threads of all of them.
    """
    granted = _dask_threads() or _omp_threads()
    return None if granted is None else min(granted, machine.physical_cores())


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
