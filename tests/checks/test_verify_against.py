"""`q3e-local verify --against`: what another quantization changes, compared with the same sums in NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from command import run
from oracle import Config

import q3e_local

MakeGguf = Callable[..., Path]

TEXTS = ["重力是一种力", *tiny.TRAINING_TEXT.splitlines()[:20]]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


def compared(*arguments: object) -> list[dict[str, Any]]:
    result = run("verify", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["comparison"]


def test_against_tells_what_a_quantization_costs(tiny_gguf, texts):
    paths = [tiny_gguf("f16"), tiny_gguf("q4_k_m")]
    comparison = compared(paths[0], "--against", paths[1], "--texts", texts)
    both = []
    for path in paths:
        with q3e_local.load(path) as embedder:
            both.append(embedder.embed_documents(TEXTS).vectors.astype(np.float64))
    assert [each["dim"] for each in comparison] == [256, 64]
    for each in comparison:
        left, right = (
            cut / np.linalg.norm(cut, axis=1, keepdims=True) for cut in (v[:, : each["dim"]] for v in both)
        )
        cosines = sorted(np.einsum("ij,ij->i", left, right))
        assert each["n_texts"] == len(TEXTS) == 21
        assert each["cosine"]["min"] == pytest.approx(cosines[0], abs=2e-5)
        assert each["cosine"]["p5"] == pytest.approx(cosines[1], abs=2e-5)  # the second of 21
        assert each["cosine"]["median"] == pytest.approx(cosines[10], abs=2e-5)
        assert each["cosine"]["max"] == pytest.approx(cosines[20], abs=2e-5)
        nearest = [neighbours(vectors) for vectors in (left, right)]
        same = [a[0] == b[0] for a, b in zip(*nearest, strict=True)]
        shared = [len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)]
        assert each["same_nearest"] == pytest.approx(sum(same) / 21, abs=1e-4)
        assert each["overlap_at_10"] == pytest.approx(sum(shared) / 21, abs=1e-4)
        assert 0.9 < each["cosine"]["min"] < each["cosine"]["max"] < 1


def neighbours(vectors: np.ndarray) -> list[list[int]]:
    """Of each row the numbers of the ten nearest others, nearest first."""
    found = []
    for row, vector in enumerate(vectors):
        by_score = sorted((-float(vector @ other), column) for column, other in enumerate(vectors) if column != row)
        found.append([column for _, column in by_score[:10]])
    return found


def test_against_itself_nothing_changes_and_few_texts_have_few_neighbours(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text("one text\n\nanother one\n")
    result = run("verify", "demo", "--against", "demo", "--texts", path)
    assert result.exit_code == 0
    (line, *_) = [line for line in result.stdout.splitlines() if line.startswith("  dim 256")]
    assert "min 1.0000" in line
    assert "same_nearest 1.000, overlap_at_1 1.000 (2 texts)" in line


def test_models_of_two_sizes_share_neighbours_but_no_space(tmp_path, tokenizer, tiny_gguf, texts):
    config = Config(n_layer=1, n_embd=128)
    wider = tiny.write_gguf(tmp_path / "wide.gguf", tiny.tiny_weights(config), config, tokenizer)
    comparison = compared(tiny_gguf("f16"), "--against", wider, "--texts", texts)
    assert [(each["dim"], each["cosine"]) for each in comparison] == [(128, None), (64, None)]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--against", "demo"], 2, "--against and --texts go together"),
        (["--texts", "two.txt"], 2, "--against and --texts go together"),
        (["--against", "demo", "--texts", "one.txt"], 2, "needs at least 2 texts, one.txt has 1"),
        (["--against", "demo", "--texts", "empty.txt"], 2, "needs at least 2 texts, empty.txt has 0"),
        (["--against", "demo", "--texts", "none.txt"], 1, "none.txt"),
        (["--against", "nobody", "--texts", "two.txt"], 2, "there is no model 'nobody'"),
        (["--against", "none.gguf", "--texts", "two.txt"], 1, "there is no file none.gguf"),
        (["nobody"], 2, "there is no model 'nobody'"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    for name, text in {"one.txt": "one\n", "two.txt": "one\ntwo\n", "empty.txt": ""}.items():
        Path(name).write_text(text)
    result = run("verify", *([] if arguments == ["nobody"] else ["demo"]), *arguments)
    assert result.exit_code == code
    assert result.stderr.startswith(("Error: ", "Usage: "))
    assert says in result.stderr
    assert result.stdout == ""
