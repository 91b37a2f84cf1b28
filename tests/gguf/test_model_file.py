"""Judging a model file: its sizes, its kind, and whether its parts fit; every wrong file is named with its fault."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from oracle import Config
from rewriting import N_TOKENS, WORDS, rewrite

from q3e_local.errors import ModelFileError, WrongModelError
from q3e_local.gguf import model_file, model_kind
from q3e_local.gguf.header import TENSOR_TYPES, fingerprint, read_header
from q3e_local.gguf.model_file import ModelInfo, inspect


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_k_m"])
def test_a_sound_file_is_known_in_all_its_sizes(tiny_gguf, tokenizer, kind):
    path = tiny_gguf(kind)
    info = inspect(path)
    assert (info.path, info.name, info.size_bytes) == (path, "Tiny Qwen3 Embedding", path.stat().st_size)
    assert (info.n_embd, info.n_ff, info.n_layer) == (256, 512, 3)
    assert (info.n_head, info.n_head_kv, info.head_dim) == (4, 2, 64)
    assert (info.n_ctx_train, info.n_vocab) == (tiny.N_CTX, tiny.N_VOCAB)
    assert info.eos_id == tokenizer.token_to_id(tiny.END)
    assert info.added_tokens == (*tiny.SPECIAL, *tiny.NOT_SPECIAL)
    assert info.kv_bytes_per_token == 3 * 2 * 64 * 2 * 2  # layers, KV heads, their size, K and V, two bytes


@pytest.mark.parametrize("sizes", [(28, 8, 128, 114_688), (36, 8, 128, 147_456)])
def test_kv_memory_of_the_real_models(small, sizes):
    n_layer, n_head_kv, head_dim, n_bytes = sizes
    fields = vars(inspect(small)) | {"n_layer": n_layer, "n_head_kv": n_head_kv, "head_dim": head_dim}
    assert ModelInfo(**fields).kv_bytes_per_token == n_bytes


def test_tensors_lie_where_the_gguf_package_finds_them(tiny_gguf):
    path = tiny_gguf("q4_k_m")
    theirs = {
        t.name: (tuple(t.shape.tolist()), t.tensor_type.name, t.data_offset, t.n_bytes)
        for t in gguf.GGUFReader(path).tensors
    }
    ours = {t.name: (t.shape, t.type_name, t.offset, t.size_bytes) for t in read_header(path).tensors.values()}
    assert ours == theirs


def test_block_sizes_are_those_of_the_gguf_package():
    sizes = {kind.value: (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: sizes[kind] for kind in TENSOR_TYPES} == TENSOR_TYPES


@pytest.mark.parametrize("stated", [0, 1016])
def test_another_stated_end_token_is_warned_of_and_not_believed(tiny_gguf, eos_id, caplog, stated):
    assert inspect(tiny_gguf("f32", eos_id=stated, add_eos_token=False)).eos_id == eos_id
    assert f"names end token {stated}; using {eos_id} (<|endoftext|>)" in caplog.text


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"qwen3.pooling_type": None}, "states no pooling: a chat model, or the work of an old converter"),
        ({"qwen3.pooling_type": 0}, "states 'none' pooling, not 'last'"),
        ({"qwen3.pooling_type": 1}, "states 'mean' pooling, not 'last'"),
        ({"qwen3.pooling_type": 9}, "states 9 pooling, not 'last'"),
        ({"split.count": 3}, "is one of 3 parts; join them with `llama-gguf-split --merge` first"),
        ({"tokenizer.ggml.model": "llama"}, "has tokenizer 'llama'/'qwen2', not 'gpt2'/'qwen2'"),
        ({"tokenizer.ggml.pre": "default"}, "has tokenizer 'gpt2'/'default', not"),
        ({"tokenizer.ggml.tokens": WORDS}, r"has no token <\|endoftext\|> in its vocabulary"),
        ({"tokenizer.ggml.token_type": [1] * N_TOKENS}, r"does not mark <\|endoftext\|> as a control token"),
        ({"qwen3.attention.causal": False}, "states qwen3.attention.causal, which no Qwen3-Embedding does"),
        ({"qwen3.expert_count": 8}, "states qwen3.expert_count"),
        ({"qwen3.expert_used_count": [2]}, "states qwen3.expert_used_count"),
        ({"qwen3.nextn_predict_layers": 7}, "states qwen3.nextn_predict_layers"),
        ({"qwen3.embedding_length_out": 8}, "states qwen3.embedding_length_out"),
        ({"qwen3.rope.scaling.type": "sideways"}, "states qwen3.rope.scaling.type"),
        ({"qwen3.rope.scale_linear": 4.0}, "states qwen3.rope.scale_linear"),
    ],
)
def test_another_kind_of_model_is_refused_with_the_reason(small, tmp_path, keys, says):
    with pytest.raises(WrongModelError, match=rf"other\.gguf {says}"):
        inspect(rewrite(small, tmp_path / "other.gguf", keys))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"tokenizer.ggml.tokens": None}, "has no vocabulary"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "has no vocabulary"),
        ({"tokenizer.ggml.token_type": None}, "has 264 tokens, but 0 token types"),
        ({"tokenizer.ggml.token_type": [1] * 263}, "has 264 tokens, but 263 token types"),
        ({"tokenizer.ggml.tokens": [tiny.END, *WORDS[:262], "word3"]}, "has 'word3' at id 263, empty or"),
        ({"tokenizer.ggml.tokens": [tiny.END, "", *WORDS[:262]]}, "has '' at id 1, empty or a second time"),
        ({"tokenizer.ggml.tokens": [tiny.END, *WORDS[:262]]}, "has 263 tokens, but 264 token types"),
        ({"qwen3.embedding_length": None}, "states qwen3.embedding_length = None"),
        ({"qwen3.embedding_length": "many"}, "states qwen3.embedding_length = 'many'"),
        ({"qwen3.block_count": 0}, "states qwen3.block_count = 0"),
        ({"qwen3.block_count": 2**31}, "states qwen3.block_count = 2147483648"),
        ({"qwen3.block_count": 513}, "states 513 layers"),
        ({"qwen3.block_count": 2}, "lacks the tensor blk.1.attn_norm.weight"),
        ({"qwen3.attention.head_count": [1]}, "states qwen3.attention.head_count = None"),
        ({"qwen3.attention.head_count_kv": 3}, "states 1 heads on 3 KV heads"),
        ({"qwen3.attention.value_length": None}, "states no qwen3.attention.value_length"),
        ({"qwen3.attention.value_length": 16}, "states qwen3.attention.value_length = 16, not the key length 32"),
        ({"qwen3.rope.dimension_count": 16}, "states qwen3.rope.dimension_count = 16, not the key length 32"),
        ({"qwen3.attention.layer_norm_rms_epsilon": -1.0}, "states qwen3.attention.layer_norm_rms_epsilon = -1.0"),
        ({"qwen3.attention.layer_norm_rms_epsilon": float("nan")}, r"states \S+layer_norm_rms_epsilon = nan"),
        ({"qwen3.rope.freq_base": None}, "states qwen3.rope.freq_base = None"),
        ({"qwen3.rope.freq_base": 0.0}, "states qwen3.rope.freq_base = 0.0"),
        ({"qwen3.feed_forward_length": 64}, r"has blk\.0\.ffn_gate\.weight of shape \(32, 32\), not \(32, 64\)"),
        ({"general.alignment": 7}, "truncated or corrupt: general.alignment is 7"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(small, tmp_path, keys, says):
    with pytest.raises(ModelFileError, match=rf"unfit\.gguf.* {says}"):
        inspect(rewrite(small, tmp_path / "unfit.gguf", keys))


@pytest.mark.parametrize(
    ("tensors", "error", "says"),
    [
        ({"output_norm.weight": None}, ModelFileError, "lacks the tensor output_norm.weight"),
        ({"blk.0.attn_q.weight": None}, ModelFileError, "lacks the tensor blk.0.attn_q.weight"),
        ({"blk.0.attn_norm.weight": None}, ModelFileError, "lacks the tensor blk.0.attn_norm.weight"),
        ({"token_embd.weight": np.zeros((263, 32), "f4")}, ModelFileError, r"shape \(32, 263\), not \(32, 264\)"),
        ({"blk.0.attn_k.weight": np.zeros((64, 32), "f4")}, ModelFileError, r"shape \(32, 64\), not \(32, 32\)"),
        ({"output_norm.weight": np.zeros(32, "f2")}, ModelFileError, "has output_norm.weight in F16, not F32"),
        (
            {"cls.output.weight": np.zeros((3, 32), "f4")},
            ModelFileError,
            "has a head of 3 rows for yes, no; a Q",
        ),
        ({"cls.output.weight": np.zeros((2, 31), "f4")}, ModelFileError, r"shape \(31, 2\), not \(32, 2\)"),
        ({"blk.0.attn_q.bias": np.zeros(32, "f4")}, WrongModelError, "has the tensor blk.0.attn_q.bias, which no"),
    ],
)
def test_wrong_tensors_are_named(small, tmp_path, tensors, error, says):
    with pytest.raises(error, match=rf"tensors\.gguf .*{says}"):
        inspect(rewrite(small, tmp_path / "tensors.gguf", tensors=tensors))


def test_an_odd_key_length_is_refused(tmp_path):
    config = Config(n_layer=1, n_embd=32, n_ff=32, n_head=1, n_head_kv=1, head_dim=31)
    weights = tiny.tiny_weights(config, n_vocab=264)
    path = tiny.write_gguf(tmp_path / "odd.gguf", weights, config, tiny.tiny_tokenizer(264))
    with pytest.raises(ModelFileError, match="states an odd key length, 31"):
        inspect(path)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "bert"])
def test_another_architecture_is_refused(tiny_gguf, arch):
    with pytest.raises(WrongModelError, match=rf"has architecture '{arch}'; only qwen3 .* runs here"):
        inspect(tiny_gguf("f32", arch=arch))


def test_an_untied_vocabulary_projection_is_no_fault(small, tmp_path):
    untied = rewrite(small, tmp_path / "untied.gguf", tensors={"output.weight": np.zeros((264, 32), "f4")})
    assert inspect(untied).n_vocab == 264


@pytest.mark.parametrize(("end_id", "is_right"), [(100, True), (99, False), (101, False)])
def test_a_vocabulary_of_the_real_size_has_the_end_token_in_its_place(small, tmp_path, monkeypatch, end_id, is_right):
    monkeypatch.setattr(model_file, "QWEN_END_ID", 100)  # 151,643 in files of full size
    words, types = WORDS[:-1], [1] * (N_TOKENS - 1)
    words.insert(end_id, tiny.END)
    types.insert(end_id, 3)
    keys = {"tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": types}
    path = rewrite(small, tmp_path / "large.gguf", keys)
    if is_right:
        assert inspect(path).eos_id == 100
    else:
        with pytest.raises(WrongModelError, match=rf"has <\|endoftext\|> at id {end_id}, not 100"):
            inspect(path)


def test_a_copy_has_the_same_fingerprint_under_any_name(tiny_gguf, tmp_path):
    copy = shutil.copyfile(tiny_gguf("f32"), tmp_path / "copy.gguf")
    assert inspect(copy).digest == inspect(tiny_gguf("f32")).digest


def test_any_other_weight_matrix_quantization_or_word_is_another_fingerprint(
    tiny_gguf, tmp_path, weights, config, tokenizer
):
    digests = [inspect(tiny_gguf(kind)).digest for kind in ("f32", "f16", "q8_0", "q4_k_m")]
    for name in ("embed_tokens.weight", "layers.1.mlp.down_proj.weight", "norm.weight"):
        other = weights | {name: weights[name] * np.float32(1.01)}
        path = tiny.write_gguf(tmp_path / "other.gguf", other, config, tokenizer)
        digests.append(fingerprint(read_header(path)))
    words = tiny_gguf("f32").read_bytes().replace(b"capital", b"capitol")
    (tmp_path / "words.gguf").write_bytes(words)
    digests.append(fingerprint(read_header(tmp_path / "words.gguf")))
    assert len(set(digests)) == len(digests)


def of_reranker(small: Path, yes: str = "yes") -> dict[str, list[Any]]:
    """Keys of a vocabulary with the answers and the tokens of a turn."""
    words, types = [yes, "no", "<|im_start|>", "<|im_end|>", *WORDS[4:]], [1, 1, 3, 3, *[1] * (N_TOKENS - 4)]
    words[inspect(small).eos_id], types[inspect(small).eos_id] = tiny.END, 3
    return {"tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": types}


@pytest.mark.parametrize(
    "keys",
    [
        {"qwen3.pooling_type": 4},
        {"qwen3.classifier.output_labels": ["yes", "no"]},
        {"tokenizer.chat_template.rerank": "{query} {document}"},
        {"general.name": "My Qwen3-Reranker"},
        {"general.basename": "qwen3-reranker", "qwen3.pooling_type": None},
    ],
)
def test_a_reranker_is_known_by_what_it_states(small, tmp_path, keys):
    path = rewrite(small, tmp_path / "model.gguf", of_reranker(small) | keys)
    assert (inspect(small).kind, inspect(path).kind) == ("embedder", "reranker")


def test_a_reranker_without_a_head_and_without_answers_is_refused(small, tmp_path):
    with pytest.raises(ModelFileError, match="has neither a head nor the tokens 'yes' and 'no' in its vocabulary"):
        inspect(rewrite(small, tmp_path / "model.gguf", of_reranker(small, "maybe") | {"qwen3.pooling_type": 4}))


@pytest.mark.parametrize("kind", [1, 2, 5])
def test_a_reranker_whose_turns_a_document_could_close_is_refused(small, tmp_path, kind):
    keys = of_reranker(small) | {"qwen3.pooling_type": 4}
    keys["tokenizer.ggml.token_type"][3] = kind
    with pytest.raises(ModelFileError, match=r"does not mark <\|im_end\|> as a special token, so that a document"):
        inspect(rewrite(small, tmp_path / "model.gguf", keys))


def test_a_reranker_of_the_largest_size_without_its_own_projection_is_refused(small, tmp_path, monkeypatch):
    """The 8B's token table is not its projection; in the other sizes the two are one."""
    monkeypatch.setattr(model_kind, "UNTIED_SIZE", 32)
    keys = of_reranker(small) | {"qwen3.pooling_type": 4}
    with pytest.raises(ModelFileError, match=r"has neither a head nor output\.weight, which Qwen3-Reranker-8B has"):
        inspect(rewrite(small, tmp_path / "large.gguf", keys))
    projection = {"output.weight": np.zeros((264, 32), "f4")}
    found = inspect(rewrite(small, tmp_path / "whole.gguf", keys, projection)).answers
    assert found is not None
    assert (found.tensor.name, found.yes, found.no) == ("output.weight", 0, 1)


def test_the_user_may_say_that_a_file_is_a_reranker(small, tmp_path):
    path = rewrite(small, tmp_path / "model.gguf", of_reranker(small))
    assert inspect(path).kind == "embedder"
    assert inspect(path, "reranker").kind == "reranker"
