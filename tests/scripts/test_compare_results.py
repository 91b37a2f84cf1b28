"""The comparison's results: ratios taken round by round, tables and plots that say who was left out and who died."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ILLEGAL = "SIGILL (this build of llama.cpp uses instructions that this CPU lacks)"


def figures(tokens_per_s: float) -> dict[str, Any]:
    texts_per_s = tokens_per_s / 128
    return {"tokens_per_s": tokens_per_s, "texts_per_s": texts_per_s, "seconds": 1.0, "texts": 4, "tokens": 512}


def measured(parts: SimpleNamespace) -> dict[str, Any]:
    """A comparison of two rounds whose ratios are 2 and 4, and of who was left out."""
    return {
        "runs": [
            {
                "began": "2026-01-01T00:00:00+00:00", "commit": "abc1234",
                "command": "python scripts/bench/compare.py",
                "machine": {"cpu": "Some CPU", "cores": 2, "memory_bytes": 8 * 10**9, "system": "Linux"},
                "versions": {"q3e-local": "0.1.0"},
            }
        ],
        "best": {"0.6b/batch": {"choice": {}, "tries": [{"flags": ["-fa", "on"], "texts_per_s": 2.0}]}},
        "peaks": [{"run": 0, "model": "0.6b", "operations_per_s": {"bf16": 8e11, "int8": 2e12}}],
        "cells": {
            "0.6b/128": {
                "model": "0.6b", "digest": "d", "base": "library", "texts": 4,
                "workload": vars(parts.workloads.WORKLOADS["128"]),
                "shape": {"n_layer": 28, "n_head": 16, "head_dim": 128, "n_weights": 440_401_920},
                "rounds": [
                    {"run": 0, "llama-server": figures(300), "library": figures(600)},
                    {"run": 0, "library": figures(800), "llama-server": figures(200)},
                ],
                "settings": {"library": {"n_batch": 512}, "llama-server": {"command": "llama-server -m x"}},
                "memory": {"library": {"peak_rss": 600_000_000, "pss": 1}},
                "cosine": {"library": {"min": 1}, "llama-server": {"min": 0.99991}},
                "exactness": {"library": {"min": 0.999999}, "llama-server": {"min": 0.9996}},
                "skipped": {"fastembed": "not installed: | is missing"},
            }
        },
    }  # fmt: skip


def test_a_ratio_is_taken_round_by_round(parts):
    cell = measured(parts)["cells"]["0.6b/128"]
    assert parts.results.ratios(cell, "llama-server") == [2, 4]
    assert parts.results.contenders(cell) == ["library", "llama-server", "fastembed"]
    cell["rounds"].append({"run": 1, "library": figures(1)})
    assert parts.results.ratios(cell, "llama-server") == [2, 4]


def test_the_table_has_ratios_with_their_spread_memory_and_cosines(parts):
    lines = parts.report.markdown(measured(parts)).splitlines()
    assert lines[0] == "### 0.6b"
    ours = (
        "| 4 texts of 128 tokens | **q3e-local, library** | 700 (600 to 800) | 5.47 (4.69 to 6.25) |  | 0.60 GB |  |"
    )
    assert f"{ours} 1.00000 |" in lines
    row = "|  | llama-server, defaults | 250 (200 to 300) | 1.95 (1.56 to 2.34) | 3.00 (2.00 to 4.00) |  | 0.99991 |"
    assert f"{row} 0.99960 |" in lines
    assert r"|  | fastembed | left out: not installed: \| is missing |  |  |  |  |  |" in lines
    # 2 operations for each weight, 2 for each of 128 tokens before and after in 28 layers of 16 heads of 128.
    cost = 2 * 440_401_920 + 2 * 28 * 16 * 128 * 128
    bound = next(line for line in lines if line.startswith("| 4 texts of 128 tokens | ") and "%" in line)
    assert (
        bound
        == f"| 4 texts of 128 tokens | {8e11 / cost:,.0f} | {2e12 / cost:,.0f} | 700 | {700 * cost / 2e12:.0%} |"
    )
    assert "- llama-server, defaults (128): `llama-server -m x`" in lines
    assert "- tried on llama-server for batch, texts/s: `-fa on` 2.0" in lines
    assert lines[-1].endswith("commit abc1234; `python scripts/bench/compare.py`")


def test_the_worst_cosine_of_all_rounds_is_kept(parts):
    cosines: dict[str, Any] = {}
    ours = np.eye(2, dtype=np.float32)
    parts.results.see_cosines(cosines, "a", ours, 3 * ours)
    parts.results.see_cosines(cosines, "a", ours, np.array([[1, 0], [1, 0]], np.float32))
    assert cosines["a"] == {"min": 0.0, "mean": 0.75, "n": 4}


def test_a_cell_of_another_model_is_not_added_to(parts):
    results = {"cells": {}}
    parts.results.cell_of(results, "m/128", {"digest": "a", "texts": 4})
    assert parts.results.cell_of(results, "m/128", {"digest": "a", "texts": 4})["rounds"] == []
    with pytest.raises(ValueError, match="m/128 was measured with digest a, this run has b"):
        parts.results.cell_of(results, "m/128", {"digest": "b", "texts": 4})


def test_results_land_whole(parts, tmp_path):
    path = tmp_path / "r.json"
    parts.results.write(path, {"cells": {}})
    with pytest.raises(TypeError):
        parts.results.write(path, {"cells": object()})
    assert parts.results.read(path) == {"cells": {}, "batches": {}}


def test_every_tensor_has_its_name_in_the_checkpoint(parts):
    name_of = parts.checkpoint.name_of
    assert name_of("token_embd.weight") == "embed_tokens.weight"
    assert name_of("output_norm.weight") == "norm.weight"
    assert name_of("blk.12.attn_q_norm.weight") == "layers.12.self_attn.q_norm.weight"
    assert name_of("blk.0.ffn_down.weight") == "layers.0.mlp.down_proj.weight"


def test_table_and_plot_show_who_died(parts, tmp_path, monkeypatch):
    axes = pytest.importorskip("matplotlib.axes")
    results = measured(parts)
    results["cells"]["0.6b/128"]["died"] = {"llama-embed": ILLEGAL, "llama-server": "exit code 1: a | b"}
    lines = parts.report.markdown(results).splitlines()
    assert f"|  | `Llama.embed` | died: {ILLEGAL} |  |  |  |  |  |" in lines
    assert any(r"| llama-server, defaults | 250 (200 to 300); died: exit code 1: a \| b |" in line for line in lines)
    said: list[str] = []
    monkeypatch.setattr(axes.Axes, "annotate", lambda self, text, *_, **options: said.append(text))
    parts.report.plot(results, tmp_path / "plot.png")
    assert said == ["Llama.embed died: SIGILL", "llama-server, defaults died: exit code 1"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
