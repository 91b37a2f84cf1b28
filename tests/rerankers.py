"""Tiny random rerankers: GGUF files with and without a head, and what the reference makes of them.

The scores mean nothing, but differ between documents. Knows how llama.cpp's converter writes a reranker, and of the
package under test only where it notes that a file was proved.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import tiny
from oracle import Config, Weights, embed
from rewriting import rewrite
from tokenizers import Tokenizer

from q3e_local import files
from q3e_local.gguf.model_file import inspect
from q3e_local.reranking.proof import proved_facts

CONFIG = Config()
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
WEB = "Given a web search query, retrieve relevant passages that answer the query"

Head = Literal["cls", "turned", "single", "output", "none"]
HEADS: tuple[Head, ...] = ("cls", "turned", "single", "output", "none")


@cache
def tokenizer() -> Tokenizer:
    """The tiny tokenizer with the tokens `yes` and `no`."""
    return tiny.tiny_tokenizer(text=tiny.TRAINING_TEXT + "yes\nno\n" * 50)


@cache
def weights() -> Weights:
    """With an attention as mild as a real model's: keys and values are f16, which a sharp attention would magnify."""
    found = tiny.tiny_weights(CONFIG, seed=5)
    return {
        name: weight / 1.5 if name.endswith(("q_norm.weight", "k_norm.weight")) else weight
        for name, weight in found.items()
    }


@cache
def projection() -> np.ndarray:
    """An untied vocabulary projection (n_vocab, n_embd)."""
    rows = np.random.default_rng(6).standard_normal((tiny.N_VOCAB, CONFIG.n_embd)) / np.sqrt(CONFIG.n_embd)
    return rows.astype(np.float32)


def answers(head: Head) -> np.ndarray:
    """The rows of yes and no (2, n_embd), of the projection or, where it is tied, of the token table."""
    rows = projection() if head == "output" else weights()["embed_tokens.weight"]
    return rows[[tokenizer().token_to_id(word) for word in ("yes", "no")]]


def write(path: Path, head: Head, type: Literal["f32", "f16", "q8_0"] = "f32") -> Path:
    """A reranker whose head is a tensor of its own (rows yes, no; `turned`: no, yes; `single`: their difference), the
    vocabulary projection (`output`), or in the token table alone (`none`), as files are in circulation."""
    plain = tiny.write_gguf(path.with_suffix(".plain"), weights(), CONFIG, tokenizer(), type, pooling=None)
    yes, no = answers(head)
    keys: dict[str, object] = {"general.name": "Tiny Qwen3 Reranker", "general.basename": "Tiny-Qwen3-Reranker"}
    tensors: dict[str, np.ndarray | None] = {}
    if head in ("cls", "turned"):
        labels = ["yes", "no"] if head == "cls" else ["no", "yes"]
        keys |= {"qwen3.pooling_type": 4, "qwen3.classifier.output_labels": labels}
        tensors["cls.output.weight"] = np.stack([yes, no] if head == "cls" else [no, yes])
    elif head == "single":
        keys |= {"qwen3.pooling_type": 4, "qwen3.classifier.output_labels": ["LABEL_0"]}
        tensors["cls.output.weight"] = (yes - no)[None]
    elif head == "output":
        tensors["output.weight"] = projection()
    rewrite(plain, path, keys, tensors)
    plain.unlink()
    return path


def note_proved(path: Path) -> Path:
    """Note for this machine that the file has passed the proof of a reranker, which random weights would fail."""
    files.note_proved(*proved_facts(inspect(path, "reranker").digest))
    return path


def ids(query: str, document: str, instruction: str = WEB, limit: int = 8192) -> list[int]:
    """The ids of the whole prompt as the model's authors make them (examples/qwen3_reranker_transformers.py)."""
    prefix, suffix = _encoded(PREFIX), _encoded(SUFFIX)
    body = _encoded(f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}")
    return [*prefix, *body[: limit - len(prefix) - len(suffix)], *suffix]


def logit(head: Head, prompt: list[int]) -> float:
    """The reference's logit of yes less that of no."""
    yes, no = answers(head).astype(np.float64)
    return float(embed(weights(), CONFIG, prompt) @ (yes - no))


def _encoded(text: str) -> list[int]:
    found: list[int] = tokenizer().encode(text, add_special_tokens=False).ids
    return found
