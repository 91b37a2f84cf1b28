"""What a vector is like, and what the model saw of a text.

Knows vectors, and how an Embedder prepares a text and tokenizes it; computes no vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import OptionError
from q3e_local.jobs.rows import described
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table, shortened

N_BINS = 16


@dataclass(frozen=True)
class Inspection:
    """Facts of a vector. `counts` says how many of its numbers lie between each two neighbours of `edges`."""

    dim: int
    norm: float
    mean: float
    spread: float  # standard deviation
    lowest: float
    highest: float
    counts: tuple[int, ...]
    edges: tuple[float, ...]

    def __repr__(self) -> str:
        return f"<Inspection: dim {self.dim}, norm {self.norm:.4f}, from {self.lowest:.4f} to {self.highest:.4f}>"

    def _repr_html_(self) -> str:
        facts = [("dim", self.dim), ("norm", self.norm), ("mean", self.mean), ("spread", self.spread)]
        facts += [("lowest", self.lowest), ("highest", self.highest)]
        return html_table(["of the vector", ""], facts)


@dataclass(frozen=True)
class Token:
    """A token: its id, and the text that it stands for, with the bytes of a part of a character as `<0xE9>`."""

    id: int
    piece: str


@dataclass(frozen=True)
class Seen:
    """A text as the model saw it: prompted and normalized, then the ids that were decoded, end token last."""

    text: str
    tokens: tuple[Token, ...]
    n_left_out: int  # tokens behind the cut
    is_renormalized: bool  # normalizing to NFC changed its characters

    def __repr__(self) -> str:
        cut = f", {self.n_left_out:,} left out" if self.n_left_out else ""
        return f"<Seen: {counted(len(self.tokens), 'token')}{cut}, {shortened(self.text, 60)!r}>"

    def _repr_html_(self) -> str:
        rows = ((place, token.id, repr(token.piece)) for place, token in enumerate(self.tokens))
        return html_table(["token", "id", "piece"], rows, f"{len(self.tokens)} tokens")


def inspect(vector: NDArray[np.float32], n_bins: int = N_BINS) -> Inspection:
    """The facts of a vector (dim,), of whatever length the vector is."""
    if not isinstance(vector, np.ndarray) or vector.ndim != 1 or not vector.size or vector.dtype.kind != "f":
        raise OptionError(f"inspect takes one vector of floats (dim,), got {described(vector)}")
    if not np.isfinite(vector).all():
        place = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise OptionError(f"number {place} of the vector is {vector[place]}; no embedding has such a number")
    numbers = vector.astype(np.float64)
    counts, edges = np.histogram(numbers, n_bins)
    return Inspection(
        dim=len(numbers),
        norm=float(np.linalg.norm(numbers)),
        mean=float(numbers.mean()),
        spread=float(numbers.std()),
        lowest=float(numbers.min()),
        highest=float(numbers.max()),
        counts=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
    )


def seen(embedder: Embedder, text: str, request: EmbedRequest) -> Seen:
    """What the model sees of a text when it is embedded as `request` says. Raises TextError."""
    preparation = embedder.prepare(replace(request, texts=()))
    ready = preparation.ready(text, 0)
    ids = embedder.engine.tokenize(ready)
    fitted = preparation.fit(ids, 0)
    pieces = embedder.engine.pieces(fitted.ids)
    tokens = tuple(Token(id_, written(piece)) for id_, piece in zip(fitted.ids, pieces, strict=True))
    return Seen(ready, tokens, len(ids) + 1 - len(fitted.ids), embedder.normalized(text) != text)


def written(piece: bytes) -> str:
    """A token's bytes as text; bytes of a part of a character as llama.cpp writes them in its vocabularies."""
    return "".join(
        f"<0x{ord(character) - 0xDC00:02X}>" if "\udc80" <= character <= "\udcff" else character
        for character in piece.decode("utf-8", "surrogateescape")
    )
