"""The tables of docs/performance.md on what fits into which card are those of the plan, with the models' sizes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from gpus import device
from paths import ROOT

from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama.settings.memory import for_batches, for_long
from q3e_local.llama.settings.planning import device_bytes, plan

SECTION = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").partition("### What fits\n")[2]
ROWS = [
    [cell.strip(" `") for cell in line.strip("|").split("|")]
    for line in SECTION.partition("\n### ")[0].splitlines()
    if line.startswith("| ") and re.search(r"\d", line)
]
N_FF_AND_HEADS = {"0.6b": (3072, 16), "4b": (9728, 32), "8b": (12288, 32)}
BATCHES = for_batches(1024, 64, tap=True)
# Beside the weights a file has its vocabulary, some MB; and the page rounds.
NEAR = 0.06


def model(size: str) -> ModelInfo:
    """A Q4_K_M file as its card has it, with layers of equal size; its projection is in 6 bits."""
    card = tomllib.loads((ROOT / "models" / f"qwen3-embedding-{size}.toml").read_text(encoding="utf-8"))
    sizes, n_bytes = card["sizes"], card["files"]["q4_k_m"]["size_bytes"]
    n_layer, output = sizes["n_layer"], sizes["n_vocab"] * sizes["n_embd"] * 210 // 256
    n_ff, n_head = N_FF_AND_HEADS[size]
    return ModelInfo(
        path=Path(f"{size}.gguf"), name=size, size_bytes=n_bytes, digest="", n_embd=sizes["n_embd"], n_layer=n_layer,
        n_head=n_head, n_head_kv=8, head_dim=128, n_ff=n_ff, n_ctx_train=32_768, n_vocab=sizes["n_vocab"], eos_id=0,
        quantization="q4_k_m", added_tokens=(), layer_bytes=((n_bytes - output) // n_layer,) * n_layer,
        output_bytes=output,
    )  # fmt: skip


@pytest.mark.parametrize("size", list(N_FF_AND_HEADS))
def test_memory_of_each_model(size):
    ((_, *shown),) = [row for row in ROWS if row[0] == f"qwen3-embedding:{size}"]
    info = model(size)
    batches = device_bytes(info, BATCHES, info.n_layer, 1)
    long = for_long(1024, 32_768, tap=True)
    texts = [each.device_bytes(info, info.n_layer) for each in (long, replace(long, kv_type="q8_0"))]
    planned = [info.size_bytes, batches, *(batches + text for text in texts)]
    assert [float(number) for number in shown] == pytest.approx([n_bytes / 1e9 for n_bytes in planned], abs=NEAR)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0].endswith(" GB")], ids=lambda row: row[0])
def test_layers_on_each_card(row):
    total, free, room, with_4b, _, with_8b = row
    card = device(free=float(free), total=float(total.removesuffix(" GB")))
    assert card.room_bytes / 1e9 == pytest.approx(float(room), abs=NEAR)
    for size, said in (("4b", with_4b), ("8b", with_8b)):
        words = {36: "all layers", 18: "half of the layers"}
        n_on_gpu = plan(model(size), BATCHES, [card]).n_on_gpu
        assert words.get(n_on_gpu, f"{n_on_gpu} of 36 layers") == said
