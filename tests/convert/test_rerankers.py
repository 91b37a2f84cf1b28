"""Rerankers: keys and tensors as llama.cpp's converter writes them, the head in F32, and logits as the reference's.

The expected keys and their order were compared with files of that converter; here they stand written out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import rerankers
import tiny
from checkpoints import change_json, tensors_in
from command import failed, run
from gguf import GGUFReader
from gguf.quants import quantize as quantized
from oracle import Weights
from rewriting import rewrite

from q3e_local.convert import convert, quantize
from q3e_local.errors import ConversionError
from q3e_local.gguf.model_file import inspect
from q3e_local.llama.engine import LlamaEngine
from q3e_local.reranking.reranker import Reranker

HEAD = "cls.output.weight"
QUERY, DOCUMENTS = "What is the capital of China?", ["The capital of China is Beijing.", "重力是一种力", "a fox"]


def raw(rows: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", rows.shape[::-1], rows.astype(np.float32).tobytes()


def keys(path: Path) -> dict[str, Any]:
    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


def without_head(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: tensor for name, tensor in tensors_in(path).items() if name != HEAD}


@pytest.fixture
def reranker(tmp_path: Path) -> Callable[..., Path]:
    """`reranker(tied=False, dtype="F16")` writes a checkpoint's folder."""

    def make(*, tied: bool = True, weights: Weights | None = None, **options: Any) -> Path:
        output = None if tied else rerankers.projection()
        weights = rerankers.weights() if weights is None else weights
        return checkpoints.write_reranker(
            tmp_path, weights, rerankers.CONFIG, rerankers.tokenizer(), output=output, **options
        )

    return make


# As llama.cpp's converter


def test_the_keys_are_those_of_llama_cpp_in_their_order(reranker, tmp_path):
    path = tmp_path / "out.gguf"
    convert(reranker(), path, "bf16")
    found = keys(path)
    ids = {text: found["tokenizer.ggml.tokens"].index(text) for text in (tiny.END, tiny.CHAT_END)}
    names = list(found)
    start = names.index("general.file_type")
    assert names[start:] == [
        "general.file_type",
        "qwen3.pooling_type",
        "qwen3.classifier.output_labels",
        "tokenizer.chat_template.rerank",
        "tokenizer.chat_templates",
        "general.quantization_version",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.padding_token_id",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_eos_token",
        "tokenizer.chat_template",
    ]
    assert (found["general.name"], found["general.basename"]) == ("Qwen3 Reranker 0.6B", "Qwen3-Reranker")
    assert (found["qwen3.pooling_type"], found["qwen3.classifier.output_labels"]) == (4, ["yes", "no"])
    assert found["tokenizer.chat_templates"] == ["rerank"]
    body = f"<Instruct>: {rerankers.WEB}\n<Query>: {{query}}\n<Document>: {{document}}"
    assert found["tokenizer.chat_template.rerank"] == rerankers.PREFIX + body + rerankers.SUFFIX
    # The end of a chat's turn, as a reranker's tokenizer has it: no end token is put behind its prompt.
    assert found["tokenizer.ggml.eos_token_id"] == ids[tiny.CHAT_END]
    assert found["tokenizer.ggml.add_eos_token"] is False
    assert found["tokenizer.ggml.padding_token_id"] == ids[tiny.END]


@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_the_rows_of_yes_and_no_in_f32_and_all_else_as_of_an_embedder(
    reranker, tmp_path, tied, quantization
):
    path = tmp_path / "out.gguf"
    info = convert(reranker(tied=tied, dtype="BF16"), path, quantization)
    stored = checkpoints.rounded(rerankers.weights() | {"lm_head.weight": rerankers.projection()}, "BF16")
    yes_no = [rerankers.tokenizer().token_to_id(word) for word in ("yes", "no")]
    head = stored["embed_tokens.weight" if tied else "lm_head.weight"][yes_no]
    del stored["lm_head.weight"]
    assert tensors_in(path)[HEAD] == raw(head)
    assert without_head(path) == checkpoints.expected_tensors(stored, quantization)
    names = list(tensors_in(path))
    # Where the converter reads the head: lm_head comes behind the embeddings and the layers.
    assert names.index(HEAD) < names.index("token_embd.weight") if tied else names.index(HEAD) == len(names) - 2
    assert (info.kind, info.answers.tensor.type_name) == ("reranker", "F32")


@pytest.mark.parametrize("n_shards", [1, 3])
@pytest.mark.parametrize("quantization", ["q4_k_m", "q5_k_m", "q6_k"])
def test_the_head_stays_f32_in_k_quants(reranker, tmp_path, quantization, n_shards):
    info = convert(reranker(tied=False, dtype="F32", n_shards=n_shards), tmp_path / "out.gguf", quantization)
    found = tensors_in(tmp_path / "out.gguf")
    assert found[HEAD] == raw(rerankers.answers("output"))
    assert (found["token_embd.weight"][0], "output.weight" in found) == ("Q6_K", False)
    assert (info.quantization, info.kind) == (quantization, "reranker")


@pytest.mark.parametrize("tied", [True, False])
def test_a_converted_reranker_ranks_as_the_reference(reranker, tmp_path, tied):
    convert(reranker(tied=tied, dtype="F32"), tmp_path / "out.gguf", "f32")
    with Reranker(LlamaEngine(tmp_path / "out.gguf"), "tiny") as model:
        for one in model.rank(QUERY, DOCUMENTS):
            prompt = rerankers.ids(QUERY, DOCUMENTS[one.index])
            assert one.logit == pytest.approx(rerankers.logit("none" if tied else "output", prompt), abs=1e-3)


def test_a_head_of_one_class_is_kept_as_it_is(reranker, tmp_path):
    """As sentence-transformers writes a cross-encoder: the difference of the two rows."""
    yes, no = rerankers.answers("none")
    folder = reranker(weights=rerankers.weights() | {"score.weight": (yes - no)[None]}, dtype="F32")
    change_json(folder / "config.json", architectures=["Qwen3ForSequenceClassification"])
    convert(folder, tmp_path / "out.gguf", "f32")
    assert tensors_in(tmp_path / "out.gguf")[HEAD] == raw((yes - no)[None])
    with Reranker(LlamaEngine(tmp_path / "out.gguf"), "tiny") as model:
        (one,) = model.rank(QUERY, DOCUMENTS[:1])
    assert one.logit == pytest.approx(rerankers.logit("single", rerankers.ids(QUERY, DOCUMENTS[0])), abs=1e-3)


# What kind it is


def silent(folder: Path) -> None:
    (folder / "README.md").unlink()


@pytest.mark.parametrize(
    "say",
    [
        lambda f: (f / "README.md").write_text("text\n# Qwen3-Reranker-4B\n"),
        lambda f: change_json(f / "config.json", _name_or_path="/data/Qwen3-Reranker-0.6B"),
    ],
)
def test_a_checkpoint_says_that_it_is_a_reranker(reranker, tmp_path, say):
    folder = reranker(name="mine")
    silent(folder)
    with pytest.raises(ConversionError, match="is a chat model"):
        convert(folder, tmp_path / "out.gguf", "f32")
    say(folder)
    assert convert(folder, tmp_path / "out.gguf", "f32").kind == "reranker"


def test_the_users_word_counts(reranker, checkpoint, tmp_path):
    folder = reranker(name="mine")
    silent(folder)
    assert convert(folder, tmp_path / "out.gguf", "f32", kind="reranker").kind == "reranker"
    assert keys(tmp_path / "out.gguf")["qwen3.pooling_type"] == 4
    embedder = checkpoint(name="distilled-from-Qwen3-Reranker")
    assert convert(embedder, tmp_path / "other.gguf", "f32", kind="embedder").kind == "embedder"
    assert keys(tmp_path / "other.gguf")["qwen3.pooling_type"] == 3


@pytest.mark.parametrize(
    ("tied", "spoil", "message"),
    [
        (True, {"tie_word_embeddings": False}, r"has no lm_head\.weight, and config\.json does not say that it is"),
        (True, {"architectures": ["Qwen3ForSequenceClassification"], "use_sliding_window": True}, "sliding window"),
    ],
)
def test_a_reranker_without_a_head_is_refused(reranker, tmp_path, tied, spoil, message):
    folder = reranker(tied=tied)
    change_json(folder / "config.json", **spoil)
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", "f32")


def test_a_head_of_another_shape_is_refused(reranker, tmp_path):
    three = rerankers.projection()[:3]
    for name, message in (
        ("score.weight", "has one class, or two tokens"),
        ("lm_head.weight", "unlike the token tab"),
    ):
        folder = reranker(weights=rerankers.weights() | {name: three}, name=f"Qwen3-Reranker-{name[0]}")
        change_json(folder / "config.json", tie_word_embeddings=False)
        with pytest.raises(ConversionError, match=message):
            convert(folder, tmp_path / "out.gguf", "f32")


# From one GGUF to another


@pytest.mark.parametrize("head", ["cls", "turned", "single", "output", "none"])
@pytest.mark.parametrize("quantization", ["f16", "q8_0", "q4_k_m"])
def test_quantizing_keeps_the_head_in_f32_or_makes_it(tmp_path, head, quantization):
    source = rerankers.write(tmp_path / "tiny-reranker.gguf", head)
    info = quantize(source, tmp_path / "out.gguf", quantization)
    yes, no = rerankers.answers(head)
    found = tensors_in(tmp_path / "out.gguf")
    rows = {"turned": np.stack([no, yes]), "single": (yes - no)[None]}.get(head, np.stack([yes, no]))
    kind, shape, data = found[HEAD]
    # llama.cpp writes a single row as a vector.
    assert (kind, tuple(n for n in shape if n > 1), data) == ("F32", raw(np.squeeze(rows))[1], raw(rows)[2])
    assert "output.weight" not in found
    labels = {"turned": ["no", "yes"], "single": ["LABEL_0"]}.get(head, ["yes", "no"])
    after = keys(tmp_path / "out.gguf")
    assert (after["qwen3.pooling_type"], after["qwen3.classifier.output_labels"]) == (4, labels)
    assert (info.quantization, info.kind, info.answers.tensor.name) == (quantization, "reranker", HEAD)
    matrix = rerankers.weights()["embed_tokens.weight"]
    if quantization == "q4_k_m":
        assert found["token_embd.weight"][0] == "Q6_K"
    else:
        kind = {"f16": 1, "q8_0": 8}[quantization]
        assert found["token_embd.weight"][2] == quantized(matrix, kind).tobytes()


def test_a_head_with_a_length_of_one_behind_its_rows_keeps_both(tmp_path):
    yes_no = np.stack(rerankers.answers("cls"))
    plain = rerankers.write(tmp_path / "plain.gguf", "cls")
    source = rewrite(plain, tmp_path / "tiny-reranker.gguf", tensors={HEAD: yes_no[None]})
    quantize(source, tmp_path / "out.gguf", "f16")
    assert tensors_in(tmp_path / "out.gguf")[HEAD][1:] == raw(yes_no)[1:]


def test_making_a_head_changes_nothing_else(tmp_path):
    plain = rerankers.write(tmp_path / "plain.gguf", "none")
    with_head = rerankers.write(tmp_path / "reranker.gguf", "cls")
    quantize(plain, tmp_path / "made.gguf", "q8_0", kind="reranker")
    quantize(with_head, tmp_path / "kept.gguf", "q8_0")
    assert without_head(tmp_path / "made.gguf") == without_head(tmp_path / "kept.gguf")
    made, kept = keys(tmp_path / "made.gguf"), keys(tmp_path / "kept.gguf")
    assert made.pop("tokenizer.chat_templates") == ["rerank"]
    assert rerankers.SUFFIX in made.pop("tokenizer.chat_template.rerank")
    assert made == kept


def test_a_file_that_lost_its_head_gets_one_and_a_quantized_one_is_not_quantized_again(tmp_path):
    source = rerankers.write(tmp_path / "tiny-reranker.gguf", "cls", "f16")
    coarse = rewrite(source, tmp_path / "coarse.gguf", tensors={HEAD: None})
    assert inspect(coarse).kind == "reranker"  # by its labels
    assert quantize(coarse, tmp_path / "out.gguf", "f16").answers.tensor.type_name == "F32"
    quantize(source, tmp_path / "q8_0.gguf", "q8_0")
    with pytest.raises(ConversionError, match=r"q8_0\.gguf is quantized already \(Q8_0\)"):
        quantize(tmp_path / "q8_0.gguf", tmp_path / "twice.gguf", "q4_k_m")


def test_the_commands_take_the_users_word(reranker, tmp_path):
    folder = reranker(name="mine")
    silent(folder)
    assert "is a chat model" in failed("convert", folder, "-o", tmp_path / "f32.gguf", "--type", "f32")
    assert run("convert", folder, "-o", tmp_path / "f32.gguf", "--type", "f32", "--as", "reranker").exit_code == 0
    bare = rewrite(
        tmp_path / "f32.gguf",
        tmp_path / "bare.gguf",
        dict.fromkeys(("qwen3.pooling_type", "qwen3.classifier.output_labels", "tokenizer.chat_template.rerank")),
        {HEAD: None},
    )
    assert "states no pooling" in failed("quantize", bare, tmp_path / "q8_0.gguf", "q8_0")
    result = run("quantize", bare, tmp_path / "q8_0.gguf", "q8_0", "--as", "reranker")
    assert result.exit_code == 0, result.output
    assert tensors_in(tmp_path / "q8_0.gguf")[HEAD] == tensors_in(tmp_path / "f32.gguf")[HEAD]
    assert inspect(tmp_path / "q8_0.gguf").kind == "reranker"
