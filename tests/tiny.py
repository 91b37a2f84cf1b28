"""Tiny random Qwen3 embedding models: weights, a real byte-level BPE tokenizer, and GGUF files of the two.

Knows how llama.cpp's converter writes this family (key order, names, token types), and writes broken variants
on request. Knows nothing of checkpoint folders, nor of the package under test. The vectors mean nothing, but
differ well between texts. Only the type q4_k_m needs llama.cpp.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from oracle import Config, Weights
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

END, CHAT_START, CHAT_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END, CHAT_START, CHAT_END)
NOT_SPECIAL = ("<tool_call>", "</tool_call>", "<think>", "</think>")
N_CTX = 2048
N_VOCAB = 1021  # odd, like the real ones

# How the family cuts a text into the pieces that byte pairs are merged in (`qwen2` in llama.cpp).
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TRAINING_TEXT = """\
Instruct: Given a web search query, retrieve relevant passages that answer the query
Query:What is the capital of China? The capital of China is Beijing.
It's what we'd say; they've said so, and I'll say it.
Explain gravity. Gravity is a force that attracts two bodies towards each other.
The quick brown fox jumps over the lazy dog. A text is a sequence of words, and a vector is a list of numbers.
    def embed(texts):  # code has spaces, tabs\tand new lines
        return [vector(text) for text in texts]
{"name": "value", "list": [1, 2, 3], "price": 12.50}   https://example.org/path?x=1&y=2
Die Schwerkraft ist eine Kraft, die zwei Körper anzieht.
Über Österreich fällt größerer Schnee, sagt der Wetterbericht.
La capitale de la France est Paris. L'été dernier, les élèves étaient déçus par le château près de la forêt.
La capital de España es Madrid. ¿Dónde está el niño? Mañana será otro día, señor.
Столица России — Москва. Сила тяжести притягивает два тела друг к другу.
Быстрая лиса прыгает через ленивую собаку.
中国的首都是北京。重力是一种力，它使两个物体相互吸引。我们把文本变成向量。中国的文本，北京的文本。
日本の首都は東京です。重力は二つの物体を引き寄せる力です。これはテキストです。
대한민국의 수도는 서울입니다. 중력은 두 물체를 끌어당기는 힘입니다. 이것은 텍스트입니다.
Thủ đô của Việt Nam là Hà Nội. Trọng lực là lực hút giữa hai vật thể. Đây là một văn bản tiếng Việt.
عاصمة مصر هي القاهرة. الجاذبية هي القوة التي تجذب جسمين نحو بعضهما البعض. هذا نص عربي.
भारत की राजधानी नई दिल्ली है। गुरुत्वाकर्षण वह बल है जो दो पिंडों को आकर्षित करता है।
בירת ישראל היא ירושלים. ประเทศไทยมีเมืองหลวงคือกรุงเทพมหานคร. Η πρωτεύουσα της Ελλάδας είναι η Αθήνα.
😀 😃 😄 👍 👍🏽 🎉 🚀 ❤️ ☕ → ← ≤ ≥ ≠ ∑ √ π ½ ² ³ € £ ¥ © ™ … “quoted” ‘text’ – — • ！？。，
"""


def tiny_weights(config: Config, seed: int = 0, n_vocab: int = N_VOCAB) -> Weights:
    """Random weights by their Hugging Face names, without `model.`."""
    c, rng = config, np.random.default_rng(seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    def norm(n: int, mean: float = 1.0) -> np.ndarray:
        return (mean * (1 + 0.1 * rng.standard_normal(n))).astype(np.float32)

    weights = {"embed_tokens.weight": matrix(n_vocab, c.n_embd), "norm.weight": norm(c.n_embd)}
    for n in range(c.n_layer):
        layer = {
            "input_layernorm": norm(c.n_embd),
            # Every text ends with the same token, so what tells texts apart must come through attention:
            # a sharp one (large q and k norms) with a loud output.
            "self_attn.q_proj": matrix(c.n_head * c.head_dim, c.n_embd),
            "self_attn.k_proj": matrix(c.n_head_kv * c.head_dim, c.n_embd),
            "self_attn.v_proj": matrix(c.n_head_kv * c.head_dim, c.n_embd),
            "self_attn.o_proj": matrix(c.n_embd, c.n_head * c.head_dim, 2.0),
            "self_attn.q_norm": norm(c.head_dim, 1.5),
            "self_attn.k_norm": norm(c.head_dim, 1.5),
            "post_attention_layernorm": norm(c.n_embd),
            "mlp.gate_proj": matrix(c.n_ff, c.n_embd),
            "mlp.up_proj": matrix(c.n_ff, c.n_embd),
            "mlp.down_proj": matrix(c.n_embd, c.n_ff),
        }
        weights |= {f"layers.{n}.{name}.weight": value for name, value in layer.items()}
    return weights


def tiny_tokenizer(n_vocab: int = N_VOCAB, text: str = TRAINING_TEXT) -> Tokenizer:
    """A byte-level BPE built like the official one, trained on `text`; added tokens come last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), behavior="isolated", invert=False), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    n_learned = n_vocab - len(SPECIAL) - len(NOT_SPECIAL)
    trainer = trainers.BpeTrainer(
        vocab_size=n_learned, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in NOT_SPECIAL])
    # The pair template is an assumption; no text pair is ever embedded.
    template = processors.TemplateProcessing(
        single=f"$A:0 {END}:0", pair=f"$A:0 {END}:0 $B:1 {END}:1", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def write_gguf(
    path: Path,
    weights: Weights,
    config: Config,
    tokenizer: Tokenizer,
    type: Literal["f32", "f16", "q8_0", "q4_k_m"] = "f32",
    *,
    arch: str = "qwen3",
    context_length: int = N_CTX,
    pooling: int | None = 3,
    end_text: str = END,
    eos_id: int | None = None,
    add_eos_token: bool | None = True,
) -> Path:
    """Write a GGUF as llama.cpp's converter does; the keyword arguments make variants, some of them broken.

    `None` for `pooling` or `add_eos_token` leaves the key out. `end_text` renames the end token, `eos_id`
    names another one.
    """
    # The package gguf cannot make K-quants: llama.cpp makes them from an f16 file.
    is_k_quant = type == "q4_k_m"
    written = path.with_name(f"{path.name}.f16") if is_k_quant else path
    float_type = "F16" if is_k_quant else type.upper()
    writer = GGUFWriter(written, arch)
    writer.add_type("model")
    writer.add_name("Tiny Qwen3 Embedding")
    writer.add_basename("Tiny-Qwen3-Embedding")
    writer.add_size_label("2M")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(context_length)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_ff)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_head_kv)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.rms_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_file_type(LlamaFileType[{"F32": "ALL_F32"}.get(float_type, f"MOSTLY_{float_type}")])
    if pooling is not None:
        writer.add_uint32(f"{arch}.pooling_type", pooling)
    writer.add_quantization_version(2)
    _add_tokenizer(writer, tokenizer, end_text, eos_id, add_eos_token)
    for name in sorted(weights):
        kind = GGMLQuantizationType[float_type if weights[name].ndim == 2 else "F32"]
        writer.add_tensor(_gguf_name(name), quantize(weights[name], kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if is_k_quant:
        _quantize_q4_k_m(written, path)
        written.unlink()
    return path


@contextmanager
def mute_llama() -> Iterator[None]:
    """Silence llama.cpp: its log cuts token texts inside a character, which the binding fails to decode."""
    import llama_cpp

    before, user_data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(user_data))
    silent = llama_cpp.llama_log_callback(lambda level, text, user_data: None)
    llama_cpp.llama_log_set(silent, None)
    try:
        yield
    finally:
        llama_cpp.llama_log_set(before, user_data)


def _add_tokenizer(
    writer: GGUFWriter, tokenizer: Tokenizer, end_text: str, eos_id: int | None, add_eos_token: bool | None
) -> None:
    ids, added = tokenizer.get_vocab(), tokenizer.get_added_tokens_decoder()
    tokens = sorted(ids, key=ids.__getitem__)
    types: list[int] = [TokenType.NORMAL] * len(tokens)
    for i, token in added.items():
        types[i] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
    tokens[ids[END]] = end_text
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_eos_token_id(ids[END] if eos_id is None else eos_id)
    writer.add_pad_token_id(ids[END])
    writer.add_eot_token_id(ids[CHAT_END])
    writer.add_bos_token_id(ids[END])
    writer.add_add_bos_token(False)
    if add_eos_token is not None:
        writer.add_add_eos_token(add_eos_token)
    writer.add_add_sep_token(False)


def _gguf_name(name: str) -> str:
    """llama.cpp's name of a weight with this Hugging Face name."""
    names = {
        "embed_tokens": "token_embd",
        "norm": "output_norm",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    stem = name.removesuffix(".weight")
    if not stem.startswith("layers."):
        return f"{names[stem]}.weight"
    _, n, part = stem.split(".", 2)
    return f"blk.{n}.{names[part]}.weight"


def _quantize_q4_k_m(source: Path, target: Path) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = LlamaFileType.MOSTLY_Q4_K_M, 1
    with mute_llama():
        status = llama_cpp.llama_model_quantize(bytes(source), bytes(target), params)
    if status:
        raise RuntimeError(f"llama_model_quantize returned {status} for {source}")
