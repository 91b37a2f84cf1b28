"""What a job works on: texts with their vectors, embedded now, from a `.npy` of `embed`, or from an index.

Stands between the jobs and where their input lies: knows files, and no job.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from q3e_local.cli.exit_codes import DONE, SKIPPED
from q3e_local.cli.jobs.options import Embedding, Reading
from q3e_local.cli.terminal import say
from q3e_local.cli.texts import Layout, find, read_all
from q3e_local.cli.texts.given_vectors import RowFacts, read_npy
from q3e_local.cli.texts.survey import say_skipped
from q3e_local.cli.writing.record import text_digest
from q3e_local.errors import InputError, OptionError
from q3e_local.space import Space, comparable
from q3e_local.vectors import Vectors, finish

if TYPE_CHECKING:
    from q3e_local.search.database.records import Entry

_NAMED_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class PlacedText:
    """A text with its id, and where it is: its file, and the first and last line in it, where those are known."""

    id: str
    text: str
    source: str
    line: int | None = None
    last_line: int | None = None


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts in order; `skipped` are lines about those that were left out."""

    rows: tuple[PlacedText, ...]
    skipped: tuple[str, ...] = ()

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The texts alone."""
        return tuple(row.text for row in self.rows)


@dataclass(frozen=True, eq=False, kw_only=True)
class Collection(Texts):
    """Texts with their `vectors`, float32 (n, dim), rows of length 1. `texts` that are not known are the ids."""

    vectors: Vectors
    space: str | None = None  # None: not known
    has_texts: bool = True
    cut: frozenset[int] | None = None  # rows whose text did not fit; None: not known

    def is_cut(self, row: int) -> bool | None:
        """Whether the model saw only the beginning of a text."""
        return None if self.cut is None else row in self.cut

    def facts(self, row: int) -> dict[str, Any]:
        """Id and text of a row, as a report has them."""
        return {"id": self.rows[row].id, "text": self.rows[row].text}


def read_texts(reading: Reading, quiet: bool, leave_out: Path | None = None, has_blank: bool = False) -> Texts:
    """All texts of the inputs. Raises InputError for one that cannot be read, or leaves it out.

    With `has_blank` blank texts are left out, and nothing is wrong with them. Say on stderr, unless `quiet`, what is
    read in another encoding than UTF-8.
    """
    source = find(reading.names, reading.texts, reading.glob, reading.layout, leave_out)
    read = read_all(source, reading.skip, lambda line: None if quiet else say(line), has_blank)
    rows = tuple(PlacedText(item.id, item.text, item.source, item.line, item.line) for _, item in read.items)
    return Texts(rows, tuple(read.skipped))


def end(found: Collection, summary: str = "", quiet: bool = False) -> int:
    """Say on stderr what a job did, and which texts it left out. Returns its exit code."""
    if summary and not quiet:
        say(summary)
    say_skipped(found.skipped, _NAMED_AT_MOST)
    return SKIPPED if found.skipped else DONE


def check_comparable(one: Collection, name: str, other: Collection, others_name: str) -> None:
    """Raise OptionError where scores between the two would mean nothing; say on stderr where they mean less."""
    dim, others_dim = one.vectors.shape[1], other.vectors.shape[1]
    if dim != others_dim:
        raise OptionError(
            f"{name} has vectors of dim {dim}, {others_name} of {others_dim}; -d {min(dim, others_dim)} cuts both"
        )
    if one.space is None or other.space is None or one.space == other.space:
        return
    if not comparable(one.space, other.space):
        raise OptionError(
            f"{name} is of the space {one.space}, {others_name} of {other.space}: of another model; embed one anew"
        )
    say(
        f"{name} and {others_name} were embedded with different instructions ({one.space}, {other.space}): their "
        "scores are lower than with one; give the same --task or --instruction"
    )


def collect_npy(path: Path, others: Reading, embedding: Embedding) -> Collection:
    """The vectors of a `.npy`, and their texts, if there are `others`."""
    vectors, facts = read_npy(path, embedding.dim, embedding.quiet)
    has_texts = others.names or others.texts
    if not has_texts:
        if others.layout != Layout():
            raise OptionError(
                f"{path} has vectors; give the files of its texts behind it, or no --lines and the like"
            )
        rows = tuple(PlacedText(name, name, path.as_posix()) for name in facts.ids)
        return Collection(rows, vectors=vectors, space=facts.space, has_texts=False)
    # Blank texts have no rows, or rows that are left out; the digests show whether all other texts fit their rows.
    read = read_texts(others, embedding.quiet, has_blank=bool(facts.digests))
    _check_texts(path, facts, read)
    return Collection(read.rows, read.skipped, vectors=vectors, space=facts.space)


def _check_texts(path: Path, facts: RowFacts, read: Texts) -> None:
    """Raise InputError where the texts are not those that the vectors are of."""
    n_rows, n_texts = len(facts.ids), len(read.rows)
    if n_texts != n_rows:
        raise InputError(f"{path} has {n_rows:,} rows, its inputs have {n_texts:,} texts; give those it was made of")
    for number, (row, digest) in enumerate(zip(read.rows, facts.digests, strict=False)):
        if text_digest(row.text) != digest:
            raise InputError(
                f"{row.id} is not the text that row {number} of {path} was made of; embed the inputs anew"
            )


def collect_index(path: Path, others: Reading, embedding: Embedding) -> Collection:
    """The texts of an index and their vectors."""
    from q3e_local.search.database import Database

    if others.names or others.texts or others.layout != Layout():
        raise OptionError(f"{path} has its texts and their vectors; name it alone")
    if not path.exists():  # Database.open would advise a command for an index with a name
        raise InputError(f"there is no file {path}")
    entries: list[Entry] = []
    with Database.open(path) as database:
        space, dim = database.space, database.space.dim if embedding.dim is None else embedding.dim
        if not 1 <= dim <= space.dim:
            raise OptionError(f"--dimensions must be between 1 and {space.dim} for {path}, got {dim}")
        vectors = np.empty((database.facts().n_chunks, dim), np.float32)
        for window in database.entries():
            # Chunks that another process adds meanwhile are left for the next time.
            added = window.entries[: len(vectors) - len(entries)]
            vectors[len(entries) : len(entries) + len(added)] = finish(window.vectors[: len(added)], dim)
            entries += added
    if not entries:
        raise InputError(f"{path} has no texts in it")
    return Collection(
        tuple(map(_row, entries)),
        vectors=vectors[: len(entries)],
        space=str(Space(space.digest, dim, space.prefix)) if space.digest else None,
    )


def _row(entry: Entry) -> PlacedText:
    """A chunk, by where people find it: `file:line`, or the id it has."""
    chunk = entry.chunk
    name = entry.id if entry.file is None or chunk.line is None else f"{entry.file}:{chunk.line}"
    return PlacedText(name, chunk.text, entry.file or "", chunk.line, chunk.last_line)
