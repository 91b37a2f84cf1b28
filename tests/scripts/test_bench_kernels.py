"""The benchmark of the kernels times what it says, and goes on without a compiler. No test looks at a time."""

from __future__ import annotations

import runpy
import shutil
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from paths import ROOT

from q3e_local.llama.kernels import in_use, operation

SCRIPT = ROOT / "scripts" / "bench" / "kernels.py"


def bench(*arguments: str) -> Any:
    main = runpy.run_path(str(SCRIPT))["main"]
    return CliRunner().invoke(main, ["--quick", "--rounds", "1", *arguments], catch_exceptions=False)


def rows(output: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if line[:1] == "|"]


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a compiler")
def test_each_operation_is_timed_with_and_without_ours(variant):
    before = in_use.counts()
    result = bench("--markdown", "--variant", variant, "--type", "Q4_K", "--tokens", "16,17")
    assert (result.exit_code, result.stderr) == (0, "")
    header, _, *found = rows(result.stdout)
    assert header == ["operation", "llama.cpp ms", f"{variant} ms", "ratio", "GOPS", "of peak"]
    assert [row[0] for row in found[:2]] == ["Q4_K 64 x 256, 16 tokens", "Q4_K 64 x 256, 17 tokens"]
    assert [row[0] for row in found[4:9]] == [
        "attention 0.6B, 32 queries of 32 keys",
        "attention 0.6B, 32 queries of 128 keys",
        "attention 0.6B, 32 queries of 512 keys",
        "attention 0.6B, 16 texts of 2 tokens",
        "attention 0.6B, 4 texts of 8 tokens",
    ]
    assert len(found) == 14
    assert all(row[-1].endswith(" %") for row in found)
    taken = in_use.counts().since(before)
    assert (taken.products, taken.attentions) == (4, 10)


@pytest.mark.usefixtures("variant")
def test_what_a_variant_leaves_has_no_figures():
    result = bench("--markdown", "--type", "F32", "--tokens", "16")
    assert result.exit_code == 0, result.output
    assert [row[2] for row in rows(result.stdout)[2:4]] == ["left to llama.cpp"] * 2


@pytest.mark.usefixtures("variant")
def test_without_a_compiler_the_peak_is_missing(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = bench("--markdown", "--type", "Q6_K", "--tokens", "16")
    assert result.exit_code == 0, result.output
    assert 'Without the column "of peak": ' in result.stderr
    assert {len(row) for row in rows(result.stdout)} == {5}


def test_hidden_scores_are_no_work():
    work = list(runpy.run_path(str(SCRIPT))["attentions"]())
    own = 512 * 513 / 2
    seen = [own, 512 * 1536 + own, 512 * 7680 + own, 16 * 32 * 33 / 2, 4 * 128 * 129 / 2]
    assert [one.n_operations for one in work[:5]] == [4 * 128 * 16 * pairs for pairs in seen]
    assert [one.n_operations for one in work[5:]] == [4 * 128 * 32 * pairs for pairs in seen]


def test_a_watch_sees_the_computation_and_no_more():
    seen: list[str] = []

    class Watch:
        def __enter__(self) -> None:
            seen.append("begin")

        def __exit__(self, *_: object) -> None:
            seen.append("end")

    weights = operation.quantized(np.eye(32, dtype=np.float32), operation.F32)
    tokens = np.arange(64, dtype=np.float32).reshape(2, 32)
    np.testing.assert_array_equal(operation.product(weights, operation.F32, tokens, watch=Watch()), tokens)
    assert seen == ["begin", "end"]
