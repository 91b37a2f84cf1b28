"""Checkpoints to GGUF: keys, tensors and bytes as llama.cpp's converter writes them, and vectors as the oracle's.

The expected keys and values were compared with files of that converter; here they stand written out.
"""

from __future__ import annotations

import json
import logging
import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import numpy as np
import oracle
import pytest
import tiny
from command import run
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType
from gguf.quants import quantize as gguf_quantize
from hypothesis import given
from hypothesis import strategies as st
from oracle import Config, Weights
from tokenizers import Tokenizer

from q3e_local import convert as convert_module
from q3e_local.convert import convert, shards, writer
from q3e_local.convert.shards import read_file
from q3e_local.convert.vocabulary import read_vocabulary
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import ConversionError, NotEnoughDiskError, OptionError, OutputError
from q3e_local.llama.engine import LlamaEngine

Make = Callable[..., Path]
END_ID, CHAT_END_ID = 1014, 1016


@pytest.fixture
def checkpoint(tmp_path: Path, weights: Weights, config: Config, tokenizer: Tokenizer) -> Make:
    """`checkpoint(dtype="F16", n_shards=3)`: a checkpoint's folder, the test's own."""

    def make(**options: Any) -> Path:
        return checkpoints.write_checkpoint(tmp_path, weights, config, tokenizer, **options)

    return make


def keys(path: Path) -> dict[str, Any]:
    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {t.name: (t.tensor_type.name, tuple(t.shape.tolist()), t.data.tobytes()) for t in GGUFReader(path).tensors}


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# What is written


def test_the_keys_are_those_of_llama_cpp_in_their_order(checkpoint: Make, tmp_path: Path, config: Config) -> None:
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
        (
            "general.tags",
            [
                "transformers",
                "sentence-transformers",
                "sentence-similarity",
                "feature-extraction",
                "text-embeddings-inference",
            ],
        ),
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
    order = list(keys(path))
    assert order[order.index("tokenizer.ggml.pre") + 1 :][:3] == [
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
    ]
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
def test_matrices_take_the_type_and_norms_stay_f32(
    checkpoint: Make, tmp_path: Path, weights: Weights, dtype: str, quantization: str
) -> None:
    path = tmp_path / "out.gguf"
    convert(checkpoint(dtype=dtype), path, quantization)
    found = tensors(path)
    stored = checkpoints.rounded(weights, dtype)
    assert list(found) == [tiny._gguf_name(name) for name in sorted(weights)]
    for name, weight in stored.items():
        kind = GGMLQuantizationType[quantization.upper() if weight.ndim == 2 else "F32"]
        expected = (kind.name, weight.shape[::-1], gguf_quantize(weight, kind).tobytes())
        assert found[tiny._gguf_name(name)] == expected, name


@pytest.mark.parametrize("prefix", ["", "model."])
def test_shards_and_prefixes_change_nothing_but_the_order(checkpoint: Make, tmp_path: Path, prefix: str) -> None:
    whole, cut = tmp_path / "whole.gguf", tmp_path / "cut.gguf"
    convert(checkpoint(), whole, "bf16")
    folder = checkpoint(n_shards=3, prefix=prefix, name="other/Qwen3-Embedding-0.6B")
    convert(folder, cut, "bf16")
    assert tensors(whole) == tensors(cut)
    assert keys(whole) == keys(cut)
    # As the converter reads them: shard by shard, and by name in a shard.
    weight_map = json.loads((folder / shards.INDEX).read_text())["weight_map"]
    order = sorted(weight_map, key=lambda name: (weight_map[name], name))
    assert list(tensors(cut)) == [tiny._gguf_name(name.removeprefix("model.")) for name in order]


def test_a_piece_of_a_tensor_is_like_the_whole(
    checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint()
    convert(folder, tmp_path / "whole.gguf", "q8_0")
    monkeypatch.setattr(writer, "_NUMBERS_AT_ONCE", 700)  # two rows of the narrow matrices, one of the others
    convert(folder, tmp_path / "pieces.gguf", "q8_0")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "pieces.gguf").read_bytes()


def test_rows_that_are_no_whole_blocks_become_f16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = Config(n_layer=1, n_embd=48, n_ff=64, n_head=1, n_head_kv=1, head_dim=32)
    folder = checkpoints.write_checkpoint(tmp_path, tiny.tiny_weights(config), config, tokenizer)
    convert(folder, tmp_path / "out.gguf", "q8_0")
    kinds = {name: kind for name, (kind, _, _) in tensors(tmp_path / "out.gguf").items()}
    assert (kinds["token_embd.weight"], kinds["blk.0.ffn_down.weight"]) == ("F16", "Q8_0")


@pytest.mark.parametrize(
    ("spoil", "changed"),
    [
        (lambda f: (f / "README.md").unlink(), {"general.license": None, "general.tags": None}),
        (lambda f: checkpoints.change_json(f / "tokenizer_config.json", eos_token=tiny.END), {
            "tokenizer.ggml.eot_token_id": None,
        }),
        (lambda f: checkpoints.change_json(f / "tokenizer_config.json", eos_token={"content": tiny.CHAT_END}), {}),
        (lambda f: (f / "tokenizer_config.json").unlink(), {
            "tokenizer.ggml.eos_token_id": END_ID,
            "tokenizer.ggml.eot_token_id": None,
            "tokenizer.ggml.padding_token_id": None,
            "tokenizer.chat_template": None,
        }),
        (lambda f: template(f, pair=["A", "B", tiny.END]), {"tokenizer.ggml.add_sep_token": None}),
        (lambda f: template(f, pair=["A", tiny.END, tiny.END, "B", tiny.END]), {
            "tokenizer.ggml.add_sep_token": True,
            "tokenizer.ggml.seperator_token_id": END_ID,
        }),
        (lambda f: jinja(f, "{{ bos }}"), {"tokenizer.chat_template": "{{ bos }}"}),
        (lambda f: checkpoints.change_json(f / "generation_config.json", top_k=20, repetition_penalty=1.5), {
            "general.sampling.top_k": 20, "general.sampling.penalty_repeat": 1.5,
        }),
        (lambda f: checkpoints.change_json(f / "config.json", architectures=["Qwen3Model"]), {}),
        (lambda f: checkpoints.change_json(
            f / "config.json", rope_theta=..., rope_scaling=...,
            rope_parameters={"rope_theta": 5e5, "rope_type": "default"},
        ), {"qwen3.rope.freq_base": 5e5}),
        (lambda f: checkpoints.write_json(f / "1_Pooling/config.json", {"pooling_mode": "lasttoken"}), {}),
        (lambda f: string_merges(f), {}),
    ],
)  # fmt: skip
def test_what_a_checkpoint_says_otherwise(
    checkpoint: Make, tmp_path: Path, spoil: Callable[[Path], None], changed: dict[str, Any]
) -> None:
    usual, folder = tmp_path / "usual.gguf", checkpoint()
    convert(folder, usual, "bf16")
    spoil(folder)
    convert(folder, tmp_path / "out.gguf", "bf16")
    before, after = keys(usual), keys(tmp_path / "out.gguf")
    if not (folder / "README.md").exists():
        before = {key: value for key, value in before.items() if "base_model" not in key}
    assert after == {key: value for key, value in (before | changed).items() if value is not None}


def template(folder: Path, **texts: list[str] | None) -> None:
    """Rewrite the tokenizer's templates: `A`, `B`, or a special token. None for `single`: no template at all."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    processors = tokenizer["post_processor"]["processors"]
    for key, pieces in texts.items():
        if pieces is None:
            del processors[1]
            continue
        processors[1][key] = [
            {"Sequence": {"id": piece, "type_id": 0}}
            if piece in ("A", "B")
            else {"SpecialToken": {"id": piece, "type_id": 0}}
            for piece in pieces
        ]
    checkpoints.write_json(path, tokenizer)


def jinja(folder: Path, text: str) -> None:
    checkpoints.change_json(folder / "tokenizer_config.json", chat_template=...)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def string_merges(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    checkpoints.write_json(path, tokenizer)


def test_without_modules_json_the_last_token_is_taken_and_said(
    checkpoint: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(name="weights-only")
    (folder / "modules.json").unlink()
    convert(folder, tmp_path / "out.gguf", "bf16")
    assert keys(tmp_path / "out.gguf")["qwen3.pooling_type"] == 3
    assert "has no modules.json that states its pooling; taking the last token" in caplog.text


def test_the_end_token_is_set_where_the_tokenizer_does_not_append_it(
    checkpoint: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint()
    template(folder, single=None)
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
def test_the_name_is_given_or_made_of_the_folders(
    checkpoint: Make, tmp_path: Path, folder_name: str, name: str | None, expected: str
) -> None:
    info = convert(checkpoint(name=folder_name), tmp_path / "out.gguf", "bf16", name=name)
    assert (info.name, info.path) == (expected, tmp_path / "out.gguf")


def test_rows_beyond_the_vocabulary_are_named_and_unused(
    tmp_path: Path, config: Config, tokenizer: Tokenizer
) -> None:
    weights = tiny.tiny_weights(config, n_vocab=tiny.N_VOCAB + 3)
    folder = checkpoints.write_checkpoint(tmp_path, weights, config, tokenizer)
    convert(folder, tmp_path / "out.gguf", "bf16")
    found = keys(tmp_path / "out.gguf")
    assert found["tokenizer.ggml.tokens"][-3:] == ["[PAD1021]", "[PAD1022]", "[PAD1023]"]
    assert found["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]


def test_the_head_is_left_out(tmp_path: Path, weights: Weights, config: Config, tokenizer: Tokenizer) -> None:
    """It is never read, and with it Q4_K_M would store the token table more coarsely."""
    weights = weights | {"lm_head.weight": weights["embed_tokens.weight"]}
    convert(checkpoints.write_checkpoint(tmp_path, weights, config, tokenizer), tmp_path / "out.gguf", "bf16")
    assert len(tensors(tmp_path / "out.gguf")) == len(weights) - 1


@pytest.mark.parametrize(
    ("dtype", "quantization", "least"),
    [("BF16", "f32", 0.999999), ("BF16", "bf16", 0.9999), ("F16", "f16", 0.9999), ("F32", "q8_0", 0.999)],
)
def test_the_vectors_are_the_oracles(
    checkpoint: Make, tmp_path: Path, weights: Weights, config: Config, dtype: str, quantization: str, least: float
) -> None:
    convert(checkpoint(dtype=dtype, n_shards=3), tmp_path / "out.gguf", quantization)
    stored = checkpoints.rounded(weights, dtype)
    with LlamaEngine(tmp_path / "out.gguf", EngineConfig(n_threads=1)) as engine:
        for text in ("The capital of China is Beijing.", "重力是一种力", "def embed(texts):"):
            ids = [*engine.tokenize(text), engine.eos_id]
            assert cosine(engine.decode([ids])[0], oracle.embed(stored, config, ids)) >= least


def test_memory_is_bounded_by_a_piece_of_a_tensor(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(n_layer=1, n_embd=4096, n_ff=4096, n_head=1, n_head_kv=1, head_dim=64)
    folder = checkpoints.write_checkpoint(tmp_path, tiny.tiny_weights(config), config, tokenizer, dtype="F32")
    monkeypatch.setattr(writer, "_NUMBERS_AT_ONCE", 1 << 18)  # 1 MiB
    tracemalloc.start()
    convert(folder, tmp_path / "out.gguf", "q8_0")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (folder / "model.safetensors").stat().st_size > 200e6
    assert peak < 20e6  # of which the vocabulary is a part


def test_progress_is_told_in_bytes(checkpoint: Make, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    convert(checkpoint(), tmp_path / "out.gguf", "f16", progress=lambda *each: told.append(each))
    assert told == sorted(told)
    assert {step for step, _, _ in told} == {"convert"}
    assert told[-1][1] == told[-1][2] == sum(t.n_bytes for t in GGUFReader(tmp_path / "out.gguf").tensors)


# What is refused


def shape(folder: Path, **changes: Any) -> None:
    checkpoints.change_json(folder / "config.json", **changes)


def reshard(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = folder / shards.INDEX
    index = json.loads(path.read_text())
    change(index["weight_map"])
    checkpoints.write_json(path, index)


def header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of the only shard, and its length with it."""
    path = folder / shards.SINGLE
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + length])
    change(entries)
    new = json.dumps(entries).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + length :])


def cut(path: Path, n_bytes: int) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size + n_bytes)


def tokens(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    change(tokenizer)
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def chat(folder: Path) -> None:
    """A chat model's folder, as far as it can be told from an embedding model's."""
    (folder / "modules.json").unlink()
    template(folder, single=None)


NORM = "norm.weight"
Q_PROJ = "layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json; download the whole repository"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json is not a JSON object"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json is not JSON"),
        (lambda f: shape(f, architectures=["BertModel"]), "is a BertModel checkpoint; only Qwen3ForCausalLM or"),
        (lambda f: shape(f, architectures=..., model_type="qwen2"), "is a qwen2 checkpoint"),
        (lambda f: shape(f, architectures=["Qwen3ForSequenceClassification"]), "is a reranker"),
        (lambda f: (f / "README.md").write_text("# Qwen3-Reranker-4B"), "is a reranker"),
        (lambda f: shape(f, quantization_config={}), "is quantized already; take the original checkpoint"),
        (lambda f: shape(f, rope_scaling={"rope_type": "yarn", "factor": 4}), "has scaled positions"),
        (lambda f: shape(f, use_sliding_window=True), "uses a sliding window"),
        (lambda f: shape(f, is_causal=False), "does not use causal attention"),
        (lambda f: shape(f, hidden_act="gelu"), "uses 'gelu', not 'silu'"),
        (lambda f: shape(f, head_dim=...), "config.json says head_dim = None"),
        (lambda f: shape(f, hidden_size="256"), "config.json says hidden_size = '256'"),
        (lambda f: shape(f, rms_norm_eps=True), "config.json says rms_norm_eps = True"),
        (lambda f: shape(f, num_hidden_layers=2), "has the tensor layers.2."),
        (lambda f: shape(f, num_hidden_layers=10**9), "lacks the tensor layers.3."),
        (lambda f: shape(f, hidden_size=128), r"of shape \[1021, 256\], not \[1021, 128\] as config.json says"),
        (lambda f: (f / shards.SINGLE).unlink(), "has no model.safetensors; download the whole repository"),
        (lambda f: cut(f / shards.SINGLE, -1), r"model.safetensors is truncated: [\d,]+ bytes of [\d,]+"),
        (lambda f: cut(f / shards.SINGLE, 5), "has 5 bytes too many"),
        (lambda f: (f / shards.SINGLE).write_bytes(b"abc"), "is truncated at 3 bytes"),
        (lambda f: (f / shards.SINGLE).write_bytes(b"\xff" * 100), "a header of 18,446,744,073,709,551,615 bytes"),
        (lambda f: (f / shards.SINGLE).write_bytes(b"version https://git-lfs.github.com"), "is a Git LFS pointer"),
        (lambda f: (f / "tokenizer.json").write_bytes(b"version https://git-lfs.github.com"), "is a Git LFS pointer"),
        (lambda f: header(f, lambda h: h.pop(NORM)), "has [0-9,]+ bytes too many|has a gap"),
        (lambda f: header(f, lambda h: h[NORM].update(dtype="F8_E4M3")), "'norm.weight' in F8_E4M3; BF16, F16, F32"),
        (lambda f: header(f, lambda h: h[NORM].update(shape=[255])), r"512 bytes for 'norm.weight', BF16 of"),
        (lambda f: header(f, lambda h: h[NORM].update(shape=[-1])), "has a broken entry for 'norm.weight'"),
        (lambda f: header(f, lambda h: h[Q_PROJ].update(shape=[128, 512])), r"shape \[128, 512\], not \[256, 256\]"),
        (lambda f: header(f, lambda h: h.update(bias=h.pop(NORM))), "the tensor bias, which no Qwen3-Embedding has"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json; download the whole repository"),
        (lambda f: tokens(f, lambda t: t["model"].update(type="Unigram")), "is a 'Unigram' tokenizer"),
        (lambda f: tokens(f, lambda t: t["model"].update(merges=[])), "has no merges"),
        (lambda f: tokens(f, lambda t: t["model"]["merges"].append(["a"])), r"has a broken merge \['a'\]"),
        (lambda f: tokens(f, lambda t: t["model"]["vocab"].update(x=2000)), "'x' at id 2000, the model 1021 rows"),
        (lambda f: tokens(f, lambda t: t["model"]["vocab"].update(xyz=5)), "and 'xyz' at id 5|'xyz' and .* at id 5"),
        (lambda f: tokens(f, lambda t: t["model"]["vocab"].update({"\ud800": None})), "has a broken token"),
        (lambda f: tokens(f, lambda t: t["model"].update(vocab={"\ud800": 5})), "has a token that is no valid"),
        (lambda f: tokens(f, lambda t: t.update(added_tokens=None)), r"has no added token <\|endoftext\|>"),
        (lambda f: template(f, single=["A", tiny.CHAT_END]), "puts '<|im_end|>' around a text".replace("|", r"\|")),
        (lambda f: template(f, single=[tiny.END, "A"]), r"puts '<\|endoftext\|>' around a text"),
        (lambda f: checkpoints.write_json(f / "1_Pooling/config.json", {"pooling_mode_mean_tokens": True}),
         "pools by 'mean', not the last token"),
        (lambda f: (f / "1_Pooling/config.json").unlink(), "1_Pooling has no config.json"),
        (lambda f: (f / "modules.json").write_text("{}"), "modules.json is not a list of modules"),
        (lambda f: checkpoints.write_json(f / "modules.json", [*checkpoints.MODULES, {"type": "x.Dense"}]),
         "has a Dense module, which a GGUF cannot hold"),
        (lambda f: (f / "README.md").write_text("---\nlicense: [\n---\n"), "the front matter of .* cannot be used"),
        (lambda f: (f / "README.md").write_text("---\nlicense: 5\n---\n"), "cannot be (used|written)"),
    ],
)  # fmt: skip
def test_a_broken_or_foreign_checkpoint_is_refused(
    checkpoint: Make, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = checkpoint()
    spoil(folder)
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", "bf16")
    assert listing(tmp_path) == [checkpoints.NAME]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), "lacks model-00002-of-00003.safetensors,"),
        (lambda f: (f / shards.INDEX).unlink() or (f / "model-00003-of-00003.safetensors").unlink(),
         "lacks model-00003-of-00003.safetensors; download"),
        (lambda f: (f / shards.INDEX).write_text("{}"), "has no weight_map"),
        (lambda f: reshard(f, lambda m: m.update(ghost="model-00001-of-00003.safetensors")), "ghost .* is in none"),
        (lambda f: reshard(f, lambda m: m.pop(NORM)), "has norm.weight, which model.safetensors.index.json does not"),
        (lambda f: reshard(f, lambda m: m.update({NORM: "model-00001-of-00003.safetensors"})),
         "norm.weight is in model-00001-of-00003.safetensors, it is in model-00003-of-00003.safetensors"),
        (lambda f: reshard(f, lambda m: m.update({NORM: "../x.safetensors"})), "which is no file beside it"),
        (lambda f: cut(f / "model-00002-of-00003.safetensors", -10), "00002-of-00003.safetensors is truncated"),
    ],
)  # fmt: skip
def test_shards_that_do_not_agree_are_refused(
    checkpoint: Make, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = checkpoint(n_shards=3)
    spoil(folder)
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", "bf16")
    assert listing(tmp_path) == [checkpoints.NAME]


def test_shards_without_an_index_are_found(checkpoint: Make, tmp_path: Path) -> None:
    folder = checkpoint(n_shards=3)
    convert(folder, tmp_path / "with.gguf", "bf16")
    (folder / shards.INDEX).unlink()
    convert(folder, tmp_path / "without.gguf", "bf16")
    assert (tmp_path / "with.gguf").read_bytes() == (tmp_path / "without.gguf").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"), [("Qwen3-0.6B", "is a chat model"), ("Qwen3-Reranker-4B", "a reranker")]
)
def test_other_qwen3_models_are_refused(checkpoint: Make, tmp_path: Path, name: str, message: str) -> None:
    folder = checkpoint(name=name)
    chat(folder)
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", "bf16")


def test_an_early_embedding_checkpoint_is_known_by_its_name(checkpoint: Make, tmp_path: Path) -> None:
    folder = checkpoint()
    chat(folder)
    assert convert(folder, tmp_path / "out.gguf", "bf16").eos_id == END_ID


@pytest.mark.parametrize(
    ("bad", "quantization", "message"),
    [
        (np.nan, "bf16", "has NaN or infinity in layers.1.mlp.up_proj.weight"),
        (np.inf, "q8_0", "has NaN or infinity in layers.1.mlp.up_proj.weight"),
        (1e5, "f16", r"has a weight of 99840, above what f16 can hold; take bf16 or f32"),
    ],
)
def test_numbers_that_would_become_nan_are_refused(
    tmp_path: Path,
    weights: Weights,
    config: Config,
    tokenizer: Tokenizer,
    bad: float,
    quantization: str,
    message: str,
) -> None:
    spoilt = weights["layers.1.mlp.up_proj.weight"].copy()
    spoilt[3, 4] = bad
    weights = weights | {"layers.1.mlp.up_proj.weight": spoilt}
    folder = checkpoints.write_checkpoint(tmp_path, weights, config, tokenizer)
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", quantization)
    assert listing(tmp_path) == [checkpoints.NAME]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "there is no folder"),
        ("model.gguf", "is a file, not a checkpoint's folder; quantize it with"),
        ("model.safetensors", "is a file, not a checkpoint's folder; name its folder"),
    ],
)
def test_a_source_that_is_no_folder_is_refused(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "model.gguf").touch()
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path / source, tmp_path / "out.gguf")


def test_the_target_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "there.gguf").write_text("precious")
    for target, message in (
        (tmp_path / "there.gguf", "exists; replace it with --force"),
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "no" / "out.gguf", "there is no folder"),
    ):
        with pytest.raises(OutputError, match=message):
            convert(tmp_path / "nowhere", target)
    with pytest.raises(OptionError, match=r"there is no quantization 'q4_0'; choose from f32, f16, bf16, q8_0, q6_k"):
        convert(tmp_path / "nowhere", tmp_path / "out.gguf", "q4_0")
    assert (tmp_path / "there.gguf").read_text() == "precious"


def test_a_target_is_replaced_when_asked(checkpoint: Make, tmp_path: Path) -> None:
    (tmp_path / "out.gguf").write_text("old")
    convert(checkpoint(), tmp_path / "out.gguf", "bf16", force=True)
    assert keys(tmp_path / "out.gguf")["general.file_type"] == 32


def test_a_target_that_appears_meanwhile_is_kept(checkpoint: Make, tmp_path: Path) -> None:
    def appear(step: str, done: int, total: int) -> None:
        (tmp_path / "out.gguf").write_text("precious")

    with pytest.raises(OutputError, match="exists"):
        convert(checkpoint(), tmp_path / "out.gguf", "bf16", progress=appear)
    assert (tmp_path / "out.gguf").read_text() == "precious"
    assert listing(tmp_path) == [checkpoints.NAME, "out.gguf"]


def test_a_full_disk_is_seen_before(checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**7))
    with pytest.raises(NotEnoughDiskError, match=r"takes 0.0 GB of disk for a while, .* has 0.0 GB free; make room"):
        convert(checkpoint(), tmp_path / "out.gguf", "bf16")


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(
    checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = checkpoint()
    monkeypatch.setattr(writer, "_pad", full)
    with pytest.raises(NotEnoughDiskError, match="make room"):
        convert(folder, tmp_path / "out.gguf", "bf16")
    assert listing(tmp_path) == [checkpoints.NAME]


def test_ctrl_c_leaves_nothing(checkpoint: Make, tmp_path: Path) -> None:
    def interrupt(step: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint(), tmp_path / "out.gguf", "bf16", progress=interrupt)
    assert listing(tmp_path) == [checkpoints.NAME]


# Corrupted headers


def sound_file(path: Path) -> bytes:
    parts = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}
    checkpoints.write_safetensors(path, parts, "F32")
    return path.read_bytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards") / "model.safetensors"


def read(path: Path, raw: bytes) -> None:
    """Read a file, and its tensors: either they lie in the file, or it is a ConversionError."""
    path.write_bytes(raw)
    try:
        found = read_file(path)
    except ConversionError:
        return
    for tensor in found:
        if tensor.shape and all(tensor.shape):
            assert sum(piece.size for piece in tensor.rows(5)) == np.prod(tensor.shape)


@given(data=st.data())
def test_a_torn_or_changed_file_is_an_error_or_sound(file: Path, data: st.DataObject) -> None:
    raw = bytearray(sound_file(file))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    read(file, bytes(raw[: data.draw(st.integers(0, len(raw)))]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    entry=JSON
    | st.fixed_dictionaries({"dtype": st.sampled_from(["F32", "BF16", 3]), "shape": JSON, "data_offsets": JSON})
)
def test_any_json_for_a_tensor_is_an_error_or_sound(file: Path, entry: Any) -> None:
    raw = json.dumps({"a": entry}).encode()
    read(file, len(raw).to_bytes(8, "little") + raw + bytes(24))


@given(value=JSON, place=st.sampled_from(["model", "added_tokens", "post_processor", "pre_tokenizer", "normalizer"]))
def test_any_json_in_a_tokenizer_is_an_error_or_fine(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, value: Any, place: str
) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.write_json(folder / "tokenizer_config.json", checkpoints.tokenizer_config(tokenizer))
    settings = json.loads(tokenizer.to_str()) | {place: value}
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    with suppress(ConversionError):
        read_vocabulary(folder, {}, tiny.N_VOCAB)


# The command


def test_the_command_converts_and_says_what_it_made(checkpoint: Make, tmp_path: Path) -> None:
    result = run("convert", checkpoint(), "-o", tmp_path / "out.gguf", "--type", "f16", "--name", "Mine")
    assert (result.exit_code, result.stdout) == (0, "")
    size = (tmp_path / "out.gguf").stat().st_size
    assert f"out.gguf: Mine, F16, {size:,} bytes in 0 s\nsha256 " in result.stderr
    again = run("convert", tmp_path / checkpoints.NAME, "-o", tmp_path / "out.gguf", "--type", "f16")
    assert (again.exit_code, "exists; replace it with --force" in again.stderr) == (1, True)
    forced = run(
        "convert", tmp_path / checkpoints.NAME, "-o", tmp_path / "out.gguf", "--type", "bf16", "--force", "-q"
    )
    assert (forced.exit_code, forced.output) == (0, "")


def test_a_repository_that_is_not_here_is_one_sentence(tmp_path: Path) -> None:
    result = run("convert", "Qwen/Qwen3-Embedding-0.6B", "-o", tmp_path / "out.gguf")
    assert result.exit_code == 1
    assert "config.json of Qwen/Qwen3-Embedding-0.6B is not on this machine; download it" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
def test_a_device_is_not_replaced(checkpoint: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.gguf")
    result = run("convert", checkpoint(), "-o", tmp_path / "out.gguf", "--force")
    assert (result.exit_code, "is no regular file" in result.stderr) == (1, True)
    assert (tmp_path / "out.gguf").is_fifo()


def test_a_type_that_is_not_made_is_wrong_usage(tmp_path: Path) -> None:
    assert run("convert", "x", "-o", tmp_path / "out.gguf", "--type", "q4_0").exit_code == 2


@pytest.fixture(autouse=True)
def _loud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
