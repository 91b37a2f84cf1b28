"""What a job works on: texts with their vectors, embedded now, from a `.npy` of `embed`, or from an index.

Stands between the jobs and where their input lies: knows files, and no job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from q3e_local.cli.exit_codes import DONE, SKIPPED
from q3e_local.cli.jobs.options import Embedding, Reading
from q3e_local.cli.terminal import say
from q3e_local.cli.texts import Layout, Survey, find
from q3e_local.cli.texts.given_vectors import GivenVectors, read_npy
from q3e_local.cli.texts.survey import say_skipped
from q3e_local.cli.writing.record import text_digest
from q3e_local.errors import InputError, OptionError
from q3e_local.space import Space, comparable
from q3e_local.vectors import Vectors, finish

if TYPE_CHECKING:
    from q3e_local.search.database.records import Entry

_NAMED_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text is: its file, and the first and last line in it, where those are known."""

    source: str
    line: int | None = None
    last_line: int | None = None


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts in order, with the id and the place of each; `skipped` are lines about those that were left out."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    places: tuple[Place, ...]
    skipped: tuple[str, ...] = ()

    def rows(self, numbers: Iterable[int]) -> dict[str, Any]:
        """The ids, texts and places of rows, by the names of the fields."""
        chosen = list(numbers)
        return {
            name: tuple(values[row] for row in chosen)
            for name, values in {"ids": self.ids, "texts": self.texts, "places": self.places}.items()
        }


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
        return {"id": self.ids[row], "text": self.texts[row]}


def read_texts(reading: Reading, quiet: bool, leave_out: Path | None = None, has_blank: bool = False) -> Texts:
    """All texts of the inputs. Raises InputError for one that cannot be read, or leaves it out.

    With `has_blank` blank texts are left out, and nothing is wrong with them. Say on stderr, unless `quiet`, what is
    read in another encoding than UTF-8.
    """
    source = find(reading.names, reading.texts, reading.glob, reading.layout, leave_out)
    ids: list[str] = []
    texts: list[str] = []
    places: list[Place] = []
    skipped: list[str] = []
    survey = Survey(blank_is_wrong=not has_blank)
    for item in source.read(lambda line: None if quiet else say(line)):
        survey.add(item)
        if item.problem is None:
            ids.append(item.id)
            texts.append(item.text)
            places.append(Place(item.source, item.line, item.line))
        elif reading.skip and not (has_blank and item.is_blank):
            skipped.append(f"{item.id} {item.problem}")
    error = survey.error()
    if error is not None and not reading.skip:
        raise error
    if not ids:
        raise InputError("there are no texts in the input" + (f": {skipped[0]}" if skipped else ""))
    return Texts(tuple(ids), tuple(texts), tuple(places), tuple(skipped))


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


def _collect_npy(path: Path, others: Reading, embedding: Embedding) -> Collection:
    found = read_npy(path, embedding.dim, embedding.quiet)
    has_texts = others.names or others.texts
    if not has_texts:
        if others.layout != Layout():
            raise OptionError(
                f"{path} has vectors; give the files of its texts behind it, or no --lines and the like"
            )
        places = (Place(path.as_posix()),) * len(found.ids)
        return Collection(found.ids, found.ids, places, vectors=found.vectors, space=found.space, has_texts=False)
    # Blank texts have no rows, or rows that are left out; the digests show whether all other texts fit their rows.
    read = read_texts(others, embedding.quiet, has_blank=bool(found.digests))
    _check_texts(path, found, read)
    return Collection(read.ids, read.texts, read.places, read.skipped, vectors=found.vectors, space=found.space)


def _check_texts(path: Path, found: GivenVectors, read: Texts) -> None:
    """Raise InputError where the texts are not those that the vectors are of."""
    if len(read.ids) != len(found.ids):
        raise InputError(
            f"{path} has {len(found.ids):,} rows, its inputs have {len(read.ids):,} texts; give those it was made of"
        )
    for row, (name, text, digest) in enumerate(zip(read.ids, read.texts, found.digests, strict=False)):
        if text_digest(text) != digest:
            raise InputError(f"{name} is not the text that row {row} of {path} was made of; embed the inputs anew")


def _collect_index(path: Path, others: Reading, embedding: Embedding) -> Collection:
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
        tuple(_name(entry) for entry in entries),
        tuple(entry.chunk.text for entry in entries),
        tuple(Place(entry.file or "", entry.chunk.line, entry.chunk.last_line) for entry in entries),
        vectors=vectors[: len(entries)],
        space=str(Space(space.digest, dim, space.prefix)) if space.digest else None,
    )


def _name(entry: Entry) -> str:
    """Where a chunk is, as people find it: `file:line`, or the id it has."""
    line = entry.chunk.line
    return entry.id if entry.file is None or line is None else f"{entry.file}:{line}"


# By suffix: what reads files that hold vectors already.
READERS: dict[str, Callable[[Path, Reading, Embedding], Collection]] = {".npy": _collect_npy, ".q3e": _collect_index}
