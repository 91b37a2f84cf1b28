"""`q3e-local verify` of a reranker: a right one passes, and a wrong one does not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rerankers
from command import failed, run
from gguf import GGUFReader
from paths import ROOT
from rewriting import rewrite

HEAD = "cls.output.weight"
SIZES = ("layers", "dimension", "vocabulary", "context")


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rerankers.write_taught(tmp_path_factory.mktemp("ranker") / "ranker.gguf", type="q8_0")


def pulled(world: Any, path: Path, **card: Any) -> None:
    """A machine on which `ranker:1b` is this file."""
    (world.home / "config" / "models" / "ranker.toml").write_text(rerankers.card(path, **card), encoding="utf-8")
    world.hub.add("Someone/Ranker", 40 * "a", "ranker-q8_0.gguf", path.read_bytes())
    assert run("pull", "ranker:1b").exit_code == 0


def answer(*arguments: object) -> tuple[int, dict[str, Any]]:
    result = run("verify", "--json", *arguments)
    return result.exit_code, json.loads(result.stdout)


def checks(found: dict[str, Any]) -> dict[str, bool | None]:
    return {check["what"]: check["ok"] for check in found["checks"]}


def test_a_right_reranker_has_the_published_logits(world, right):
    pulled(world, right)
    code, found = answer("ranker:1b")
    assert (code, found["kind"], found["verdict"], found["quantization"]) == (0, "reranker", "right", "q8_0")
    assert checks(found) == dict.fromkeys(
        ("head", *SIZES, "tensor mix q8_0", "order and signs", "batches", "SHA-256"), True
    )
    assert found["checks"][0]["detail"] == "cls.output.weight, F32"
    assert [score["document"] for score in found["scores"]] == list(rerankers.BEST_FIRST)
    assert [score["expected"] for score in found["scores"]] == list(rerankers.TAUGHT)
    for score in found["scores"]:
        assert score["got"] == pytest.approx(score["expected"], abs=0.4)
        assert (score["tolerance"], score["query"]) == (0.4, rerankers.QUESTION)


def test_what_people_read_says_the_same(world, right):
    pulled(world, right)
    result = run("verify", "ranker:1b")
    lines = result.stdout.splitlines()
    assert "  ok    head                 cls.output.weight, F32" in lines
    assert "  published logits       expected     got   difference  tolerance" in lines
    assert any(line.startswith("  ok    Mars, known for it   3.0000") for line in lines)
    assert (result.exit_code, lines[-1]) == (0, "right")


def test_a_reranker_whose_logits_are_not_published_is_held_to_order_and_signs(world, right):
    pulled(world, right, logits=())
    code, found = answer("ranker:1b")
    assert (code, found["verdict"], found["scores"]) == (0, "unproved", [])
    assert checks(found)["order and signs"] is True
    lines = run("verify", "ranker:1b").stdout.splitlines()
    assert "  -     no published logits to compare with" in lines
    assert lines[-1].endswith("whether the scores are, since no logits are published for this model")


@pytest.mark.parametrize(
    ("card", "wrong"),
    [
        ({"logits": (3.0, 1.5, -3.0)}, "the logits"),
        ({"logits": (), "documents": rerankers.BEST_FIRST[::-1]}, "order and signs"),
        ({"logits": (), "documents": rerankers.BEST_FIRST[:2]}, "order and signs"),  # both are above 0
    ],
)
def test_a_wrong_reranker_is_told(world, right, card, wrong):
    pulled(world, right, **({"documents": rerankers.BEST_FIRST} | card))
    code, found = answer("ranker:1b")
    assert (code, found["verdict"]) == (1, "wrong")
    is_ok = checks(found) | {"the logits": all(score["ok"] for score in found["scores"])}
    assert [what for what, ok in is_ok.items() if not ok] == [wrong]


def test_a_reranker_that_no_card_knows_is_held_to_the_proof(world, right, tmp_path):
    path = rewrite(right, tmp_path / "deep.gguf", {"qwen3.context_length": 1024})
    code, found = answer(path)
    assert (code, found["verdict"], checks(found)["order and signs"]) == (0, "unproved", True)
    turned = rewrite(right, tmp_path / "turned.gguf", tensors={HEAD: rerankers.taught()[::-1].copy()})
    says = failed("verify", turned)  # 1 / (1 + exp(3)) is 0.047
    assert re.search(r"is no reranker that works: it gives 0\.0[45]\d* to a right answer and 0\.95", says)


def test_a_file_with_the_sizes_of_a_card_is_held_to_it(world, right, tmp_path):
    pulled(world, right)
    path = rewrite(right, tmp_path / "half.gguf", tensors={HEAD: rerankers.taught() / np.float32(2)})
    code, found = answer(path)
    assert (code, [score["ok"] for score in found["scores"]]) == (1, [False, False, False])
    assert run("verify", path).stdout.splitlines()[-1].startswith("NOT right as ranker:1b")


def test_a_reranker_is_no_embedding_model_of_its_size(world, tiny_gguf, right):
    """Cards of both kinds may have the same sizes."""
    pulled(world, right)
    code, found = answer(tiny_gguf("q8_0"))
    assert (code, found["kind"], found["scores"], checks(found)["pooling"]) == (0, "embedder", [], True)


def test_a_file_that_ships_is_held_to_its_logits_more_closely(tmp_path):
    """Its card has the logits of these very weights, so that only the arithmetic of a CPU comes between."""
    code, found = answer("demo-reranker")
    assert (code, found["verdict"], {score["tolerance"] for score in found["scores"]}) == (0, "right", {0.1})
    source = ROOT / "models" / "demo-reranker.gguf"
    (head,) = (tensor.data for tensor in GGUFReader(source).tensors if tensor.name == HEAD)
    path = rewrite(source, tmp_path / "steep.gguf", tensors={HEAD: head * np.float32(2)})
    code, found = answer(path)
    assert (code, checks(found)["order and signs"]) == (1, True)
    assert [score["ok"] for score in found["scores"]] == [False, False, False]


def test_rerankers_make_no_vectors_to_compare(world, right, tmp_path):
    (tmp_path / "texts").write_text("one\ntwo\n")
    says = failed("verify", right, "--against", "demo", "--texts", tmp_path / "texts", code=2)
    assert says == "Error: --against compares vectors, and ranker is a reranker, which makes none\n"
