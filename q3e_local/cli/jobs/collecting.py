"""From inputs to vectors: what a job reads, checked, and embedded where it has no vectors yet.

Knows the options of the jobs, and no job.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from q3e_local.cli.jobs.collection import Collection, PlacedText, Texts, collect_index, collect_npy, read_texts
from q3e_local.cli.jobs.options import Embedding, Reading
from q3e_local.cli.progress import meter
from q3e_local.cli.terminal import say
from q3e_local.cli.texts import STDIN
from q3e_local.cli.texts.source import has_lines, table_of
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InputError, OptionError, TextError
from q3e_local.reading.kinds import kind_by_name
from q3e_local.wording.counts import counted


def collect(
    reading: Reading,
    embedding: Embedding,
    leave_out: Path | None = None,
    check: Callable[[Texts], None] = lambda read: None,
) -> Collection:
    """The texts of all inputs with their vectors. Raises InputError for fewer than two, and what reading raises.

    A `.npy` among the inputs has the vectors; the other inputs, if there are any, its texts. `check` is called with
    what was read before any of it is embedded, and may raise.
    """
    check_used(embedding, reading)
    read = gather(reading, embedding, leave_out)
    _check_enough(reading, len(read.rows))
    check(read)
    (found,) = embedded(embedding, (read, reading.skip))
    _check_enough(reading, len(found.rows))
    return found


def gather(reading: Reading, embedding: Embedding, leave_out: Path | None = None) -> Texts:
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
    read = collect_npy if Path(name).suffix.lower() == ".npy" else collect_index
    return read(Path(name), others, embedding)


def embedded(embedding: Embedding, *gathered: tuple[Texts, bool]) -> list[Collection]:
    """Collections of the gathered texts, each of which comes with whether to leave out texts that cannot be embedded.

    Loads the model, once, where there are texts without vectors.
    """
    found = []
    with ExitStack() as stack:
        embedder: TextModel | None = None
        for read, skip in gathered:
            if not isinstance(read, Collection):
                embedder = embedder or stack.enter_context(embedding.loaded())
                read = embed(read, skip, embedder, embedding)
            found.append(read)
    return found


def embed(read: Texts, skip: bool, embedder: TextModel, embedding: Embedding) -> Collection:
    """All texts' vectors. Raises InputError for one that cannot be embedded, or leaves it out."""
    request, quiet = embedding.request, embedding.quiet
    n_bytes = [len(text.encode("utf-8")) for text in read.texts]
    vectors = np.empty((len(read.rows), embedder.dim(request)), np.float32)
    skipped = list(read.skipped)
    kept: list[PlacedText] = []
    cut: set[int] = set()
    with meter("text", len(read.rows), sum(n_bytes), quiet) as show:
        results = embedder.stream(replace(request, texts=read.texts), show.computed)
        for row, size, result in zip(read.rows, n_bytes, results, strict=True):
            if isinstance(result, TextError):
                if not skip:
                    raise InputError(f"{row.id} {result.message}")
                skipped.append(f"{row.id} {result.message}")
                show.skipped(size)
                continue
            show.kept(size, result.prompt_tokens, cached=result.cached)
            vectors[len(kept)] = result.vector
            if result.truncated:
                cut.add(len(kept))
            kept.append(row)
    if not kept:
        raise InputError("no text in the input could be embedded")
    if cut and not quiet:
        say(f"{counted(len(cut), 'text was', 'texts were')} cut to the limit")
    space = embedder.space(request)
    return Collection(tuple(kept), tuple(skipped), vectors=vectors[: len(kept)], space=space, cut=frozenset(cut))


def check_used(embedding: Embedding, *readings: Reading) -> None:
    """Raise OptionError for an option that says how to embed where all vectors are there already."""
    if embedding.written and all(reading.with_vectors for reading in readings):
        name, option = readings[0].with_vectors[0], embedding.written[0]
        raise OptionError(f"{name} has its vectors already: {option} is for texts that are embedded now")


def _check_enough(reading: Reading, n_texts: int) -> None:
    if n_texts >= 2:
        return
    there = f"there {'is' if n_texts == 1 else 'are'} {counted(n_texts, 'text')}"
    hint = ""
    if reading.layout.is_whole and not reading.with_vectors:
        hint = next(filter(None, map(_finer, reading.names or ([] if reading.texts else [STDIN]))), "")
    raise InputError(f"{there} in the input, this needs at least 2{hint}")


def _finer(name: str) -> str:
    """The end of an error: how one file is many texts. Empty for a file that is always one."""
    kind = kind_by_name(name)
    if kind == "csv" or table_of(Path(name)) != "text":
        return f"; with --csv COLUMN each row of {name} is one"
    if kind == "jsonl":
        return f"; with --jsonl FIELD each line of {name} is one"
    if not has_lines(Path(name)):
        return ""
    return f"; with --lines each line of {'stdin' if name == STDIN else name} is one"
