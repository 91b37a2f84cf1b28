"""What goes into an index file and what comes out of it: frozen records.

Knows no SQL and no ranking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from q3e_local.search.database.query_words import Term
from q3e_local.space import Space
from q3e_local.vectors import Vectors

Rows = NDArray[np.int64]
"""Numbers of chunks inside the file. A number is never used twice, and means nothing outside."""

# A term that more chunks have is counted no further: such a term says little, and each of its chunks costs time.
COUNTED_MAX = 20_000
TERMS_SEARCHED = 48  # the rarest of a query that is as long as a text


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: `document.text[start:end] == text`."""

    text: str
    start: int = 0  # characters of the document's text
    end: int = 0
    headings: tuple[str, ...] = ()  # the path above it, outermost first
    page: int | None = None  # of a PDF, slide of a PPTX, cell of a notebook; from 1
    line: int | None = None  # first and last line in the file, from 1; None where a file has no lines
    last_line: int | None = None

    @property
    def embedded(self) -> str:
        """What the model sees."""
        return with_headings(self.text, self.headings)


def with_headings(text: str, headings: tuple[str, ...]) -> str:
    """A chunk as a model sees it: the headings ("A > B") on a line of their own, then the text."""
    return f"{' > '.join(headings)}\n{text}" if headings else text


@dataclass(frozen=True)
class IndexSpace:
    """What made the vectors of an index. An empty digest: vectors of the caller, made by no known model."""

    model: str
    digest: str
    dim: int
    prefix: str = ""  # the instruction before each text; empty for bare texts

    @property
    def name(self) -> str:
        """The name of this space in vectors, headers and the cache; empty for vectors of the caller."""
        return str(Space(self.digest, self.dim, self.prefix)) if self.digest else ""

    def __str__(self) -> str:
        return self._described(self.model)

    def beside(self, other: IndexSpace) -> str:
        """As `str`, with the file of the model where only the file tells the two apart."""
        is_other_file = self.model == other.model and self.digest != other.digest
        return self._described(f"{self.model} (file {self.digest[:8]})" if is_other_file else self.model)

    def is_same(self, other: IndexSpace) -> bool:
        """Whether vectors of both may stand in one file. The model's name may differ, its file may not."""
        return (self.digest, self.dim, self.prefix) == (other.digest, other.dim, other.prefix)

    def _described(self, model: str) -> str:
        what = f"{self.dim}-dim vectors of {model if self.digest else 'your own'}"
        return f"{what} with the instruction {self.prefix!r}" if self.prefix else what


@dataclass(frozen=True)
class FileRecord:
    """A file that was indexed, as it was then."""

    path: str  # as found, with forward slashes
    size_bytes: int
    mtime_ns: int
    digest: str  # SHA-256 of its bytes
    n_tokens: int = 0
    kind: str = ""
    n_chunks: int = 0  # filled in by the database when the file is stored, as is the next
    indexed_at: float = 0.0  # seconds since 1970
    problem: str = ""  # why it could not be read: it has no chunks then
    recipe: str = ""  # how it was read and cut; by another recipe, the same bytes may have other chunks


@dataclass(frozen=True)
class Entry:
    """A chunk in the index."""

    row: int
    id: str  # that the caller chose, or `PATH#NUMBER` for the chunks of a file, counted from 0
    chunk: Chunk
    file: str | None  # the path; None for a text of the caller
    mtime: float  # of the file, or when the text was added; seconds since 1970
    indexed_at: float


@dataclass(frozen=True)
class Passages:
    """Entries that follow one another in their file: the first is the file's number `first` of `n`, from 1."""

    entries: tuple[Entry, ...]
    first: int = 0
    n: int = 0


@dataclass(frozen=True)
class Window:
    """Entries in the order of their rows, and their vectors (n, dim)."""

    entries: tuple[Entry, ...]
    vectors: Vectors


@dataclass(frozen=True)
class Filters:
    """Which chunks may be found. Each filter that is set must hold."""

    path: str | None = None  # a glob: see reading/globs.py
    since: float | None = None  # seconds since 1970: modified (files) or added (texts of the caller) then or later

    def __bool__(self) -> bool:
        return not (self.path is None and self.since is None)


NO_FILTERS = Filters()


@dataclass(frozen=True)
class Counted:
    """In how many chunks the terms of a query are found, the rarest first, without terms that are in none."""

    found: Mapping[Term, int]
    n_terms: int = 0  # of the query
    n_passed_over: int = 0  # terms that were not looked up
    absent: tuple[Term, ...] = ()  # codes that are in no chunk

    @property
    def explained(self) -> tuple[str, ...]:
        facts = [f"words: {term.exact!r} is in no chunk, so its parts do not count" for term in self.absent]
        if self.n_passed_over:
            of = f"{self.n_passed_over:,} of the query's {self.n_terms:,} terms"
            facts.append(f"words: {of} were not looked up: too many")
        return tuple(facts)


@dataclass(frozen=True)
class Sharing:
    """What a chunk must share with a query: terms whose weights add up to `enough`."""

    weights: Mapping[Term, float]
    enough: float


@dataclass(frozen=True)
class Ranked:
    """Rows, best first, with a score for each, and what was done to find them."""

    rows: Rows
    scores: NDArray[np.float64]  # cosine, or for words bm25 with its sign turned: higher is better
    explained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What an index holds, for people."""

    path: Path
    space: IndexSpace
    n_files: int
    n_chunks: int
    n_tokens: int
    size_bytes: int  # with what SQLite keeps beside the file
    created_at: float
    changed_at: float
    schema: int
    code_bits: int
