"""`q3e-local verify`: a right model passes, and a wrong model does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import tiny
from command import run
from fake import FakeEngine
from oracle import Config, Weights
from tokenizers import Tokenizer
from world import DOCUMENTS, Q8_0, QUERIES, digest, flip_bit, rows

from q3e_local import Embedder
from q3e_local.checks import verify
from q3e_local.gguf.header import read_header
from q3e_local.gguf.model_file import inspect
from q3e_local.models.catalog import models_folder

MakeGguf = Callable[..., Path]


@pytest.fixture(scope="session")
def scores(weights: Weights, config: Config, tokenizer: Tokenizer) -> list[list[float]]:
    """The published scores of tiny:1b, worked out with the NumPy forward pass."""

    def vector(text: str) -> np.ndarray:
        pooled = oracle.embed(weights, config, tokenizer.encode(text).ids)
        return pooled / np.linalg.norm(pooled)

    queries = np.stack([vector(f"Instruct: Find it\nQuery:{text}") for text in QUERIES])
    return (queries @ np.stack([vector(text) for text in DOCUMENTS]).T).round(4).tolist()


def answer(*arguments: object) -> tuple[int, dict[str, Any]]:
    result = run("verify", "--json", *arguments)
    assert result.stdout.count("\n") == 1, result.output
    return result.exit_code, json.loads(result.stdout)


def checks(found: dict[str, Any]) -> dict[str, bool | None]:
    return {check["what"]: check["ok"] for check in found["checks"]}


def last_line(model: object) -> str:
    return run("verify", model).stdout.splitlines()[-1]


# Right


def test_the_demo_model_is_right():
    code, found = answer("demo")
    assert (code, found["ok"], found["model"], found["quantization"]) == (0, True, "demo", "q8_0")
    assert list(found) == ["model", "path", "kind", "quantization", "ok", "verdict", "checks", "scores"]
    assert found["verdict"] == "right"
    assert checks(found) == {
        "pooling": True, "end token": True, "layers": True, "dimension": True, "vocabulary": True, "context": True,
        "tensor mix q8_0": True, "vectors": True, "SHA-256": True,
    }  # fmt: skip
    assert [list(score) for score in found["scores"]] == [
        ["query", "document", "expected", "got", "difference", "tolerance", "ok"]
    ] * 4
    for score in found["scores"]:
        assert score["difference"] == pytest.approx(score["got"] - score["expected"], abs=1e-4)
        assert abs(score["difference"]) <= score["tolerance"] == 0.01


def test_what_people_read_says_the_same():
    result = run("verify", "demo")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"demo (q8_0): {models_folder() / 'demo.gguf'}"
    assert "  ok    vocabulary           37,303" in lines
    assert sum(line.startswith("  ok    What is the capita") for line in lines) == 2
    assert lines[-1] == "right"


def test_a_pulled_model_is_held_to_checksum_and_scores(world, scores):
    world.write_card(scores=scores)
    code, found = answer("tiny:1b-q8_0")
    assert (code, found["verdict"], set(checks(found).values())) == (0, "right", {True})
    assert found["checks"][-1] == {"what": "SHA-256", "ok": True, "detail": digest(world.q8_0)}
    assert [score["expected"] for score in found["scores"]] == [score for row in scores for score in row]


def test_a_path_is_not_held_to_the_card_its_name_is_like(tmp_path):
    path = tmp_path / "Qwen3-Embedding-4B-Q8_0.gguf"
    shutil.copyfile(models_folder() / "demo.gguf", path)
    code, found = answer(path)
    assert (code, checks(found)["SHA-256"], found["checks"][-1]["detail"].endswith(", demo")) == (0, True, True)


def test_a_damaged_copy_with_the_published_scores_is_not_called_right_without_more(tmp_path):
    """A byte of a token that no published text has: scores cannot show it, and nobody knows the file's SHA-256."""
    path = tmp_path / "copy.gguf"
    shutil.copyfile(models_folder() / "demo.gguf", path)
    flip_bit(path, 2_000_000)
    assert last_line(path) == "right, by the published scores; could not be checked: SHA-256"


def test_a_model_that_no_card_knows_passes_with_what_could_be_checked(tiny_gguf):
    code, found = answer(tiny_gguf("f16"))
    assert (code, found["scores"], found["verdict"]) == (0, [], "unproved")
    assert checks(found) == {
        "pooling": True, "end token": True, "sizes": None, "vectors": True, "SHA-256": None,
    }  # fmt: skip
    assert last_line(tiny_gguf("f16")) == (
        "nothing wrong with: pooling, end token, vectors; could not be checked: sizes, SHA-256, and whether the "
        "vectors are right, since no scores are published for this model"
    )


def test_a_card_without_scores_proves_nothing(world):
    code, found = answer("tiny:1b-q8_0")
    assert (code, found["verdict"], found["checks"][-1]["ok"]) == (0, "unproved", True)
    assert last_line("tiny:1b-q8_0").endswith(
        "SHA-256; could not be checked: whether the vectors are right, since no scores are published for this model"
    )


def test_other_weights_of_a_known_size_are_not_called_right(world, scores, tmp_path, tokenizer, config):
    world.write_card(scores=scores)
    trained = tmp_path / "trained further.gguf"
    tiny.write_gguf(trained, tiny.tiny_weights(config, seed=7), config, tokenizer, "q8_0")
    code, found = answer(trained)
    assert (code, found["verdict"]) == (1, "wrong")
    said = last_line(trained)
    assert said.startswith("NOT right as tiny:1b: these weights do not give the published scores; ")
    assert said.endswith("; if they were trained further, no scores are published for them")


class Broken(FakeEngine):
    """An engine whose vectors are wrong in a single way."""

    def __init__(self, how: str) -> None:
        super().__init__(n_batch=1000)
        self.how = how

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        vectors = np.zeros((len(sequences), self.n_embd), np.float32)
        for row, ids in enumerate(sequences):
            vectors[row, 0 if self.how == "equal" else len(ids) % self.n_embd] = 1
            if self.how == "batch":
                vectors[row, 1] = len(sequences)
        if self.how == "nan":
            vectors[0, 0] = np.nan
        return vectors


@pytest.mark.parametrize(
    ("how", "is_ok", "detail"),
    [
        ("none", True, "finite, different for different texts, the same alone as in a batch"),
        ("nan", False, "nan"),
        ("equal", False, "two different texts have a cosine of 1.0"),
        ("batch", False, "alone and in a batch a text's vectors have a cosine of 0."),
    ],
)
def test_vectors_that_cannot_be_right_fail(how, is_ok, detail):
    found = verify.check_vectors(Embedder(Broken(how), "broken"))
    assert (found.what, found.is_ok) == ("vectors", is_ok)
    assert detail.lower() in found.detail.lower()


# Wrong


def test_scores_beyond_the_tolerance_fail(world, scores):
    world.write_card(scores=[scores[0], [scores[1][0], scores[1][1] + 0.02]])
    code, found = answer("tiny:1b-q8_0")
    assert (code, found["ok"]) == (1, False)
    assert [score["ok"] for score in found["scores"]] == [True, True, True, False]
    assert found["scores"][3]["difference"] == pytest.approx(-0.02, abs=0.01)
    result = run("verify", "tiny:1b-q8_0")
    assert result.exit_code == 1
    assert "  FAIL  Explain gravity" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("NOT right: ")


@pytest.mark.parametrize(
    ("change", "wrong", "detail"),
    [
        (("n_vocab = 1021", "n_vocab = 1022"), "vocabulary", "1,021, not 1,022"),
        (("n_layer = 3", "n_layer = 4"), "layers", "3, not 4"),
        (("n_embd = 256", "n_embd = 512"), "dimension", "256, not 512"),
        (("n_ctx = 2048", "n_ctx = 32_768"), "context", "2,048, not 32,768"),
    ],
)
def test_another_size_than_the_cards_fails(world, change, wrong, detail):
    world.write_card(change)
    code, found = answer("tiny:1b-q8_0")
    assert (code, found["ok"]) == (1, False)
    assert [(check["what"], check["detail"]) for check in found["checks"] if check["ok"] is False] == [
        (wrong, detail)
    ]


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ({"pooling": 1}, "'mean' pooling"),
        ({"pooling": None}, "no pooling"),
        ({"end_text": "<|other|>"}, "no token <|endoftext|>"),
        ({"arch": "bert"}, "architecture 'bert'"),
    ],
)
def test_another_kind_of_model_is_one_error(tiny_gguf, variant, says):
    result = run("verify", tiny_gguf("f32", **variant))
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr


def test_one_wrong_bit_fails(world):
    run("pull", "tiny:1b-q8_0")
    path = Path(rows()["tiny:1b-q8_0"]["path"]).resolve()
    flip_bit(path)
    code, found = answer("tiny:1b-q8_0")
    assert code == 1
    detail = f"{digest(path)}, not {digest(world.q8_0)}"
    assert found["checks"][-1] == {"what": "SHA-256", "ok": False, "detail": detail}
    advice = last_line("tiny:1b-q8_0")
    assert advice == "forget the vectors it gave: q3e-local cache clear --model tiny:1b-q8_0"
    assert run(*advice.split(": ", 1)[1].split()[1:], "--yes").exit_code == 0


def test_an_imported_model_is_held_to_what_it_was(world, tmp_path, tiny_gguf):
    path = tmp_path / Q8_0
    shutil.copyfile(tiny_gguf("q8_0", context_length=512), path)
    run("import", path, "--name", "mine")
    assert checks(answer("mine")[1])["SHA-256"] is True
    flip_bit(path)
    assert checks(answer("mine")[1])["SHA-256"] is False


# The tensor mix

# From the published recipe: the layers whose attn_v and ffn_down are Q6_K in a Q4_K_M file.
FINER = {
    28: [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27],
    36: [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 31, 32, 33, 34, 35],
}


@pytest.mark.parametrize("n_layer", [28, 36])
@pytest.mark.parametrize(("quantization", "low"), [("q4_k_m", "Q4_K"), ("q5_k_m", "Q5_K")])
def test_the_mix_is_the_published_one(n_layer, quantization, low):
    mix = verify.tensor_mix(quantization, n_layer)
    assert mix is not None
    assert len(mix) == 1 + 7 * n_layer
    assert mix.pop("token_embd.weight") == "Q6_K"
    for name in ("attn_v", "ffn_down"):
        types = [mix.pop(f"blk.{layer}.{name}.weight") for layer in range(n_layer)]
        assert [layer for layer, each in enumerate(types) if each == "Q6_K"] == FINER[n_layer]
        assert set(types) == {"Q6_K", low}
    assert set(mix.values()) == {low}


@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "q8_0", "q6_k"])
def test_other_quantizations_have_one_type(quantization):
    mix = verify.tensor_mix(quantization, 28)
    assert mix is not None
    assert set(mix.values()) == {quantization.upper()}
    assert verify.tensor_mix("q4_0", 28) is None


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_k_m"])
def test_files_made_by_llama_cpp_and_gguf_have_the_mix(tiny_gguf, kind):
    path = tiny_gguf(kind)
    assert verify.check_tensor_mix(read_header(path), inspect(path)).is_ok is True


def test_another_mix_than_the_file_names_fails(world, tmp_path, tiny_gguf):
    content = tiny_gguf("f32").read_bytes()
    key = b"general.file_type" + (4).to_bytes(4, "little")  # uint32
    assert content.count(key) == 1
    path = tmp_path / "says f16.gguf"
    path.write_bytes(content.replace(key + bytes(4), key + (1).to_bytes(4, "little")))
    code, found = answer(path)
    assert code == 1
    (wrong,) = [check for check in found["checks"] if check["ok"] is False]
    assert wrong["what"] == "tensor mix f16"
    assert wrong["detail"] == "22 of 22 differ: token_embd.weight is F32, not F16"
