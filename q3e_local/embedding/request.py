"""What a caller asks of a model, and what comes back: frozen records.

Knows kinds of text; nothing of models, nor of what a request means for a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass, fields

from q3e_local.embedding.prompts import Kind
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table, shortened

DIM_MIN = 32  # the least the model card documents


@dataclass(frozen=True)
class EmbedRequest:
    """Texts, and how to embed them."""

    texts: Iterable[str]
    kind: Kind | None = None  # a query gets the instruct prompt; None: the kind of the model's name, else a document
    task: str | None = None  # a name from prompts.TASKS; None: retrieval
    instruction: str | None = None  # free text instead of a task
    dim: int | None = None  # None: the model's native size
    truncate: bool = False  # cut too-long texts instead of failing
    max_tokens: int | None = None  # a lower limit than the model's own, end token included

    def __repr__(self) -> str:
        """The options that differ from the defaults, and the number of texts where counting reads none of them."""
        n_texts = len(self.texts) if isinstance(self.texts, Sized) and not isinstance(self.texts, str) else None
        texts = f"<{type(self.texts).__name__}>" if n_texts is None else f"[{counted(n_texts, 'text')}]"
        options = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "texts")
        shown = (f", {name}={shortened(repr(value), 80)}" for name, value in options if value not in (None, False))
        return f"EmbedRequest({texts}{''.join(shown)})"


@dataclass(frozen=True)
class Embedded:
    """The embedding of a text: `vector` float32 (dim,) of length 1; tokens are counted after cutting."""

    vector: Vectors
    prompt_tokens: int
    truncated: bool
    cached: bool = False  # the vector comes from the cache

    def __repr__(self) -> str:
        marks = ", cut" * self.truncated + ", from the cache" * self.cached
        return f"<Embedded: dim {len(self.vector)}, {counted(self.prompt_tokens, 'token')}{marks}>"


@dataclass(frozen=True)
class EmbedResult:
    """Embeddings in the caller's order: `vectors` float32 (n, dim) with rows of length 1."""

    vectors: Vectors
    prompt_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    model: str
    space: str
    cached: tuple[bool, ...]

    def __repr__(self) -> str:
        n_cut = sum(self.truncated)
        return f"<EmbedResult: {self._summary()}{f', {n_cut:,} cut' if n_cut else ''}, space {self.space}>"

    def _repr_html_(self) -> str:
        """The table that a notebook shows."""
        rows = (
            (row, n_tokens, "cut" if cut else "", " ".join(f"{number:.4f}" for number in vector[:3].tolist()) + " …")
            for row, (vector, n_tokens, cut) in enumerate(
                zip(self.vectors, self.prompt_tokens, self.truncated, strict=True)
            )
        )
        return html_table(["text", "tokens", "", "first numbers"], rows, self._summary())

    def _summary(self) -> str:
        n_rows, dim = self.vectors.shape
        n_tokens = sum(self.prompt_tokens)
        return f"{counted(n_rows, 'vector')} of {dim} numbers, {counted(n_tokens, 'token')}, {self.model}"
