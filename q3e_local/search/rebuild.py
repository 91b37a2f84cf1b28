"""Give an index the vectors of another model, dim or instruction: `rebuild`.

Knows which vectors can be cut instead of computed; nothing of files: the texts are those in the index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

from q3e_local.embedder import Embedder
from q3e_local.errors import IndexFileError, NotEnoughDiskError
from q3e_local.request import EmbedRequest
from q3e_local.search.database import Database
from q3e_local.search.database.records import IndexSpace, Window
from q3e_local.search.index import space_of
from q3e_local.vectors import Vectors, finish


@dataclass(frozen=True)
class Rebuilt:
    """What was done to an index."""

    space: IndexSpace
    n_chunks: int
    was_cut: bool  # the old vectors were cut, no model ran
    is_compact: bool  # the room of the old ones was given back to the disk


def rebuild(
    path: str | PathLike[str],
    embedder: Embedder,
    dim: int | None = None,
    *,
    task: str | None = None,
    instruction: str | None = None,
    truncate: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Rebuilt:
    """Embed all texts of an index anew, or cut its vectors where only the dim gets smaller.

    The old vectors are searched until the last new one is there. Interrupted, it goes on where it stopped when it is
    asked for the same. `progress(n_chunks, n_chunks_in_all)`. Raises TextError, OptionError, IndexFileError.
    """
    space = space_of(embedder, dim, task, instruction)
    with Database.open(path) as database:
        old, n_all = database.space, database.facts().n_chunks
        if old.is_same(space):
            return Rebuilt(old, 0, was_cut=False, is_compact=True)
        was_cut = (old.digest, old.prefix) == (space.digest, space.prefix) and space.dim < old.dim

        def vectors_of(window: Window) -> Vectors:
            if was_cut:
                return finish(window.vectors, space.dim)
            texts = [entry.chunk.embedded for entry in window.entries]
            return embedder.embed(EmbedRequest(texts, "document", task, instruction, dim, truncate)).vectors

        database.replace_vectors(space, vectors_of, lambda n: progress(n, n_all) if progress else None)
        try:
            database.compact()
        except (IndexFileError, NotEnoughDiskError):
            return Rebuilt(space, n_all, was_cut, is_compact=False)
    return Rebuilt(space, n_all, was_cut, is_compact=True)
