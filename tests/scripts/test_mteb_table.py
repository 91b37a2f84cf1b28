"""The table of mteb's result files: runs find their rows, and what was not run stays empty."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from paths import ROOT

PAGE = ROOT / "docs" / "quality.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "bench" / "mteb_table.py"))


@pytest.fixture
def result(tmp_path: Path) -> Callable[..., None]:
    """Write a task's result as mteb does, with the model's description in the same folder."""

    def write(
        name: str, task: str, *scores: float, dim: int | None = 1024, digest: str = "d", **settings: Any
    ) -> None:
        folder = tmp_path / "results" / name.replace("/", "__") / digest
        if settings:
            folder /= f"experiments/{'__'.join(f'{key}_{value}' for key, value in settings.items())}"
        folder.mkdir(parents=True, exist_ok=True)
        meta = {"name": name, "revision": digest, "embed_dim": dim, "experiment_kwargs": settings or None}
        (folder / "model_meta.json").write_text(json.dumps(meta))
        found = {"task_name": task, "scores": {f"split{i}": [{"main_score": each}] for i, each in enumerate(scores)}}
        (folder / f"{task}.json").write_text(json.dumps(found))
        (folder / "run_settings.jsonl").write_text("{}\n")

    return write


def rows(script: dict[str, Any], folder: Path, *tasks: str) -> dict[tuple[str, str, str], list[str]]:
    """The cells of each row, by model, dim and reranker."""
    options = [part for task in tasks for part in ("-t", task)]
    found = CliRunner().invoke(script["main"], [str(folder), *options], catch_exceptions=False)
    assert found.exit_code == 0, found.stderr
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.stdout.splitlines() if "|" in line]
    return {(row[0], row[1], row[2]): row[3:] for row in cells[2:]}


def test_each_run_finds_its_row(script, result, tmp_path):
    result("q3e-local/qwen3-embedding-0.6b", "ArguAna", 0.7012)
    result("q3e-local/qwen3-embedding-0.6b", "STSB", 0.8, 0.9)  # two splits
    result("q3e-local/qwen3-embedding-0.6b-q8_0", "ArguAna", 0.7033)
    result("q3e-local/qwen3-embedding-0.6b", "ArguAna", 0.6, dim=256, embed_dim=256)
    reranked = {"candidates_of": "qwen3-embedding-0.6b", "embed_dim": 1024, "top": 100}
    result("q3e-local/qwen3-reranker-0.6b", "ArguAna", 0.75, dim=None, **reranked)
    table = rows(script, tmp_path, "ArguAna", "STSB")
    assert table["qwen3-embedding:0.6b", "1024", ""] == ["70.12", "85.00"]
    assert table["qwen3-embedding:0.6b-q8_0", "1024", ""] == ["70.33", ""]
    assert table["qwen3-embedding:0.6b", "256", ""] == ["60.00", ""]
    assert table["qwen3-embedding:0.6b", "1024", "qwen3-reranker:0.6b"] == ["75.00", ""]
    assert table["qwen3-embedding:4b", "2560", ""] == ["", ""]
    assert table["**Qwen/Qwen3-Embedding-0.6B**, published", "1024", ""] == ["70.97", "84.62"]


def test_other_runs_follow_with_what_tells_them_apart(script, result, tmp_path):
    result("q3e-local/demo", "ArguAna", 0.3, dim=256)
    result("q3e-local/demo", "ArguAna", 0.2, dim=256, max_tokens=512)
    result("q3e-local/mine", "ArguAna", 0.4, dim=None, candidates_of="demo", embed_dim=64, top=20)
    result("Qwen/Qwen3-Embedding-0.6B", "ArguAna", 0.1)  # not ours
    table = rows(script, tmp_path, "ArguAna")
    assert table["demo", "256", ""] == ["30.00"]
    assert table["demo (max_tokens 512)", "256", ""] == ["20.00"]
    assert table["demo (top 20)", "64", "mine"] == ["40.00"]
    assert [row for row in table if "10.00" in table[row]] == []


def test_two_files_of_one_name_are_not_mixed(script, result, tmp_path):
    for digest in ("first", "second"):
        result("q3e-local/demo", "ArguAna", 0.3, digest=digest)
    refused = CliRunner().invoke(script["main"], [str(tmp_path)])
    assert (refused.exit_code, "are results of two files of one name" in refused.stderr) == (1, True)


def test_the_page_has_the_empty_form(script, tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    lines = list(script["table"]({}))
    assert "\n".join(lines[:-2]) in page
    assert lines[-1] == "128 of 128 cells of the form are empty: these were not run."
    assert lines[-1] in page


def test_every_published_score_names_its_file(script):
    for model in script["PUBLISHED"]["models"].values():
        assert tuple(model["tasks"]) == script["TASKS"]
        for task, source in model["tasks"].items():
            assert source["file"].endswith(f"/{task}.json")
            assert len(source["commit"]) == 40
            assert 0 < source["score"] < 1
