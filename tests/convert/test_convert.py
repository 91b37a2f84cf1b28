"""Checkpoints to GGUF: keys, tensors and bytes as llama.cpp's converter writes them, and vectors as the oracle's.

The expected keys and values were compared with files of that converter; here they stand written out.
"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import tiny
from checkpoints import change_json, change_tokenizer, expected_tensors, set_templates, tensors_in, write_json
from gguf import GGUFReader, GGUFValueType
from oracle import Config

from q3e_local.convert import convert, shards, writer

END_ID, CHAT_END_ID = 1014, 1016


def keys(path: Path) -> dict[str, Any]:
    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


def test_the_keys_are_those_of_llama_cpp_in_their_order(checkpoint, tmp_path, config):
    path = tmp_path / "out.gguf"
    convert(checkpoint(), path, "bf16")
    found = keys(path)
    tokens = found.pop("tokenizer.ggml.tokens"), found.pop("tokenizer.ggml.token_type")
    merges = found.pop("tokenizer.ggml.merges")
    assert list(found.items()) == [
        ("general.architecture", "qwen3"),
        ("general.type", "model"),
        ("general.name", "Qwen3 Embedding 0.6B"),
        # The tiny model is too small for "0.6B" to be believed; with 596 M weights it is the size_label.
        ("general.finetune", "0.6b"),
        ("general.basename", "Qwen3-Embedding"),
        ("general.size_label", "2.0M"),
        ("general.license", "apache-2.0"),
        ("general.base_model.count", 1),
        ("general.base_model.0.name", "Qwen3 0.6B Base"),
        ("general.base_model.0.organization", "Qwen"),
        ("general.base_model.0.repo_url", "https://huggingface.co/Qwen/Qwen3-0.6B-Base"),
        ("general.tags", checkpoints.TAGS),
        ("qwen3.block_count", config.n_layer),
        ("qwen3.context_length", tiny.N_CTX),
        ("qwen3.embedding_length", config.n_embd),
        ("qwen3.feed_forward_length", config.n_ff),
        ("qwen3.attention.head_count", config.n_head),
        ("qwen3.attention.head_count_kv", config.n_head_kv),
        ("qwen3.rope.freq_base", 1_000_000.0),
        ("qwen3.attention.layer_norm_rms_epsilon", pytest.approx(1e-6)),
        ("qwen3.attention.key_length", config.head_dim),
        ("qwen3.attention.value_length", config.head_dim),
        ("general.file_type", 32),
        ("qwen3.pooling_type", 3),
        ("general.quantization_version", 2),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "qwen2"),
        ("tokenizer.ggml.eos_token_id", END_ID),
        ("tokenizer.ggml.padding_token_id", END_ID),
        ("tokenizer.ggml.eot_token_id", CHAT_END_ID),
        ("tokenizer.ggml.bos_token_id", END_ID),
        ("tokenizer.ggml.add_bos_token", False),
        ("tokenizer.ggml.add_eos_token", True),
        ("tokenizer.ggml.add_sep_token", False),
        ("tokenizer.chat_template", checkpoints.CHAT_TEMPLATE),
    ]
    behind = list(keys(path)).index("tokenizer.ggml.pre") + 1
    vocabulary = [f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges")]
    assert list(keys(path))[behind : behind + 3] == vocabulary
    fields = GGUFReader(path).fields
    assert fields["qwen3.rope.freq_base"].types == [GGUFValueType.FLOAT32]
    assert fields["qwen3.pooling_type"].types == [GGUFValueType.UINT32]
    assert fields["tokenizer.ggml.token_type"].types == [GGUFValueType.ARRAY, GGUFValueType.INT32]
    check_vocabulary(*tokens, merges)


def check_vocabulary(texts: list[str], types: list[int], merges: list[str]) -> None:
    tokenizer = tiny.tiny_tokenizer()
    ids = tokenizer.get_vocab()
    assert texts == sorted(ids, key=ids.__getitem__)
    control, user_defined = [texts[i] for i in np.flatnonzero(np.array(types) == 3)], texts[-4:]
    assert control == list(tiny.SPECIAL)
    assert user_defined == list(tiny.NOT_SPECIAL)
    assert types[-4:] == [4] * 4
    assert types.count(1) == len(types) - 7
    assert merges == [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_matrices_take_the_type_and_norms_stay_f32(checkpoint, tmp_path, weights, dtype, quantization):
    path = tmp_path / "out.gguf"
    convert(checkpoint(dtype=dtype), path, quantization)
    expected = expected_tensors(checkpoints.rounded(weights, dtype), quantization)
    assert list(tensors_in(path).items()) == list(expected.items())


@pytest.mark.parametrize("prefix", ["", "model."])
def test_shards_and_prefixes_change_nothing_but_the_order(checkpoint, tmp_path, prefix):
    whole, cut = tmp_path / "whole.gguf", tmp_path / "cut.gguf"
    convert(checkpoint(), whole, "bf16")
    folder = checkpoint(n_shards=3, prefix=prefix, name="other/Qwen3-Embedding-0.6B")
    convert(folder, cut, "bf16")
    assert tensors_in(whole) == tensors_in(cut)
    assert keys(whole) == keys(cut)
    # As the converter reads them: shard by shard, and by name in a shard.
    weight_map = json.loads((folder / shards.INDEX).read_text())["weight_map"]
    order = sorted(weight_map, key=lambda name: (weight_map[name], name))
    assert list(tensors_in(cut)) == [tiny._gguf_name(name.removeprefix("model.")) for name in order]


def test_a_piece_of_a_tensor_is_like_the_whole(checkpoint, tmp_path, monkeypatch):
    folder = checkpoint()
    convert(folder, tmp_path / "whole.gguf", "q8_0")
    # Pieces show in no file. 700 numbers are two rows of the narrow matrices, and one of the others.
    monkeypatch.setattr(writer, "_NUMBERS_AT_ONCE", 700)
    convert(folder, tmp_path / "pieces.gguf", "q8_0")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "pieces.gguf").read_bytes()


def test_rows_that_are_no_whole_blocks_become_f16(checkpoint, tmp_path):
    config = Config(n_layer=1, n_embd=48, n_ff=64, n_head=1, n_head_kv=1, head_dim=32)
    convert(checkpoint(tiny.tiny_weights(config), config), tmp_path / "out.gguf", "q8_0")
    kinds = {name: kind for name, (kind, _, _) in tensors_in(tmp_path / "out.gguf").items()}
    assert (kinds["token_embd.weight"], kinds["blk.0.ffn_down.weight"]) == ("F16", "Q8_0")


@pytest.mark.parametrize(
    ("spoil", "changed"),
    [
        (lambda f: (f / "README.md").unlink(), {"general.license": None, "general.tags": None}),
        (lambda f: change_json(f / "tokenizer_config.json", eos_token=tiny.END), {
            "tokenizer.ggml.eot_token_id": None,
        }),
        (lambda f: change_json(f / "tokenizer_config.json", eos_token={"content": tiny.CHAT_END}), {}),
        (lambda f: (f / "tokenizer_config.json").unlink(), {
            "tokenizer.ggml.eos_token_id": END_ID,
            "tokenizer.ggml.eot_token_id": None,
            "tokenizer.ggml.padding_token_id": None,
            "tokenizer.chat_template": None,
        }),
        (lambda f: set_templates(f, pair=["A", "B", tiny.END]), {"tokenizer.ggml.add_sep_token": None}),
        (lambda f: set_templates(f, pair=["A", tiny.END, tiny.END, "B", tiny.END]), {
            "tokenizer.ggml.add_sep_token": True,
            "tokenizer.ggml.seperator_token_id": END_ID,
        }),
        (lambda f: jinja(f, "{{ bos }}"), {"tokenizer.chat_template": "{{ bos }}"}),
        (lambda f: change_json(f / "generation_config.json", top_k=20, repetition_penalty=1.5), {
            "general.sampling.top_k": 20, "general.sampling.penalty_repeat": 1.5,
        }),
        (lambda f: change_json(f / "config.json", architectures=["Qwen3Model"]), {}),
        (lambda f: change_json(
            f / "config.json", rope_theta=..., rope_scaling=...,
            rope_parameters={"rope_theta": 5e5, "rope_type": "default"},
        ), {"qwen3.rope.freq_base": 5e5}),
        (lambda f: write_json(f / "1_Pooling/config.json", {"pooling_mode": "lasttoken"}), {}),
        (lambda f: string_merges(f), {}),
    ],
)  # fmt: skip
def test_what_a_checkpoint_says_otherwise(checkpoint, tmp_path, spoil, changed):
    usual, folder = tmp_path / "usual.gguf", checkpoint()
    convert(folder, usual, "bf16")
    spoil(folder)
    convert(folder, tmp_path / "out.gguf", "bf16")
    before, after = keys(usual), keys(tmp_path / "out.gguf")
    if not (folder / "README.md").exists():
        before = {key: value for key, value in before.items() if "base_model" not in key}
    assert after == {key: value for key, value in (before | changed).items() if value is not None}


def jinja(folder: Path, text: str) -> None:
    change_json(folder / "tokenizer_config.json", chat_template=...)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def string_merges(folder: Path) -> None:
    change_tokenizer(folder, lambda t: t["model"].update(merges=[" ".join(pair) for pair in t["model"]["merges"]]))


def test_without_modules_json_the_last_token_is_taken_with_a_warning(checkpoint, tmp_path, caplog):
    folder = checkpoint(name="weights-only")
    (folder / "modules.json").unlink()
    convert(folder, tmp_path / "out.gguf", "bf16")
    assert keys(tmp_path / "out.gguf")["qwen3.pooling_type"] == 3
    assert "has no modules.json that states its pooling; taking the last token" in caplog.text


def test_the_end_token_is_set_where_the_tokenizer_does_not_append_it(checkpoint, tmp_path, caplog):
    folder = checkpoint()
    set_templates(folder, single=None)
    convert(folder, tmp_path / "out.gguf", "bf16")
    found = keys(tmp_path / "out.gguf")
    assert (found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.eot_token_id"]) == (END_ID, CHAT_END_ID)
    assert found["tokenizer.ggml.add_eos_token"] is True
    assert "does not append <|endoftext|>" in caplog.text


@pytest.mark.parametrize(
    ("folder_name", "name", "expected"),
    [
        ("Qwen3-Embedding-4B", None, "Qwen3 Embedding 4B"),
        ("Qwen3-Embedding-4B", "My own", "My own"),
        ("models--Qwen--Qwen3-Embedding-8B/snapshots/97b0c614be4d", None, "Qwen3 Embedding 8B"),
    ],
)
def test_the_name_is_that_of_the_option_or_of_the_folder(checkpoint, tmp_path, folder_name, name, expected):
    info = convert(checkpoint(name=folder_name), tmp_path / "out.gguf", "bf16", name=name)
    assert (info.name, info.path) == (expected, tmp_path / "out.gguf")


def test_rows_beyond_the_vocabulary_are_named_and_unused(checkpoint, tmp_path, config):
    weights = tiny.tiny_weights(config, n_vocab=tiny.N_VOCAB + 3)
    convert(checkpoint(weights), tmp_path / "out.gguf", "bf16")
    found = keys(tmp_path / "out.gguf")
    assert found["tokenizer.ggml.tokens"][-3:] == ["[PAD1021]", "[PAD1022]", "[PAD1023]"]
    assert found["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]


def test_the_head_is_left_out(checkpoint, tmp_path, weights):
    """The head is never read, and with it Q4_K_M would store the token table more coarsely."""
    weights = weights | {"lm_head.weight": weights["embed_tokens.weight"]}
    convert(checkpoint(weights), tmp_path / "out.gguf", "bf16")
    assert len(tensors_in(tmp_path / "out.gguf")) == len(weights) - 1


@pytest.mark.parametrize(
    ("dtype", "quantization", "least"),
    [("BF16", "f32", 0.999999), ("BF16", "bf16", 0.9999), ("F16", "f16", 0.9999), ("F32", "q8_0", 0.999)],
)
def test_the_vectors_are_the_oracles(checkpoint, cosines, tmp_path, weights, dtype, quantization, least):
    convert(checkpoint(dtype=dtype, n_shards=3), tmp_path / "out.gguf", quantization)
    assert min(cosines(tmp_path / "out.gguf", checkpoints.rounded(weights, dtype))) >= least


def test_memory_is_bounded_by_a_piece_of_a_tensor(checkpoint, tmp_path, monkeypatch):
    config = Config(n_layer=1, n_embd=4096, n_ff=4096, n_head=1, n_head_kv=1, head_dim=64)
    folder = checkpoint(tiny.tiny_weights(config), config, dtype="F32")
    monkeypatch.setattr(writer, "_NUMBERS_AT_ONCE", 1 << 18)  # 1 MiB: a model of several usual pieces is too large
    tracemalloc.start()
    convert(folder, tmp_path / "out.gguf", "q8_0")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (folder / "model.safetensors").stat().st_size > 200e6
    assert peak < 20e6  # of which the vocabulary is a part


def test_progress_is_counted_in_bytes(checkpoint, tmp_path):
    calls = []
    convert(checkpoint(), tmp_path / "out.gguf", "f16", progress=lambda *call: calls.append(call))
    assert calls == sorted(calls)
    assert {step for step, _, _ in calls} == {"convert"}
    assert calls[-1][1] == calls[-1][2] == sum(t.n_bytes for t in GGUFReader(tmp_path / "out.gguf").tensors)


def test_shards_without_an_index_are_found(checkpoint, tmp_path):
    folder = checkpoint(n_shards=3)
    convert(folder, tmp_path / "with.gguf", "bf16")
    (folder / shards.INDEX).unlink()
    convert(folder, tmp_path / "without.gguf", "bf16")
    assert (tmp_path / "with.gguf").read_bytes() == (tmp_path / "without.gguf").read_bytes()
