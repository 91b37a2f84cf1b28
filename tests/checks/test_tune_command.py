"""`q3e-local tune` as people call it, and the child process in which it measures, whatever ends that process."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import demo, run

from q3e_local import machine
from q3e_local.checks import tune_child
from q3e_local.checks.tune import Row, TuneResult, Tuning
from q3e_local.checks.tune_child import MeasuredModel, ModelInChild
from q3e_local.errors import CrashError
from q3e_local.files import state_folder
from q3e_local.llama import child
from q3e_local.llama.kernels import in_use
from q3e_local.llama.kernels.choice import OFF, VARIABLE
from q3e_local.llama.settings.defaults import Host, Reason, Settings, Tuned, defaults
from q3e_local.models.catalog import models_folder

SIGNALS = pytest.mark.skipif(sys.platform == "win32", reason="signals")


class Cursed(MeasuredModel):
    """The demo model, whose process ends with batches of 1,024 or 2,048 tokens."""

    def use(self, settings: Settings) -> None:
        if settings.n_batch == 1024:
            os.write(2, b"ggml.c:1: GGML_ASSERT(n_tokens > 0) failed\n")
            os.abort()
        if settings.n_batch == 2048:
            os.kill(os.getpid(), signal.SIGILL)
        super().use(settings)


class CursedAtOnce(MeasuredModel):
    def use(self, settings: Settings) -> None:
        os.kill(os.getpid(), signal.SIGILL)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[psutil.Process]]:
    """The processes that were started; at the end none may be left."""
    before, found = set(psutil.Process().children()), []
    start = child.start_unsignalled

    def started(process: Any) -> None:
        start(process)
        found.append(psutil.Process(process.pid))

    monkeypatch.setattr(child, "start_unsignalled", started)
    yield found
    assert found
    assert [each for each in found if each.is_running()] == []
    left = [each for each in psutil.Process().children() if "resource_tracker" not in " ".join(each.cmdline())]
    assert set(left) <= before


@SIGNALS
def test_a_model_in_a_child_survives_what_ends_its_process(monkeypatch, children):
    monkeypatch.setattr(tune_child, "MeasuredModel", Cursed)
    path = models_folder() / "demo.gguf"
    with closing(ModelInChild(path)) as model:
        usual = defaults(Host(model.platform.n_cores))
        model.use(usual)
        texts = model.make(3, 16)
        assert [len(demo().engine.tokenize(text)) + 1 for text in texts] == [16] * 3
        assert model.speed(texts) > 0
        reason = Reason("given", "being measured")
        for n_batch, cause in (
            (1024, r"SIGABRT .*last words: ggml\.c:1: GGML_ASSERT"),
            (2048, r"SIGILL \(this build"),
        ):
            with pytest.raises(CrashError, match=cause):
                model.use(usual.changed("n_batch", n_batch, reason))
            model.use(usual)
            assert not set(model.make(5, 16)) & set(texts)
            assert model.speed(texts) > 0
    assert len(children) == 3


@SIGNALS
def test_the_command_shows_what_ends_the_process_and_keeps_the_rest(monkeypatch, children):
    monkeypatch.setattr(tune_child, "MeasuredModel", Cursed)
    monkeypatch.setenv(VARIABLE, OFF)  # with AMX the default is 1,024
    for name in ("logical_cpus", "physical_cores"):  # no other number of threads to try
        monkeypatch.setattr(machine, name, lambda: 1)
    result = run("tune", "-m", "demo", "--seconds", 600)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [" ".join(line.split()) for line in lines if line.strip().endswith(" ends the process here")] == [
        "n_batch 1024 ends the process here",
        "n_batch 2048 ends the process here",
    ]
    for n_batch, n_rounds in ((1024, 0), (2048, 0), (512, 1)):
        assert any(re.search(rf"n_batch *│ +{n_batch} *│.*│ +{n_rounds} *│", line) for line in lines)
    by_abort, by_ill = (line for line in lines if line.startswith("left out: "))
    assert by_abort.startswith("left out: n_batch: 1024 ends the process here, by SIGABRT (llama.cpp stopped itself)")
    assert by_ill.startswith("left out: n_batch: 2048 ends the process here, by SIGILL (this build of llama.cpp ")
    assert lines[-1].startswith("kept after ")
    assert "n_batch 512" in lines[-1]


@SIGNALS
def test_where_the_defaults_end_the_process_the_command_says_so_and_keeps_nothing(monkeypatch, children):
    monkeypatch.setattr(tune_child, "MeasuredModel", CursedAtOnce)
    result = run("tune", "-m", "demo")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the process of llama.cpp was ended by SIGILL (this build of llama.cpp ")
    assert result.stderr.endswith("; q3e-local doctor says what to do about it\n")
    assert not (state_folder() / "tuned").exists()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 1,024 tokens win, whatever the demo model does; a budget below 5 s is enough for threads alone."""

    def run(self: Tuning, budget_s: float) -> TuneResult:
        best = Tuned(4, None if budget_s < 5 else 1024, "2026-11-20")
        rows = [
            Row("n_batch", 512, {"medium": 1000.0}, None, 5, False),
            Row("n_batch", 1024, {"medium": 2000.0}, 2.0, 5, True),
        ]
        return TuneResult(best, rows, ["n_batch: no room"], budget_s)

    monkeypatch.setattr(Tuning, "run", run)


def explained() -> list[str]:
    return run("embed", "-m", "demo", "--text", "one", "-q", "--explain").stderr.splitlines()


def untuned() -> str:
    return f"demo: {defaults(Host(1, kernels=in_use.chosen().variant)).explained('n_batch')}"


@pytest.mark.usefixtures("fast")
def test_what_was_found_is_shown_kept_used_and_forgotten():
    result = run("tune", "-m", "demo", "--seconds", 7)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"demo on {machine.cpu_name()}, ")
    rows = [line for line in lines if line.startswith("│")]
    assert any("n_batch" in row and "1024" in row and "2.00" in row and "best" in row for row in rows)
    assert lines[-2:] == ["left out: n_batch: no room", "kept after 7 s: n_threads 4, n_batch 1024"]
    assert explained()[-1] == "demo: n_batch 1024 (tuned on 2026-11-20)"
    assert run("tune", "-m", "demo", "--reset").stderr == "demo: defaults from now on\n"
    assert explained()[-1] == untuned()
    assert run("tune", "-m", "demo", "--reset").stderr == "demo: nothing was tuned\n"


@pytest.mark.usefixtures("fast")
def test_a_shorter_tuning_leaves_what_a_longer_tuning_found_and_says_so():
    run("tune", "-m", "demo", "--seconds", 7)
    assert run("tune", "-m", "demo", "--seconds", 3).stdout.splitlines()[-2:] == [
        "kept after 3 s: n_threads 4",
        "kept from before: n_batch 1024",
    ]
    assert explained()[-1] == "demo: n_batch 1024 (tuned on 2026-11-20)"
    found = json.loads(run("tune", "-m", "demo", "--seconds", 3, "--json").stdout)
    assert found["from_before"] == {"n_batch": 1024}


@pytest.mark.usefixtures("fast")
def test_json_has_all_of_it():
    found = json.loads(run("tune", "-m", "demo", "--json").stdout)
    assert list(found) == [
        "model", "digest", "place", "kept_in", "best", "from_before", "rows", "left_out", "seconds",
    ]  # fmt: skip
    assert found["best"]["n_batch"] == 1024
    assert found["place"]["kernels"] == in_use.chosen().name
    kept = json.loads(Path(found["kept_in"]).read_text())
    assert (kept["tuned"], kept["place"], kept["measured"]) == (found["best"], found["place"], found["rows"])


def test_a_real_model_is_tuned_in_no_time():
    result = run("tune", "-m", "demo", "--seconds", 0, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["rows"] == []
    assert (found["best"]["n_batch"], found["kept_in"]) == (None, None)
    assert not (state_folder() / "tuned").exists()
    last = run("tune", "-m", "demo", "--seconds", 0).stdout.splitlines()[-1]
    assert re.fullmatch(r"nothing new is kept: --seconds is too few, about --seconds [1-9]\d*0 is enough", last)
    assert explained()[-1] == untuned()


def test_ctrl_c_keeps_nothing_and_ends_the_child(monkeypatch, children):
    def interrupted(self: Tuning, budget_s: float) -> TuneResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tuning, "run", interrupted)
    assert run("tune", "-m", "demo").exit_code == 130
    assert not (state_folder() / "tuned").exists()
