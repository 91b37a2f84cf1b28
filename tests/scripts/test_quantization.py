"""The script that measures what quantization changes: on vectors made by hand, and on models made here."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import checkpoints
import gguf
import numpy as np
import pytest
import tiny
from click.testing import CliRunner, Result
from oracle import Config
from paths import ROOT

from q3e_local.gguf.model_file import inspect
from q3e_local.models.catalog import models_folder

DEMO = models_folder() / "demo.gguf"
PAGE = ROOT / "docs" / "quality.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "bench" / "quantization.py"))


def run(script: dict[str, Any], *arguments: object) -> Result:
    return CliRunner().invoke(script["main"], [*map(str, arguments)], catch_exceptions=False)


def rows_of(script: dict[str, Any], *arguments: object) -> list[dict[str, Any]]:
    result = run(script, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_agreement_is_the_share_of_the_first_documents_that_stay(script):
    expected = np.float32([[9, 8, 7, 1], [1, 2, 3, 4]])
    found = np.float32([[9, 1, 7, 8], [1, 2, 3, 4]])  # of the first row's two, one stays
    assert script["agreement"](found, expected, 2) == (0.5 + 1) / 2
    assert script["agreement"](expected[:, ::-1], expected, 2) == 0
    assert script["agreement"](expected[:, ::-1], expected, 4) == 1


def test_figures_are_those_of_the_vectors(script):
    rng = np.random.default_rng(7)
    reference = unit(rng.standard_normal((40, 64))), unit(rng.standard_normal((9, 64)))
    found = tuple(unit(each + 0.02 * rng.standard_normal(each.shape)) for each in reference)
    (row,) = script["figures"]("q8_0", 5, found, reference, [32], 10)
    cut = [unit(each[:, :32]) for each in (*found, *reference)]
    ours, theirs = cut[1] @ cut[0].T, cut[3] @ cut[2].T
    first, first_of_whole = (set(np.argsort(-scores[4])[:10]) for scores in (theirs, reference[1] @ reference[0].T))
    alone = script["figures"]("q8_0", 5, (found[0], found[1][4:5]), (reference[0], reference[1][4:5]), [32], 10)
    (of_a_question,) = alone
    assert of_a_question.agreement == len(first & set(np.argsort(-ours[4])[:10])) / 10
    assert of_a_question.agreement_with_whole == len(first_of_whole & set(np.argsort(-ours[4])[:10])) / 10
    ranks = [np.argsort(np.argsort(scores.ravel())) for scores in (ours, theirs)]
    assert row.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    cosines = [(a * b).sum() for a, b in zip(np.vstack(cut[:2]), np.vstack(cut[2:]), strict=True)]
    assert (row.mean_cosine, row.least_cosine) == pytest.approx((np.mean(cosines), min(cosines)), abs=1e-6)
    (same,) = script["figures"]("f16", 5, reference, reference, [64], 10)
    assert (same.agreement, same.agreement_with_whole, same.spearman) == (1, 1, pytest.approx(1))


def test_a_quantized_model_is_read_back_into_f16(script, tmp_path):
    script["as_f16"](DEMO, tmp_path / "back.gguf")
    info, original = inspect(tmp_path / "back.gguf"), inspect(DEMO)
    assert (info.quantization, info.n_embd, info.n_ctx_train) == ("f16", original.n_embd, original.n_ctx_train)
    before, after = gguf.GGUFReader(DEMO), gguf.GGUFReader(tmp_path / "back.gguf")
    keys = {name: field.contents() for name, field in before.fields.items() if not name.startswith("GGUF.")}
    kept = {name: field.contents() for name, field in after.fields.items() if not name.startswith("GGUF.")}
    assert keys | {"general.file_type": 1} == kept
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert new.tensor_type.name == ("F32" if old.tensor_type.name == "F32" else "F16")
        weights = gguf.quants.dequantize(old.data, old.tensor_type)
        np.testing.assert_array_equal(new.data, weights.astype(new.data.dtype))


def test_a_checkpoint_goes_through_all_types(script, tmp_path, tokenizer):
    config = Config(n_layer=3, n_embd=256, n_ff=256, n_head=4, n_head_kv=2, head_dim=64)
    folder = checkpoints.write_checkpoint(tmp_path, tiny.tiny_weights(config), config, tokenizer)
    (tmp_path / "documents").write_text("\n".join(f"a list of {n} words and numbers" for n in range(30)), "utf-8")
    (tmp_path / "questions").write_text("Explain gravity\n\nWhat is the capital of China?\n", "utf-8")
    texts = ("--documents", tmp_path / "documents", "--questions", tmp_path / "questions")
    rows = rows_of(script, folder, *texts, "-d", 256, "-d", 64)
    assert [(row["quantization"], row["dim"]) for row in rows] == [
        (quantization, dim) for quantization in ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m") for dim in (256, 64)
    ]
    whole = [row for row in rows if row["dim"] == 256]
    assert whole[0]["agreement"] == whole[0]["mean_cosine"] == pytest.approx(1)
    cosines = [row["mean_cosine"] for row in whole]
    sizes = [row["size_bytes"] for row in whole]
    assert cosines == sorted(cosines, reverse=True)
    assert sizes == sorted(sizes, reverse=True)
    assert 0.5 < cosines[-1] < 0.9999


def test_the_page_has_the_figures_of_the_demo_model(script):
    """About: another CPU adds numbers up in another order."""
    shown = [re.split(r" *\| *", line)[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines()]
    of_page = {(cells[0], int(cells[2])): cells for cells in shown if len(cells) == 8 and cells[2].isdecimal()}
    rows = rows_of(script, DEMO, "--type", "q8_0", "--type", "q4_k_m")
    assert len(rows) == 12
    for row in rows:
        _, size, _, *numbers = of_page[row["quantization"], row["dim"]]
        assert float(size) == pytest.approx(row["size_bytes"] / 1e6, abs=0.05)
        names = ("agreement", "agreement_with_whole", "spearman", "mean_cosine", "least_cosine")
        assert [float(number) for number in numbers] == pytest.approx([row[name] for name in names], abs=0.01)
    texts = script["of_repository"]()
    said = f"{len(texts.documents)} documents, {len(texts.questions)} questions"
    assert said in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([DEMO, "--documents", __file__], 2, "give --documents and --questions, or neither"),
        ([DEMO, "-k", 172], 2, "there are 172 documents and 245 questions; the first 172 of a question"),
        ([__file__], 1, "is not a GGUF"),
        ([DEMO, "--documents", DEMO, "--questions", DEMO], 2, "is not UTF-8"),
        ([ROOT], 1, "config.json"),
    ],
)  # fmt: skip
def test_wrong_usage_is_refused_with_the_reason(script, arguments, code, said):
    result = run(script, *arguments)
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (code, True), result.stderr


def test_a_dim_that_the_model_does_not_have_is_refused(script, tiny_gguf):
    result = run(script, tiny_gguf("f16"), "-d", 32, "-d", 512)
    said = f"dim must be between 32 and {Config().n_embd} for this model, got 512"
    assert (result.exit_code, said in result.stderr) == (1, True)


def test_blank_lines_are_no_texts(script, tmp_path):
    file: Path = tmp_path / "texts.txt"
    file.write_bytes("\ufeffone\r\n\r\n  \r\n二\r\n".encode())
    assert script["lines_of"](file) == ["one", "二"]
