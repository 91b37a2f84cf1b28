"""What is asked of a model and what comes back: frozen records, no work.

Knows kinds of text and errors; nothing of engines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from q3e_local.prompts import Kind
from q3e_local.vectors import Vectors


@dataclass(frozen=True)
class EmbedRequest:
    """Texts and what is to be done with them."""

    texts: Iterable[str]
    kind: Kind = "document"  # a query gets the instruct prompt
    task: str | None = None  # a name from prompts.TASKS; None: retrieval
    instruction: str | None = None  # free text instead of a task
    dim: int | None = None  # None: the model's native size
    truncate: bool = False  # cut too-long texts instead of failing
    max_tokens: int | None = None  # a lower limit than the model's own, end token included


@dataclass(frozen=True)
class Embedded:
    """One text's embedding: `vector` float32 (dim,) of length 1; tokens are counted after cutting."""

    vector: Vectors
    prompt_tokens: int
    truncated: bool
    cached: bool = False  # it was computed before, and kept


@dataclass(frozen=True)
class EmbedResult:
    """Embeddings in the caller's order: `vectors` float32 (n, dim) with rows of length 1."""

    vectors: Vectors
    prompt_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    model: str
    space: str
    cached: tuple[bool, ...]


@dataclass(frozen=True)
class Terms:
    """What a request comes to for one model: its options checked, and what goes before each text."""

    prefix: str
    dim: int
    limit: int  # tokens of a text, end token included
    truncate: bool
    space: str


@dataclass(frozen=True)
class Fitted:
    """A text's ids as they are decoded, end token last, and whether they were cut."""

    ids: list[int]
    truncated: bool
    n_prefix: int = 0  # ids of the instruction before it, which other texts begin with too
