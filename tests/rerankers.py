"""Tiny random rerankers: GGUF files with and without a head, and what the reference makes of them.

The scores mean nothing, but differ between documents. Knows how llama.cpp's converter writes a reranker, and of the
package under test only where it notes that a file was proved.
"""

from __future__ import annotations

import hashlib
import json
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


QUESTION = "Which planet is known as the Red Planet?"
BEST_FIRST = (
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
    "Venus is often called Earth's twin because of its similar size and proximity.",
)
TAUGHT = (3.0, 1.0, -3.0)
"""The logits of BEST_FIRST for QUESTION, which a taught reranker has."""
OTHER_QUESTION = "Which planet is called Earth's twin?"
"""A question that the last of BEST_FIRST answers: a taught reranker gives the first -2 and the last 2."""


@cache
def taught() -> np.ndarray:
    """The rows of yes and no (2, n_embd) of a head that gives TAUGHT, learned by heart over random weights."""
    asked = [(QUESTION, document) for document in BEST_FIRST]
    asked += [(OTHER_QUESTION, document) for document in (BEST_FIRST[0], BEST_FIRST[-1])]
    states = np.stack([embed(weights(), CONFIG, ids(*pair)) for pair in asked])
    row = np.linalg.lstsq(states.astype(np.float64), np.array([*TAUGHT, -2.0, 2.0]), rcond=None)[0]
    return np.stack([row, np.zeros_like(row)]).astype(np.float32)


def write_taught(path: Path, head: Literal["cls", "output"] = "cls", type: Literal["f32", "q8_0"] = "f32") -> Path:
    """A reranker that knows TAUGHT. With `output` nothing but the user says that it is one."""
    plain = tiny.write_gguf(path.with_suffix(".plain"), weights(), CONFIG, tokenizer(), type, pooling=None)
    if head == "cls":
        keys = {"qwen3.pooling_type": 4, "qwen3.classifier.output_labels": ["yes", "no"]}
        rewrite(plain, path, keys | {"general.name": "Taught Reranker"}, {"cls.output.weight": taught()})
    else:
        rows = np.zeros_like(projection())
        rows[[tokenizer().token_to_id(word) for word in ("yes", "no")]] = taught()
        rewrite(plain, path, {"general.name": "Taught"}, {"output.weight": rows})
    plain.unlink()
    return path


def card(path: Path, *, documents: tuple[str, ...] = BEST_FIRST, logits: tuple[float, ...] = TAUGHT) -> str:
    """A user's card `ranker:1b` of this file in Q8_0, which is at Someone/Ranker on the hub."""
    content = path.read_bytes()
    return f"""
name = "ranker:1b"
kind = "reranker"
aliases = []
description = "learned by heart"
license = "MIT"
default = "q8_0"

[sizes]
parameters = 2_000_000
n_layer = {CONFIG.n_layer}
n_embd = {CONFIG.n_embd}
n_vocab = {tiny.N_VOCAB}
n_ctx = {tiny.N_CTX}

[prompts]
body = "<Instruct>: {{instruction}}\\n<Query>: {{query}}\\n<Document>: {{document}}"
instruction = {json.dumps(WEB)}

[source]
repo = "Someone/Ranker"
revision = "{40 * "a"}"

[files.q8_0]
file = "ranker-q8_0.gguf"
size_bytes = {len(content)}
sha256 = "{hashlib.sha256(content).hexdigest()}"

[scores]
query = {json.dumps(QUESTION)}
documents = {json.dumps(documents)}
{f"logits = {json.dumps(logits)}" if logits else ""}
"""


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
