"""What questions are asked of: the passages of an index, or a corpus in an index of the moment.

Knows indexes; nothing of labels, nor of the models that embed the passages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import InputError
from q3e_local.evaluation.data import Corpus
from q3e_local.search.database import Database
from q3e_local.search.database.records import Chunk, Entry, IndexSpace, Rows
from q3e_local.search.database.snapshot import Snapshot
from q3e_local.search.places import indexes_folder
from q3e_local.vectors import Vectors

_WRITTEN = 1024  # passages of one transaction


@dataclass(frozen=True, eq=False)
class Passages:
    """All passages of one state of an index, in the order of their rows.

    `vectors` are the index's own (n, dim), of `space`; None where it has none that a model made.
    """

    name: str  # of the index or corpus, for people
    entries: tuple[Entry, ...]
    state: Snapshot
    space: IndexSpace | None = None
    vectors: Vectors | None = None

    @cached_property
    def rows(self) -> Rows:
        """The row of each passage (n,), ascending."""
        return np.array([entry.row for entry in self.entries], np.int64)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """What a model sees of each."""
        return tuple(entry.chunk.embedded for entry in self.entries)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.entries)

    @cached_property
    def turns(self) -> NDArray[np.intp]:
        """Of passages with equal scores the one with the lower number comes first (n,).

        The numbers are in the order of hashes of the ids, so that neither the order of a file nor the choice of names
        puts the right answers before others that look the same.
        """
        hashes = [hashlib.sha256(name.encode("utf-8")).digest() for name in self.ids]
        turns = np.empty(len(hashes), np.intp)
        turns[sorted(range(len(hashes)), key=hashes.__getitem__)] = np.arange(len(hashes))
        return turns


@contextmanager
def of_index(path: Path) -> Iterator[Passages]:
    """The passages of an index as they are now, until the block ends. Raises IndexFileError, InputError for none."""
    with Database.open(path) as database, database.snapshot() as state:
        windows = list(database.entries())
        entries = tuple(entry for window in windows for entry in window.entries)
        if not entries:
            raise InputError(f"{path} has no passages in it; index a folder first")
        space = database.space if database.space.digest else None
        vectors = np.concatenate([window.vectors for window in windows]) if space is not None else None
        yield Passages(_called(path), entries, state, space, vectors)


@contextmanager
def of_corpus(corpus: Corpus) -> Iterator[Passages]:
    """The texts of a corpus, each one passage, in an index that is gone when the block ends."""
    # The index is there for its words: its vectors have one number, and no column uses them.
    with (
        TemporaryDirectory(prefix="q3e-eval-") as folder,
        Database.create(Path(folder) / "corpus.q3e", IndexSpace("", "", 1)) as database,
    ):
        for start in range(0, len(corpus.documents), _WRITTEN):
            documents = corpus.documents[start : start + _WRITTEN]
            chunks = [Chunk(document.text, 0, len(document.text)) for document in documents]
            database.put([document.id for document in documents], chunks, np.ones((len(chunks), 1), np.float32))
        with database.snapshot() as state:
            yield Passages(
                corpus.name, tuple(entry for window in database.entries() for entry in window.entries), state
            )


def _called(path: Path) -> str:
    """What people call an index: its name, if it has one, else its file."""
    return f"the index {path.stem}" if path.parent == indexes_folder() else str(path)
