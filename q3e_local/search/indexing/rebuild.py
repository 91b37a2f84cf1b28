"""Give an index the vectors of another model, dim or instruction: `rebuild`.

Knows which vectors can be cut instead of computed; nothing of files: the texts are those in the index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike

from q3e_local.embedding.request import EmbedRequest
from q3e_local.embedding.stream import Progress
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import IndexFileError, NotEnoughDiskError
from q3e_local.search.database import Database
from q3e_local.search.database.records import IndexSpace, Window
from q3e_local.search.documents import space_of
from q3e_local.vectors import Vectors, finish

# Chunks between two writes: to embed 64 of them takes a slow model minutes.
_WINDOW, _WINDOW_CUT = 64, 512


@dataclass(frozen=True)
class Rebuilt:
    """What was done to an index."""

    space: IndexSpace
    n_chunks: int
    was_cut: bool  # the old vectors were cut, no model ran
    is_compact: bool  # the room of the old vectors was given back to the disk
    why_not: str = ""  # why it was not, and what to do


def rebuild(
    path: str | PathLike[str],
    embedder: TextModel,
    dim: int | None = None,
    *,
    task: str | None = None,
    instruction: str | None = None,
    truncate: bool = False,
    progress: Callable[[int, int], None] | None = None,
    on_batch: Progress | None = None,
) -> Rebuilt:
    """Embed all texts of an index again, or cut its vectors where only the dim gets smaller.

    Searches use the old vectors until the last new vector is there. A call for the same space goes on where an
    interrupted call stopped, or gives back room that an earlier call could not. `progress(n_chunks,
    n_chunks_in_all)` is called with what is stored: with what an earlier call did, then after each window;
    `on_batch(n_chunks, n_tokens)` after each batch within a window, with what this call computed.
    Raises TextError, OptionError, IndexFileError.
    """
    space = space_of(embedder, dim, task, instruction)
    with Database.open(path) as database:
        old, n_all = database.space, database.facts().n_chunks
        if old.is_same(space):
            done = Rebuilt(old, 0, was_cut=False, is_compact=True)
            return _compacted(database, done) if database.has_room() else done
        n_before = n_tokens_before = 0  # computed by this call, before the current window
        was_cut = (old.digest, old.prefix) == (space.digest, space.prefix) and space.dim < old.dim

        def vectors_of(window: Window) -> Vectors:
            if was_cut:
                return finish(window.vectors, space.dim)
            nonlocal n_before, n_tokens_before
            texts = [entry.chunk.embedded for entry in window.entries]

            def report(n_texts: int, n_tokens: int) -> None:
                if on_batch is not None and n_texts < len(texts):
                    on_batch(n_before + n_texts, n_tokens_before + n_tokens)

            request = EmbedRequest(texts, "document", task, instruction, dim, truncate)
            result = embedder.embed(request, report)
            n_before += len(texts)
            n_tokens_before += sum(result.prompt_tokens)
            return result.vectors

        n_window = _WINDOW_CUT if was_cut else _WINDOW
        database.replace_vectors(space, vectors_of, lambda n: progress(n, n_all) if progress else None, n_window)
        return _compacted(database, Rebuilt(space, n_all, was_cut, is_compact=True))


def _compacted(database: Database, done: Rebuilt) -> Rebuilt:
    """Give the room of the old vectors back to the disk."""
    try:
        database.compact()
    except IndexFileError as error:
        return replace(done, is_compact=False, why_not=str(error))
    except NotEnoughDiskError:
        n_bytes = database.facts().size_bytes
        why = f"that takes up to {n_bytes / 1e9:.1f} GB on the disk for a while; make room and rebuild it again"
        return replace(done, is_compact=False, why_not=why)
    return done
