"""A model card: what is published about a model and which files there are of it.

Knows what a card says; leaves its file to card_file, and knows nothing of where cards or models are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from q3e_local.embedding.prompts import Prompts
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.reranking.prompts import RerankPrompts

# Ollama's grammar for a name and a tag, each part up to 80 characters; in front of the name a namespace.
_PART = r"[a-z0-9_][a-z0-9_.-]{0,79}"
NAME_GRAMMAR = re.compile(rf"(?:[a-z0-9_][a-z0-9_-]{{0,79}}/)?{_PART}(?::{_PART})?")

CHECKPOINT = "checkpoint"
"""Stands in `made_from` of a file that `convert` makes of the card's checkpoint."""


@dataclass(frozen=True)
class ModelFile:
    """One quantization of a model.

    Shipped with this package (`repo` is None), a pinned file of a hub repository, or `made_from` another
    quantization on this machine, in which case there is no checksum to hold it to and its size is about right. A file
    that nobody publishes with a known checksum is made from CHECKPOINT: by the user, with `convert`.
    """

    quantization: str
    file: str
    repo: str | None = None
    revision: str | None = None
    size_bytes: int = 0
    sha256: str | None = None
    made_from: str | None = None

    @property
    def is_converted(self) -> bool:
        """Whether the user makes this file from the checkpoint: it cannot be pulled."""
        return self.made_from == CHECKPOINT


@dataclass(frozen=True)
class Sizes:
    """Facts of a model that a file of it must agree with."""

    parameters: int
    n_layer: int
    n_embd: int
    n_vocab: int
    n_ctx: int


@dataclass(frozen=True)
class Checkpoint:
    """The Hugging Face repository a model is converted from."""

    repo: str
    revision: str


@dataclass(frozen=True)
class ScoreTable:
    """Published cosine scores (n_queries, n_documents) of the full-precision model."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    expected: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class LogitTable:
    """A reranker's published example: documents for a query, best first.

    `expected` are the logits (n_documents,) of the full-precision model. They are empty where only the order is
    known, and that the first document's logit is above 0 and the last one's below.
    """

    query: str
    documents: tuple[str, ...]
    expected: tuple[float, ...]


@dataclass(frozen=True)
class ModelCard:
    """A model as people name it. `path` is the card's own file.

    `prompts` and `scores` are of an embedder, `rerank_prompts` and `logits` of a reranker.
    """

    path: Path
    name: str
    kind: ModelKind
    aliases: tuple[str, ...]
    description: str
    license: str
    default: str
    sizes: Sizes
    prompts: Prompts
    rerank_prompts: RerankPrompts
    files: dict[str, ModelFile]
    checkpoint: Checkpoint | None = None
    scores: ScoreTable | None = None
    logits: LogitTable | None = None

    @property
    def is_bundled(self) -> bool:
        """Whether the model comes with this program."""
        return self.files[self.default].repo is None

    def origin(self, file: ModelFile) -> ModelFile | None:
        """The file of this card that a file is quantized from; None for one that is not made of another."""
        return None if file.made_from is None or file.is_converted else self.files[file.made_from]

    def to_convert(self, file: ModelFile) -> str:
        """Why a file that is made from the checkpoint cannot be pulled, and the two commands that make it."""
        assert self.checkpoint is not None
        name = self.tag(file.quantization)
        return (
            f"{name} is not on this machine and cannot be pulled: no file of it is published whose checksum is known "
            f"here. Make it from the checkpoint, which is downloaded ({self.sizes.parameters * 2 / 1e9:.1f} GB):\n"
            f"  q3e-local convert {self.checkpoint.repo} --type {file.quantization} -o {file.file}\n"
            f"  q3e-local import {file.file} --name {name}"
        )

    def tag(self, quantization: str) -> str:
        """The full name of a quantization: the card's own for its default, else with the quantization behind."""
        return self.name if quantization == self.default else f"{self.name}-{quantization}"

    def names(self) -> Iterator[tuple[str, str]]:
        """All that people may type for this model, in lower case, each with the quantization it means."""
        for base in (self.name.lower(), *(alias.lower() for alias in self.aliases)):
            yield base, self.default
            for quantization in self.files:
                yield f"{base}-{quantization}", quantization
                yield f"{base}:{quantization}", quantization
