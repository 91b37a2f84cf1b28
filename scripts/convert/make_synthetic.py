"""Write a full-size Qwen3-Embedding or Qwen3-Reranker GGUF with random weights, to measure speed and memory.

Shapes, tensor types, metadata and vocabulary size are those of the official Q4_K_M files. The weights are
valid random blocks of standard deviation 0.02, drawn anew for every tensor, so hidden states stay finite
and texts get different vectors; but the vectors mean nothing. Knows nothing of checkpoints, llama.cpp or
the q3e_local package.

    python scripts/convert/make_synthetic.py --size 0.6b -o synth-0.6b.gguf
    python scripts/convert/make_synthetic.py --size 4b -o synth-4b.gguf --vocab-from some-qwen.gguf
    python scripts/convert/make_synthetic.py --size 0.6b --reranker -o synth-reranker-0.6b.gguf
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import click
import numpy as np
from gguf import (
    GGMLQuantizationType,
    GGUFReader,
    GGUFWriter,
    LlamaFileType,
    PoolingType,
    TokenType,
    quant_shape_to_byte_shape,
)

F32, Q4_K, Q6_K = GGMLQuantizationType.F32, GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K
WEIGHT_STD = 0.02


@dataclass(frozen=True)
class Size:
    """The numbers of one published model."""

    label: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_ctx: int
    n_vocab: int
    n_head_kv: int = 8
    head_dim: int = 128


SIZES = {
    "0.6b": Size("0.6B", 28, 1024, 3072, 16, 32768, 151669),
    "4b": Size("4B", 36, 2560, 9728, 32, 40960, 151665),
    "8b": Size("8B", 36, 4096, 12288, 32, 40960, 151665),
}

# The added tokens of the family in id order; 0.6b has all 26, 4b and 8b the first 22.
N_BASE = 151643
END_ID, CHAT_END_ID = 151643, 151645
# As the real files have it (QwenLM/Qwen3-Embedding, examples/qwen3_reranker_transformers.py).
RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a web '
    "search query, retrieve relevant passages that answer the query\n<Query>: {query}\n<Document>: {document}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
ADDED = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>"),
    *("<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
]


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF says of a byte-level BPE tokenizer."""

    tokens: list[str]
    types: list[int]
    merges: list[str]


def complete(tokens: list[str], types: list[int], merges: list[str], n_vocab: int) -> Vocabulary:
    """Cut or fill the ordinary tokens to N_BASE, then put the added tokens at their ids."""
    tokens, types = list(tokens[:N_BASE]), list(types[:N_BASE])
    added = ADDED[: n_vocab - N_BASE]
    taken = set(ADDED)
    for i in range(N_BASE):
        if i >= len(tokens):
            tokens.append(f"[PAD{i}]")
            types.append(TokenType.UNUSED)
        elif tokens[i] in taken:  # another tokenizer may have them elsewhere: a text must name one id
            tokens[i], types[i] = f"[PAD{i}]", TokenType.UNUSED
    kinds: list[int] = [TokenType.CONTROL if text.startswith("<|") else TokenType.USER_DEFINED for text in added]
    return Vocabulary(tokens + added, types + kinds, merges)


def copied_vocabulary(path: Path, n_vocab: int) -> Vocabulary:
    """The tokenizer of another GGUF file, with the added tokens of this family."""
    fields = GGUFReader(path).fields
    keys = ("tokens", "token_type", "merges")
    if missing := [key for key in keys if f"tokenizer.ggml.{key}" not in fields]:
        raise click.ClickException(f"{path} has no tokenizer.ggml.{missing[0]}; name a byte-level BPE GGUF")
    tokens, types, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in keys)
    return complete(tokens, types, merges, n_vocab)


def synthetic_vocabulary(n_vocab: int, rng: np.random.Generator) -> Vocabulary:
    """The bytes, all pairs and random quadruples of letters: as many tokens as the real one."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2 writes these bytes as themselves
    alphabet = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    letters = "abcdefghijklmnopqrstuvwxyz"
    space = chr(256 + 32)
    pairs = [(a, b) for a in space + letters for b in letters]
    words = [a + b for a, b in pairs]
    n_pairs, n_rest = len(pairs), N_BASE - len(alphabet) - len(pairs)
    # A quadruple is two pairs, the second without a space.
    inner = [word for word in words if word[0] != space]
    picks = rng.permutation(n_pairs * len(inner))[:n_rest]
    pairs += [(words[i // len(inner)], inner[i % len(inner)]) for i in picks]
    tokens = alphabet + [a + b for a, b in pairs]
    return complete(tokens, [TokenType.NORMAL] * len(tokens), [f"{a} {b}" for a, b in pairs], n_vocab)


def random_q4_k(n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Random Q4_K blocks: 256 weights d*scale*q - dmin*min, the minimum chosen so that the mean is zero."""
    blocks = rng.integers(0, 256, (n_blocks, 144), np.uint8)
    scale = 8 * rng.integers(2, 5, (n_blocks, 8), np.uint8)  # 16, 24 or 32
    minimum = scale // 8 * 15  # 4 * minimum = 7.5 * scale, with dmin = 4 * d
    d = np.float16(WEIGHT_STD / (24.87 * 4.61))  # rms of the scales, deviation of a uniform 0..15
    blocks[:, 0:4] = np.array([d, 4 * d], np.float16).view(np.uint8)
    # Six bits each: the first four lie whole, the last four with their high bits on top of the first.
    blocks[:, 4:8] = scale[:, :4] | scale[:, 4:] >> 4 << 6
    blocks[:, 8:12] = minimum[:, :4] | minimum[:, 4:] >> 4 << 6
    blocks[:, 12:16] = scale[:, 4:] & 15 | minimum[:, 4:] << 4
    return blocks


def random_q6_k(n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Random Q6_K blocks: 256 weights d*scale*(q - 32), with scales of either sign."""
    blocks = rng.integers(0, 256, (n_blocks, 210), np.uint8)
    choices = np.array([-16, -12, -8, 8, 12, 16], np.int8)
    blocks[:, 192:208] = choices.view(np.uint8)[rng.integers(0, 6, (n_blocks, 16), np.uint8)]
    d = np.float16(WEIGHT_STD / (12.44 * 18.47))  # rms of the scales, deviation of a uniform -32..31
    blocks[:, 208:210] = np.array([d], np.float16).view(np.uint8)
    return blocks


def stored_shape(shape: tuple[int, ...], kind: GGMLQuantizationType) -> tuple[int, ...]:
    """The shape as it lies in the file: numbers for F32, bytes for the quantized types."""
    return shape if kind == F32 else quant_shape_to_byte_shape(shape, kind)


def random_tensor(shape: tuple[int, ...], kind: GGMLQuantizationType, rng: np.random.Generator) -> np.ndarray:
    """Norm weights near 1 as numbers, the others as blocks of bytes."""
    if kind == F32:
        return (1 + 0.05 * rng.standard_normal(shape)).astype(np.float32)
    make = {Q4_K: random_q4_k, Q6_K: random_q6_k}[kind]
    return make(int(np.prod(shape)) // 256, rng).reshape(stored_shape(shape, kind))


def is_kept_finer(layer: int, n_layer: int) -> bool:
    """Whether Q4_K_M stores attn_v and ffn_down of this layer as Q6_K (llama.cpp's `use_more_bits`)."""
    return layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2


def q4_k_m_tensors(size: Size) -> list[tuple[str, tuple[int, ...], GGMLQuantizationType]]:
    """Name, shape (rows first) and type of every tensor, in llama.cpp's order; token_embd is the head too."""
    n_q, n_kv = size.n_head * size.head_dim, size.n_head_kv * size.head_dim
    tensors: list[tuple[str, tuple[int, ...], GGMLQuantizationType]] = [
        ("output_norm.weight", (size.n_embd,), F32),
        ("token_embd.weight", (size.n_vocab, size.n_embd), Q6_K),
    ]
    for layer in range(size.n_layer):
        mixed = Q6_K if is_kept_finer(layer, size.n_layer) else Q4_K
        parts: dict[str, tuple[tuple[int, ...], GGMLQuantizationType]] = {
            "attn_k": ((n_kv, size.n_embd), Q4_K),
            "attn_k_norm": ((size.head_dim,), F32),
            "attn_norm": ((size.n_embd,), F32),
            "attn_output": ((size.n_embd, n_q), Q4_K),
            "attn_q": ((n_q, size.n_embd), Q4_K),
            "attn_q_norm": ((size.head_dim,), F32),
            "attn_v": ((n_kv, size.n_embd), mixed),
            "ffn_down": ((size.n_embd, size.n_ff), mixed),
            "ffn_gate": ((size.n_ff, size.n_embd), Q4_K),
            "ffn_norm": ((size.n_embd,), F32),
            "ffn_up": ((size.n_ff, size.n_embd), Q4_K),
        }
        tensors += [(f"blk.{layer}.{name}.weight", shape, kind) for name, (shape, kind) in parts.items()]
    return tensors


def add_metadata(writer: GGUFWriter, size: Size, vocabulary: Vocabulary, is_reranker: bool) -> None:
    """The keys of a quantized Qwen3-Embedding or Qwen3-Reranker file in their order; the name says what this is."""
    kind = "Reranker" if is_reranker else "Embedding"
    writer.add_type("model")
    writer.add_name(f"Synthetic Qwen3-{kind}-{size.label} (random weights)")
    writer.add_basename(f"synthetic-qwen3-{kind.lower()}")
    writer.add_size_label(size.label)
    writer.add_block_count(size.n_layer)
    writer.add_context_length(size.n_ctx)
    writer.add_embedding_length(size.n_embd)
    writer.add_feed_forward_length(size.n_ff)
    writer.add_head_count(size.n_head)
    writer.add_head_count_kv(size.n_head_kv)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(size.head_dim)
    writer.add_value_length(size.head_dim)
    writer.add_pooling_type(PoolingType.RANK if is_reranker else PoolingType.LAST)
    if is_reranker:
        writer.add_classifier_output_labels(["yes", "no"])
        writer.add_string("tokenizer.chat_template.rerank", RERANK_TEMPLATE)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(END_ID)
    writer.add_pad_token_id(END_ID)
    writer.add_eot_token_id(CHAT_END_ID)
    writer.add_bos_token_id(END_ID)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)
    # llama.cpp's quantization sets these two anew, which puts them last.
    writer.add_quantization_version(2)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)


def write_model(
    path: Path, size: Size, vocabulary: Vocabulary, rng: np.random.Generator, is_reranker: bool = False
) -> None:
    """Write header and tensors, one tensor in memory at a time."""
    writer = GGUFWriter(path, "qwen3")
    add_metadata(writer, size, vocabulary, is_reranker)
    tensors = q4_k_m_tensors(size)
    if is_reranker:  # llama.cpp quantizes the two rows with the rest
        tensors.append(("cls.output.weight", (2, size.n_embd), Q4_K))
    for name, shape, kind in tensors:
        stored = stored_shape(shape, kind)
        dtype = np.dtype(np.float32 if kind == F32 else np.uint8)
        writer.add_tensor_info(name, stored, dtype, int(np.prod(stored)) * dtype.itemsize, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, shape, kind in tensors:
        writer.write_tensor_data(random_tensor(shape, kind, rng))
    writer.close()


@click.command()
@click.option("--size", "size_name", type=click.Choice(list(SIZES)), required=True, help="Whose shapes.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option(
    "--vocab-from",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="GGUF to copy the tokenizer from; without it a vocabulary of the same size is made up.",
)
@click.option("--type", "type_name", type=click.Choice(["q4_k_m"]), default="q4_k_m", help="Tensor types.")
@click.option("--reranker", "is_reranker", is_flag=True, help="Write a reranker, with a head for yes and no.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random numbers.")
def main(size_name: str, output: Path, vocab_from: Path | None, type_name: str, is_reranker: bool, seed: int) -> None:
    """Write a full-size GGUF of the family with random weights, to measure speed and memory."""
    if output.exists():
        raise click.ClickException(f"{output} exists; remove it or choose another name")
    start = perf_counter()
    size, rng = SIZES[size_name], np.random.default_rng(seed)
    n_vocab = size.n_vocab
    vocabulary = copied_vocabulary(vocab_from, n_vocab) if vocab_from else synthetic_vocabulary(n_vocab, rng)
    partial = output.with_name(f"{output.name}.{os.getpid()}.part")
    try:
        write_model(partial, size, vocabulary, rng, is_reranker)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    seconds = perf_counter() - start
    click.echo(f"{output}: {type_name}, {output.stat().st_size:,} bytes in {seconds:.0f} s", err=True)


if __name__ == "__main__":
    main()
