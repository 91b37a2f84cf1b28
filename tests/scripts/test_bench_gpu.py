"""scripts/bench/gpu.py: what it plans, what it keeps where a step is stopped, its arithmetic and its table.

No card is here: the steps run on the CPU with the demo model, so that their code is run.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comparing import BENCH, DEMO

from q3e_local.embedding.embedder import Embedder

MODULES = ("plan", "table", "timing", "checks", "speed")


@pytest.fixture(scope="module")
def card() -> Iterator[SimpleNamespace]:
    """The modules of scripts/bench/card, which the script finds too while a test uses this fixture."""
    sys.path.insert(0, str(BENCH))
    yield SimpleNamespace(**{name: importlib.import_module(f"card.{name}") for name in MODULES})
    sys.path.remove(str(BENCH))
    for name in [name for name in sys.modules if name.split(".")[0] == "card"]:
        del sys.modules[name]


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> tuple[dict[str, Any], str, str]:
    """What a run kept, and what it said on stdout and stderr."""
    main = runpy.run_path(str(BENCH / "gpu.py"))["main"]
    output = folder / "gpu.json"
    given = ["--device", "none", "--model", f"demo={DEMO}", "--work", folder, "--output", output, *arguments]
    assert main([*map(str, given)]) == 0
    said = capsys.readouterr()
    assert output.with_suffix(".md").read_text(encoding="utf-8").strip() == said.out.strip()
    return json.loads(output.read_text(encoding="utf-8")), said.out, said.err


# The plan


def test_a_model_has_its_checks_first_then_its_usual_speed_then_others_and_the_rest(card):
    steps = card.plan.planned(["0.6b", "4b"], installs=True, has_server=True, has_torch=True)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    assert names[:4] == ["install", "machine", "0.6b: make", "0.6b: tap"]
    speed = names.index("0.6b: speed, 1024 tokens, flash attention on")
    assert max(names.index(f"0.6b: {check}") for check in ("tap", "parity", "long", "kill", "full")) < speed
    others = ["0.6b: llama-server", "0.6b: checkpoint", "0.6b: sentence-transformers"]
    assert names[speed + 1 : speed + 4] == others
    sizes = {(step.options["n_batch"], step.options["flash"]) for step in steps if step.kind == "speed"}
    assert sizes == {(n_batch, flash) for n_batch in (512, 1_024, 2_048, 4_096) for flash in (True, False)}
    (whole,) = [step for step in steps if step.name == names[speed]]
    assert whole.options["lengths"] == [16, 128, 512, 2_048, 8_192, 32_768]
    assert names.index("4b: make") > names.index("0.6b: speed, 4096 tokens, flash attention off")


def test_without_other_runtimes_and_with_files_of_ones_own_there_is_less_to_do(card):
    steps = card.plan.planned(["demo"], installs=False, has_server=False, has_torch=False, makes=False)
    assert {step.kind for step in steps} == {"machine", "tap", "parity", "long", "kill", "full", "speed"}


def test_what_is_done_is_not_done_again_and_what_failed_is(card):
    steps = card.plan.planned(["demo"], installs=False, has_server=False, has_torch=False, makes=False)
    found = {"machine": {"state": "done"}, "demo: tap": {"state": "failed"}, "demo: parity": {"state": "stopped"}}
    assert [step.name for step in card.plan.missing(steps, found)] == [step.name for step in steps[1:]]


@pytest.mark.parametrize(
    ("limit_s", "left_s", "allowed_s"), [(60, 100, 60), (60, 20, 20), (60, 9, 0), (5, 7, 5), (5, 4, 0)]
)
def test_a_step_runs_as_long_as_it_may_or_is_not_begun(card, limit_s, left_s, allowed_s):
    assert card.plan.allowed_s(card.plan.Step("a", "tap", limit_s), left_s) == allowed_s


@pytest.mark.parametrize(
    ("n_tokens", "n_batch", "n"), [(16, 1024, 256), (128, 512, 16), (4096, 1024, 1), (8192, 1024, 1)]
)
def test_a_call_fills_about_four_batches(card, n_tokens, n_batch, n):
    assert card.plan.n_texts(n_tokens, n_batch) == n
    assert card.speed.modes(n_tokens, n_batch) == [("one", 1), *([("many", n)] if n > 1 else [])]


# Times


def test_a_call_is_timed_after_one_that_warms_up_and_for_a_second_each_with_texts_of_its_own(card):
    now, given = [0.0], []

    def call(number: int) -> None:
        given.append(number)
        now[0] += 50.0 if number == 0 else 0.4  # the first compiles

    numbers = iter(range(100))
    assert card.timing.timed(call, lambda: next(numbers), lambda: now[0]) == pytest.approx([0.4, 0.4, 0.4])
    assert given == [0, 1, 2, 3]


def test_a_slow_call_is_timed_twice_and_a_quick_one_twelve_times(card):
    for seconds, n in ((30.0, 2), (0.001, 12)):
        ticks = iter(range(1000))
        assert len(card.timing.timed(print, str, lambda s=seconds, t=ticks: next(t) * s)) == n


def test_no_text_is_measured_twice(card, monkeypatch):
    """An engine has the keys and values of the long text before: the same text again would cost nothing."""
    seen: list[str] = []
    embed = Embedder.embed_documents
    monkeypatch.setattr(Embedder, "embed_documents", lambda self, texts: (seen.extend(texts), embed(self, texts))[1])
    monkeypatch.setattr(card.speed, "_force_flash_attention", lambda *, on: None)
    options = {"model": "demo", "path": str(DEMO), "device": "none", "n_batch": 64, "flash": True}
    rows = list(card.speed.ours(options | {"lengths": [16, 300, 99_999]}))
    assert len(set(seen)) == len(seen)
    assert {(row["tokens"], row["mode"], row["texts"]) for row in rows if "mode" in row} == {
        (16, "one", 1), (16, "many", 16), (300, "one", 1),
    }  # fmt: skip
    assert [row["why"] for row in rows if "why" in row] == ["the model takes 32,768 tokens"]


# The table


ROUND = {"kind": "speed", "model": "demo", "runtime": "q3e-local, 1,024", "tokens": 16, "mode": "many", "texts": 100}
FOUND = {
    "title": "On a GPU, 2026-11-30",
    "steps": {
        "machine": {"state": "done", "why": "", "rows": [{"kind": "machine", "facts": {"CPU": "a fast one"}}]},
        "demo: tap": {
            "state": "done", "why": "",
            "rows": [{"kind": "check", "model": "demo", "check": "tap", "ok": True, "said": "all there"}],
        },
        "demo: kill": {
            "state": "done", "why": "",
            "rows": [{"kind": "check", "model": "demo", "check": "a kill", "ok": False, "said": "0.5"}],
        },
        "demo: speed": {
            "state": "stopped", "why": "after 75 s",
            "rows": [
                *({**ROUND, "seconds": seconds} for seconds in (0.5, 1.0, 4.0)),
                {**ROUND, "tokens": 2_048, "texts": 1, "mode": "one", "seconds": 2.0},
                {**ROUND, "runtime": "llama-server", "seconds": 0.8},
                {"kind": "speed", "model": "demo", "runtime": "llama-server", "tokens": 2_048, "why": "it died"},
            ],
        },
        "demo: rest": {"state": "not begun", "why": "the time was up", "rows": []},
    },
}  # fmt: skip


def test_speeds_are_medians_of_rounds(card):
    assert card.table.speeds(FOUND, "demo") == {
        ("q3e-local, 1,024", 16, "many"): 1_600,  # 16 tokens of 100 texts in a second
        ("q3e-local, 1,024", 2_048, "one"): 1_024,
        ("llama-server", 16, "many"): 2_000,
    }


def test_the_table_has_checks_speeds_and_what_is_missing(card):
    lines = card.table.markdown(FOUND).splitlines()
    assert "- CPU: a fast one" in lines
    assert "| demo | tap | right | all there |" in lines
    assert "| demo | a kill | **wrong** | 0.5 |" in lines
    one, many = (lines.index(f"| {heading} |" + cells) for heading, cells in (
        ("one text at a time", " 2,048 |"), ("many texts in a call", " 16 |"),
    ))  # fmt: skip
    assert lines[one + 2] == "| q3e-local, 1,024 | 1,024 |"
    assert lines[many + 2 : many + 4] == ["| q3e-local, 1,024 | 1,600 |", "| llama-server | 2,000 |"]
    missing = lines[lines.index("## What is missing") :]
    assert missing[2:] == [
        "- demo: speed: stopped, after 75 s",
        "- demo: rest: not begun, the time was up",
        "- llama-server, 2,048 tokens: it died",
    ]


# Runs


def test_checks_run_and_a_second_run_does_only_what_is_missing(card, capsys, tmp_path):
    found, out, err = run(capsys, tmp_path, "--only", "machine", "--only", ": tap", "--only", ": full")
    assert [step["state"] for step in found["steps"].values()] == ["done"] * 3
    assert "| demo | tap | right | " in out
    assert "| demo | memory that others take | left out | no GPU computes here |" in out
    assert err.count("done") == 3
    found, out, err = run(capsys, tmp_path, "--only", ": tap", "--only", ": parity")
    assert (err.count("demo: tap"), err.count("demo: parity: done")) == (0, 1)
    assert "to the CPU 1.000000 at least" in out


def test_a_step_that_fails_or_takes_too_long_leaves_the_others_and_says_why(card, capsys, tmp_path):
    server = tmp_path / "no such server"
    found, out, _ = run(capsys, tmp_path, "--seconds", 18, "--llama-server", server, "--only", "llama-server",
                        "--only", "512 tokens, flash attention on")  # fmt: skip
    of_server = found["steps"]["demo: llama-server"]
    assert (of_server["state"], [row["tokens"] for row in of_server["rows"]]) == ("done", [16, 128, 512, 2048, 8192])
    assert "No such file or directory" in of_server["rows"][0]["why"]
    speed = found["steps"]["demo: speed, 512 tokens, flash attention on"]
    assert speed["state"] in ("stopped", "not begun")
    assert f"- demo: speed, 512 tokens, flash attention on: {speed['state']}, " in out


def test_flash_attention_is_what_was_asked_for(card, monkeypatch):
    from q3e_local.llama import binding

    seen: list[int] = []
    monkeypatch.setattr(
        binding.lib, "llama_init_from_model", lambda model, params: seen.append(params.flash_attn_type)
    )
    make = binding.lib.llama_init_from_model
    for on in (True, False):
        monkeypatch.setattr(binding.lib, "llama_init_from_model", make)
        card.speed._force_flash_attention(on=on)
        binding.lib.llama_init_from_model(None, binding.lib.llama_context_default_params())
    lib = binding.lib
    assert seen == [lib.LLAMA_FLASH_ATTN_TYPE_ENABLED, lib.LLAMA_FLASH_ATTN_TYPE_DISABLED]


def test_what_cannot_be_installed_is_said_and_the_steps_run_with_this_python(card, capsys, tmp_path):
    (tmp_path / "wheels").mkdir()
    found, _, err = run(capsys, tmp_path, "--wheels", tmp_path / "wheels", "--only", "install", "--only", "machine")
    assert (found["steps"]["install"]["state"], found["steps"]["machine"]["state"]) == ("failed", "done")
    assert "install: failed, exit code 1: " in err


def test_a_model_that_was_made_is_not_made_again(card, capsys, tmp_path):
    main = runpy.run_path(str(BENCH / "gpu.py"))["main"]
    (tmp_path / "synth-0.6b.gguf").touch()
    output = tmp_path / "gpu.json"
    assert main(["--work", str(tmp_path), "--output", str(output), "--only", "0.6b: make"]) == 0
    assert capsys.readouterr().err == "0.6b: make: done (0 s)\n"
