"""From inputs to vectors: what a job reads, checked, and embedded where it has no vectors yet.

Knows the options of the jobs, and no job.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from q3e_local.cli.jobs.collection import READERS, Collection, Texts, read_texts
from q3e_local.cli.jobs.options import Embedding, Reading
from q3e_local.cli.progress import meter
from q3e_local.cli.terminal import say
from q3e_local.cli.texts import STDIN
from q3e_local.cli.texts.source import has_lines, table_of
from q3e_local.embedding.request import EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InputError, OptionError, TextError
from q3e_local.reading.kinds import kind_by_name
from q3e_local.wording.counts import counted


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
        space = embedder.space(self.request)
        return Collection(
            **read.rows(kept), skipped=tuple(skipped), vectors=vectors[: len(kept)], space=space, cut=frozenset(cut)
        )


def collect(
    reading: Reading,
    model: Model,
    leave_out: Path | None = None,
    check: Callable[[Texts], None] = lambda read: None,
) -> Collection:
    """The texts of all inputs with their vectors. Raises InputError for fewer than two, and what reading raises.

    A `.npy` among the inputs has the vectors; the other inputs, if there are any, its texts. `check` is called with
    what was read before any of it is embedded, and may raise.
    """
    check_used(model.embedding, reading)
    read = gather(reading, model.embedding, leave_out)
    _check_enough(reading, len(read.ids))
    check(read)
    found = embedded(read, model, reading.skip)
    _check_enough(reading, len(found.ids))
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
    return READERS[Path(name).suffix.lower()](Path(name), others, embedding)


def embedded(read: Texts, model: Model, skip: bool) -> Collection:
    """What was gathered, with vectors."""
    return read if isinstance(read, Collection) else model.embed(read, skip)


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
