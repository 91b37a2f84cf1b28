"""What a search gives back: `Hit` and `Found`.

Knows what a hit is made of; nothing of how it was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from q3e_local.search.database.query_words import Term
from q3e_local.search.database.records import with_headings
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table, shortened

Mode = Literal["auto", "hybrid", "vectors", "words"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, its place in its file, and its places in the rankings."""

    id: str
    score: float  # cosine: higher is nearer; not a number where words were searched without a model
    text: str
    file: str | None = None  # None for a text that a program added
    start: int = 0  # characters of the document's text
    end: int = 0
    headings: tuple[str, ...] = ()
    page: int | None = None
    line: int | None = None
    last_line: int | None = None
    mtime: float = 0.0  # of the file, or when the text was added; seconds since 1970
    indexed_at: float = 0.0
    vectors_rank: int | None = None  # its place by meaning, from 1; None: not among the first of this ranking
    words_rank: int | None = None  # its place by words; with the mode auto, among those that share enough
    letters_rank: int | None = None  # its place by words that are meant to the letter; these count twice
    rerank: float | None = None  # how well it answers the question, 0 to 1; None: no reranker has read it
    rank_before: int | None = None  # its place in the first stage, from 1; None: there was no second stage

    @property
    def embedded(self) -> str:
        """What the model saw of it, and what a reranker reads: the headings, then the text."""
        return with_headings(self.text, self.headings)

    def __repr__(self) -> str:
        score = "by words" if self.score != self.score else f"{self.score:.3f}"
        return f"<Hit {score} {self.id}: {shortened(self.text, 60)!r}>"


_RECORD = (
    "id", "score", "text", "file", "line", "last_line", "page", "headings", "start", "end", "words_rank",
    "letters_rank", "vectors_rank", "rerank", "rank_before",
)  # fmt: skip


def as_record(hit: Hit) -> dict[str, Any]:
    """A hit as programs get it, by the same names from the command line and from the server."""
    return {name: getattr(hit, name) for name in _RECORD}


@dataclass(frozen=True, eq=False)
class Found:
    """Hits, best first, and how they were found."""

    hits: tuple[Hit, ...]
    mode: Mode  # that was used; never "auto"
    explained: tuple[str, ...] = ()  # what was done, a fact each
    vector: Vectors | None = None  # of the query
    absent: tuple[Term, ...] = ()  # codes of the query that stand in no chunk, where words were looked up
    reranker: str | None = None  # the model that ordered the first hits; None: there was no second stage

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __repr__(self) -> str:
        first = f", first {self.hits[0].id}" if self.hits else ""
        return f"<Found: {counted(len(self.hits), 'hit')}, mode {self.mode}{first}>"

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        rows = [(hit.score, hit.id, hit.text) for hit in self.hits]
        return html_table(("score", "id", "text"), rows)
