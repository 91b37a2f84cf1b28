"""`q3e-local bench`: what it prints for people and as JSON, and after Ctrl-C. No test looks at a time."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

import pytest
from command import run
from gpus import device, pretend

from q3e_local import machine
from q3e_local.checks import bench
from q3e_local.llama.kernels import in_use as kernels

CELLS = [(size, mode) for size in ("short", "medium", "long") for mode in ("single", "batched")]


def test_json_says_what_was_measured_on_what() -> None:
    result = run("bench", "-m", "demo", "--seconds", 0, "--json", "--threads", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert list(found) == [
        "machine", "versions", "model", "settings", "placement", "kernels", "seconds", "complete", "cells",
    ]  # fmt: skip
    assert found["placement"]["layers"] == 1
    assert found["kernels"] == kernels.chosen().fields()
    assert set(found["cells"][0]["kernels"]) == {"products", "attentions"}
    assert found["complete"] is True
    assert [(cell["size"], cell["mode"]) for cell in found["cells"]] == CELLS
    assert list(found["cells"][0]["latency_ms"]) == ["p50", "p90", "p99"]
    assert found["machine"]["cpu"] == machine.cpu_name()
    assert found["versions"]["llama-cpp-python"] == "0.3.36"
    assert found["settings"]["n_threads"] == 1
    assert found["model"]["name"] == "demo"


def test_people_get_a_table() -> None:
    result = run("bench", "-m", "demo", "--seconds", 0)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "demo (q8_0, 12.0 MB)"
    assert lines[1].startswith(machine.cpu_name())
    assert "llama-cpp-python 0.3.36" in lines[1]
    assert lines[2] == kernels.chosen().explained
    attentions = re.search(
        r"^our kernels computed [\d,]+ matrix products and ([\d,]+) attentions of it$", result.stdout, re.M
    )[1]
    assert (int(attentions.replace(",", "")) > 0) == (kernels.chosen().variant is not None)
    rows = [line.split("│")[1].split() for line in lines if line.startswith("│")]
    assert rows == [[size] for size, _ in CELLS]


def test_gpus_stand_in_the_heading_and_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device())
    monkeypatch.setattr("q3e_local.llama.forecast.may_offload", lambda: False)  # so that it computes in this process
    lines = run("bench", "-m", "demo", "--seconds", 0).stdout.splitlines()
    assert lines[2].startswith("1 of 1 layers on CUDA0, NVIDIA GeForce RTX 3060 (CUDA): ")
    assert lines[2].endswith(" of its 12.00 GB, of which 11.20 GB were free when it was asked")
    found = json.loads(run("bench", "-m", "demo", "--seconds", 0, "--json").stdout)["placement"]
    assert (found["on_gpu"], [each["driver"] for each in found["devices"]]) == (1, ["CUDA"])
    assert found["devices"][0]["bytes"] > 10_000_000  # the weights alone


def test_ctrl_c_gives_what_was_measured_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench.measure

    def interrupted(*arguments: object) -> Iterator[bench.Cell]:
        yield from itertools.islice(whole(*arguments), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure", interrupted)
    result = run("bench", "-m", "demo", "--seconds", 0, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["complete"], len(found["cells"])) == (130, False, 2)
    assert "Interrupted." in result.stderr
