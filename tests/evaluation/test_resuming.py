"""An evaluation that was interrupted, even killed, goes on: what the cache has is not computed again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from paths import TESTS
from planted import N_QUESTIONS, corpus, opened, planted, questions, vectors

from q3e_local.cache.choose import open_cache
from q3e_local.evaluation import Evaluation, columns, evaluate

N_TEXTS = 2 * N_QUESTIONS
N_TIMED = 5  # questions that are computed anew in every run, to see how long one takes
COMPARED = columns(dims=(256, 64), modes=("vectors", "hybrid"))


# An evaluation that kills its own process when so many texts are embedded.
KILLED = """
import os, signal
from planted import *
from q3e_local.cache.choose import open_cache
from q3e_local.evaluation import evaluate

def kill(what, n_done, n_total, n_cached):
    if what.startswith("embedding") and n_done == 24:
        os.kill(os.getpid(), signal.SIGKILL)

model = planted(vectors(256), open_cache("on"))
evaluate(questions(), corpus=corpus(), models=opened(model), progress=kill)
"""


def run(cache: str, progress=lambda *counts: None) -> tuple[Evaluation | None, list[str]]:
    """The evaluation, None where it was interrupted, and the texts that were computed."""
    model = planted(vectors(256), open_cache(cache))
    try:
        found = evaluate(questions(), COMPARED, corpus=corpus(), models=opened(model), progress=progress)
    except KeyboardInterrupt:
        found = None
    finally:
        model.close()
    return found, model.engine.decoded


def figures(found: Evaluation | None) -> list[object]:
    assert found is not None
    return [(result.column, result.measures, result.differences) for result in found.results]


def interrupting(n: int):
    """A progress that presses Ctrl-C when so many texts are embedded."""

    def press(what: str, n_done: int, n_total: int, n_cached: int) -> None:
        if what.startswith("embedding") and n_done == n:
            raise KeyboardInterrupt

    return press


def test_after_ctrl_c_only_what_is_missing_is_computed():
    stopped, first = run("on", interrupting(20))
    assert stopped is None
    assert 20 <= len(first) < N_QUESTIONS
    found, rest = run("on")
    assert len(rest) == N_TEXTS - len(first) + N_TIMED
    assert not set(first) & {text for text in rest if text.startswith("passage")}
    assert figures(found) == figures(run("off")[0])
    assert len(run("on")[1]) == N_TIMED


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_where_it_was():
    script = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{KILLED}"
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    found, rest = run("on")
    n_kept = N_TEXTS - (len(rest) - N_TIMED)
    assert 20 <= n_kept < N_QUESTIONS
    assert figures(found) == figures(run("off")[0])


def test_progress_counts_what_the_cache_had():
    run("on", interrupting(20))
    told: dict[str, tuple[int, int, int]] = {}
    run("on", lambda what, *counts: told.update({what: counts}))
    passages = told["embedding 40 passages with planted"]
    assert passages[:2] == (40, 40)
    assert 20 <= passages[2] < 40
    assert told["embedding 40 questions with planted"] == (40, 40, 0)
    assert told["asking 40 questions, column 4 of 4"] == (40, 40, 0)


def test_nothing_is_kept_where_there_is_no_cache():
    assert len(run("off")[1]) == len(run("off")[1]) == N_TEXTS + N_TIMED
    assert not Path("home", "cache").exists()
