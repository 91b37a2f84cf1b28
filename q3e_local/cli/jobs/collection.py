"""What a job works on: texts with their vectors, embedded now, from a `.npy` of `embed`, or from an index.

Stands between the jobs and where their input lies: knows files, and no job.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from q3e_local.cli.exit_codes import DONE, SKIPPED
from q3e_local.cli.jobs.options import Embedding, Reading
from q3e_local.cli.progress import meter
from q3e_local.cli.terminal import say
from q3e_local.cli.texts import STDIN, Layout, Survey, find
from q3e_local.cli.texts.given_vectors import GivenVectors, read_npy
from q3e_local.cli.writing.record import text_digest
from q3e_local.embedding.request import EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InputError, OptionError, TextError
from q3e_local.space import Space, comparable
from q3e_local.vectors import Vectors, finish
from q3e_local.wording.counts import counted

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
class Collection:
    """Texts in order, with the place of each. `vectors` float32 (n, dim) with rows of length 1."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]  # of vectors whose texts are not known: the ids
    vectors: Vectors
    places: tuple[Place, ...]
    space: str | None = None  # None: not known
    skipped: tuple[str, ...] = ()
    has_texts: bool = True
    cut: frozenset[int] | None = None  # rows whose text did not fit; None: not known

    def is_cut(self, row: int) -> bool | None:
        """Whether the model saw only the beginning of a text."""
        return None if self.cut is None else row in self.cut

    @property
    def code(self) -> int:
        """The exit code of a command that did all else."""
        return SKIPPED if self.skipped else DONE


@dataclass(frozen=True)
class Texts:
    """What was read, before it is embedded."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    places: tuple[Place, ...]
    skipped: tuple[str, ...]


class Model(ExitStack):
    """The model that the options name, loaded when the first text needs it, and closed at the end of the block."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.request = EmbedRequest(
            (), None, embedding.task, embedding.instruction, embedding.dim, truncate=True,
            max_tokens=embedding.max_tokens,
        )  # fmt: skip
        self._embedder: TextModel | None = None

    def embedder(self) -> TextModel:
        """The model, loaded by the first call. Raises OptionError for what it cannot do."""
        if self._embedder is None:
            embedder = self.enter_context(self.embedding.opened())
            self.embedding.check(embedder, self.request)
            self._embedder = embedder
        return self._embedder

    def embed(self, read: Texts, skip: bool) -> Collection:
        """All texts' vectors. Raises InputError for one that cannot be embedded, or leaves it out."""
        n_bytes = [len(text.encode("utf-8")) for text in read.texts]
        embedder = self.embedder()
        vectors = np.empty((len(read.texts), embedder.dim(self.request)), np.float32)
        skipped = list(read.skipped)
        kept: list[int] = []
        cut: set[int] = set()
        with meter("text", len(read.texts), sum(n_bytes), self.embedding.quiet) as show:
            results = embedder.stream(replace(self.request, texts=read.texts), show.computed)
            for row, result in enumerate(results):
                if isinstance(result, TextError):
                    if not skip:
                        raise InputError(f"{read.ids[row]} {result.message}")
                    skipped.append(f"{read.ids[row]} {result.message}")
                    show.skipped(n_bytes[row])
                    continue
                show.kept(n_bytes[row], result.prompt_tokens, cached=result.cached)
                vectors[len(kept)] = result.vector
                if result.truncated:
                    cut.add(len(kept))
                kept.append(row)
        if not kept:
            raise InputError("no text in the input could be embedded")
        if cut and not self.embedding.quiet:
            say(f"{counted(len(cut), 'text was', 'texts were')} cut to the limit")
        return Collection(
            tuple(read.ids[row] for row in kept),
            tuple(read.texts[row] for row in kept),
            vectors[: len(kept)],
            tuple(read.places[row] for row in kept),
            embedder.space(self.request),
            tuple(skipped),
            cut=frozenset(cut),
        )


def collect(
    reading: Reading,
    model: Model,
    n_min: int = 1,
    leave_out: Path | None = None,
    check: Callable[[Texts | Collection], None] = lambda read: None,
) -> Collection:
    """The texts of all inputs with their vectors. Raises InputError for fewer than `n_min`, and what reading raises.

    A `.npy` among the inputs has the vectors; the other inputs, if there are any, its texts. `check` is called with
    what was read before any of it is embedded, and may raise.
    """
    check_used(model.embedding, reading)
    read = gather(reading, model.embedding, leave_out)
    _check_enough(reading, len(read.ids), n_min)
    check(read)
    found = embedded(read, model, reading.skip)
    _check_enough(reading, len(found.ids), n_min)
    return found


def gather(reading: Reading, embedding: Embedding, leave_out: Path | None = None) -> Texts | Collection:
    """The texts of all inputs, with their vectors where they have some. Raises what reading raises."""
    with_vectors = reading.with_vectors
    if not with_vectors:
        return read_texts(reading, embedding.quiet, leave_out)
    name = with_vectors[0]
    if len(with_vectors) > 1:
        raise OptionError(f"{name} and {with_vectors[1]} both have vectors; give one of them")
    others = replace(reading, names=tuple(other for other in reading.names if other != name))
    if others.glob is not None and not others.names:
        raise OptionError(f"--glob is for folders, {name} is none")
    return _READERS[Path(name).suffix.lower()](Path(name), others, embedding)


def embedded(read: Texts | Collection, model: Model, skip: bool) -> Collection:
    """What was gathered, with vectors."""
    return read if isinstance(read, Collection) else model.embed(read, skip)


def check_used(embedding: Embedding, *readings: Reading) -> None:
    """Raise OptionError for an option that says how to embed where all vectors are there already."""
    if embedding.written and all(reading.with_vectors for reading in readings):
        name, option = readings[0].with_vectors[0], embedding.written[0]
        raise OptionError(f"{name} has its vectors already: {option} is for texts that are embedded now")


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


def tell_skipped(found: Collection) -> None:
    """Say on stderr what was left out."""
    if found.skipped:
        say(f"{len(found.skipped):,} skipped:")
        for line in found.skipped[:_NAMED_AT_MOST]:
            say(f"  {line}")
        if len(found.skipped) > _NAMED_AT_MOST:
            say(f"  and {len(found.skipped) - _NAMED_AT_MOST:,} more")


def check_comparable(one: Collection, name: str, other: Collection, others_name: str) -> None:
    """Raise OptionError where scores between the two would mean nothing; say on stderr where they mean less."""
    dim, others_dim = one.vectors.shape[1], other.vectors.shape[1]
    if dim != others_dim:
        raise OptionError(
            f"{name} has vectors of dim {dim}, {others_name} of {others_dim}; -d {min(dim, others_dim)} cuts both"
        )
    if one.space is not None and other.space is not None and not comparable(one.space, other.space):
        raise OptionError(
            f"{name} is of the space {one.space}, {others_name} of {other.space}: of another model; embed one anew"
        )
    if one.space is not None and other.space is not None and one.space != other.space:
        say(
            f"{name} and {others_name} were embedded with different instructions ({one.space}, {other.space}): their "
            "scores are lower than with one; give the same --task or --instruction"
        )


def _of_npy(path: Path, others: Reading, embedding: Embedding) -> Collection:
    found = read_npy(path, embedding.dim, embedding.quiet)
    has_texts = others.names or others.texts
    if not has_texts:
        if others.layout != Layout():
            raise OptionError(
                f"{path} has vectors; give the files of its texts behind it, or no --lines and the like"
            )
        places = (Place(path.as_posix()),) * len(found.ids)
        return Collection(found.ids, found.ids, found.vectors, places, found.space, has_texts=False)
    # Blank texts have no rows, or rows that are left out; the digests show whether all other texts fit their rows.
    read = read_texts(others, embedding.quiet, has_blank=bool(found.digests))
    _check_texts(path, found, read)
    return Collection(read.ids, read.texts, found.vectors, read.places, found.space, read.skipped)


def _check_texts(path: Path, found: GivenVectors, read: Texts) -> None:
    """Raise InputError where the texts are not those that the vectors are of."""
    if len(read.ids) != len(found.ids):
        raise InputError(
            f"{path} has {len(found.ids):,} rows, its inputs have {len(read.ids):,} texts; give those it was made of"
        )
    for row, (name, text, digest) in enumerate(zip(read.ids, read.texts, found.digests, strict=False)):
        if text_digest(text) != digest:
            raise InputError(f"{name} is not the text that row {row} of {path} was made of; embed the inputs anew")


def _of_index(path: Path, others: Reading, embedding: Embedding) -> Collection:
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
        vectors[: len(entries)],
        tuple(Place(entry.file or "", entry.chunk.line, entry.chunk.last_line) for entry in entries),
        str(Space(space.digest, dim, space.prefix)) if space.digest else None,
    )


def _name(entry: Entry) -> str:
    """Where a chunk is, as people find it: `file:line`, or the id it has."""
    line = entry.chunk.line
    return entry.id if entry.file is None or line is None else f"{entry.file}:{line}"


# By suffix: what reads files that hold vectors already.
_READERS: dict[str, Callable[[Path, Reading, Embedding], Collection]] = {".npy": _of_npy, ".q3e": _of_index}


def _check_enough(reading: Reading, n_texts: int, n_min: int) -> None:
    if n_texts >= n_min:
        return
    there = f"there {'is' if n_texts == 1 else 'are'} {counted(n_texts, 'text')}"
    files = [name for name in reading.names if name != STDIN]
    hint = ""
    if reading.layout.is_whole and (reading.names or not reading.texts) and not reading.with_vectors:
        hint = f"; with --lines each line of {files[0] if files else 'stdin'} is one"
    raise InputError(f"{there} in the input, this needs at least {n_min}{hint}")
