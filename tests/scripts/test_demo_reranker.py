"""The recipe of the demo's reranker: from the demo model comes, within seconds, the file that ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import rerankers
from click.testing import CliRunner
from demo_scripts import FOLDER, imported
from paths import ROOT

import q3e_local
from q3e_local.gguf.header import read_header

DEMO, SHIPPED = (ROOT / "models" / name for name in ("demo.gguf", "demo-reranker.gguf"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "made.gguf"
    with imported(FOLDER, ["reranker"], hidden=["focusing", "vocabulary"]) as parts:
        arguments = ["-m", str(DEMO), "-o", str(path)]
        result = CliRunner().invoke(parts.reranker.main, arguments)
        assert result.exit_code == 0, result.output
        assert "pass --force" in CliRunner().invoke(parts.reranker.main, arguments).output
    return path


def test_the_recipe_makes_what_ships(made):
    """Signs and last digits of principal components are another CPU's, so rows are; what they compute is the same."""
    assert read_header(made).metadata == read_header(SHIPPED).metadata
    assert list(read_header(made).tokens) == list(read_header(SHIPPED).tokens)
    documents = [*rerankers.BEST_FIRST, "火星是红色的。", " "]
    of_file = []
    for path in (SHIPPED, made):
        with q3e_local.load_reranker(path) as reranker:
            ranked = sorted(reranker.rank(rerankers.QUESTION, documents), key=lambda one: one.index)
            of_file.append([one.logit for one in ranked])
    assert of_file[1] == pytest.approx(of_file[0], abs=0.1)


def test_marks_of_the_prompt_are_one_token_and_words_are_those_of_the_demo_model(made):
    demo, cut = ({*read_header(path).tokens} for path in (DEMO, made))
    assert cut - demo == {"<Query", "<Document"}
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "budget", "Query", "Document"} <= cut
