"""What `ps` says of models on GPUs. No server has one here: the answers are made up, as /api/ps gives them."""

from __future__ import annotations

from typing import Any

import pytest
from command import run
from gpus import device

from q3e_local.cli.commands import ps
from q3e_local.llama.settings.placement import Placement

WHOLE = Placement(36, 36, (device(),), (37,), (2_900_000_000,))
HALF = Placement(36, 18, (device(),), (19,), (1_500_000_000,), "as asked")
TWO = Placement(36, 36, (device(), device("CUDA1", free=0, total=0)), (20, 17), (1_600_000_000, 1_400_000_000))


def shown(monkeypatch: pytest.MonkeyPatch, size: int, size_vram: int, placement: Placement | None) -> Any:
    """What `ps` prints of a model with so much memory; without a placement Ollama answers."""
    model = {"name": "m", "size": size, "size_vram": size_vram}
    if placement is not None:
        model["placement"] = placement.fields()
    monkeypatch.setattr(ps, "_ask", lambda *_: {"models": [model]})
    return run("ps")


@pytest.mark.parametrize(
    ("size", "size_vram", "placement", "processor"),
    [
        (3_100_000_000, 2_900_000_000, WHOLE, "GPU"),  # buffers for results are in the machine's memory
        (3_000_000_000, 1_500_000_000, HALF, "50%/50% CPU/GPU"),
        (3_000_000_000, 0, Placement(36), "CPU"),
        (100, 0, None, "CPU"),
        (100, 38, None, "62%/38% CPU/GPU"),
        (100, 100, None, "GPU"),
    ],
)
def test_what_computes_is_in_a_column(monkeypatch, size, size_vram, placement, processor):
    heading, line = shown(monkeypatch, size, size_vram, placement).stdout.splitlines()
    begins, ends = heading.index("processor"), heading.index("kernels")
    assert line[begins:ends].strip() == processor


def test_each_gpu_has_a_line_with_its_layers_and_memory(monkeypatch):
    assert shown(monkeypatch, 3_100_000_000, 2_900_000_000, WHOLE).stderr == (
        "m: 36 of 36 layers on CUDA0, NVIDIA GeForce RTX 3060 (CUDA): 2.90 GB of its 12.00 GB, "
        "of which 11.20 GB were free when it was asked\n"
    )
    lines = shown(monkeypatch, 3_100_000_000, 3_000_000_000, TWO).stderr.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "m: 20 of 36 layers on CUDA0, NVIDIA GeForce RTX 3060",
        "m: 16 of 36 layers on CUDA1, NVIDIA GeForce RTX 3060",
    ]  # fmt: skip
    assert lines[1].endswith(": 1.40 GB; its driver does not tell how much it has")
    assert shown(monkeypatch, 100, 100, None).stderr == ""
