"""Folders into an index: read what changed, cut it, embed it, store it file by file.

Knows the order of a run; nothing of terminals, nor of how a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from q3e_local.embedding import stream
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import OptionError
from q3e_local.reading.limits import Limits
from q3e_local.search.database import Database
from q3e_local.search.database.connection import has_bytes
from q3e_local.search.database.records import IndexSpace
from q3e_local.search.indexing.changes import changes
from q3e_local.search.indexing.chunking import CHUNK_TOKENS
from q3e_local.search.indexing.file_reader import FileReader, recipe_of
from q3e_local.search.indexing.file_vectors import IndexProgress, embed_files
from q3e_local.search.indexing.tally import Tally
from q3e_local.search.places import alone

Load = Callable[[IndexSpace | None], tuple[TextModel, IndexSpace]]
"""Answers a model and the space of what it embeds. Is called with the space of the index, or None for a new one."""


def index_folders(
    path: Path,
    folders: Sequence[Path],
    load: Load,
    tally: Tally,
    *,
    globs: Sequence[str] = (),
    chunk_tokens: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    must_load: bool = False,
    on_wait: Callable[[], None] = lambda: None,
    on_start: Callable[[int, int], None] = lambda n_files, n_bytes: None,
    on_file: Callable[[Path], None] = lambda path: None,
    on_batch: stream.Progress | None = None,
    progress: IndexProgress = lambda n_bytes, n_chunks, n_tokens: None,
) -> None:
    """Bring the index at `path` up to date with folders, or make it. A run waits until another on this index ends.

    The model is loaded when there is something to read, and with `must_load` in any case, to be compared with the
    index's. `on_wait` is called where the run waits. `on_start(n_files, n_bytes)` is called, when the model is
    loaded, with what there is to read; `on_file` before each file is read; `on_batch(n_chunks, n_tokens)` after each
    batch that was computed; `progress` after each chunk, and after its file is stored if the chunk is the last of it.
    Whatever they raise ends the run. `chunk_tokens` None: as the index has it, or 256. What was done when a run ends
    early stays, and the next run goes on. Missing folders are in the tally, and the others are indexed.

    Raises InputError where all folders are missing, OptionError for a budget above the model's context,
    SpaceMismatchError for a model that is not the index's.
    """
    with alone(path, on_wait), ExitStack() as stack:
        # An interrupted run may leave an empty file.
        database = stack.enter_context(Database.open(path)) if has_bytes(path) else None
        records = {} if database is None else database.files()
        kept = None if database is None else database.chunk_tokens()
        budget = chunk_tokens or kept or CHUNK_TOKENS
        to_read, gone = changes(path, folders, globs, records, recipe_of(budget), tally)
        if database is not None:
            reader = FileReader(database, records, budget, limits, tally)
            to_read = reader.needing_a_model(to_read)
        if database is None or to_read or must_load:
            n_bytes = sum(file.size_bytes for file in to_read)
            embedder, space = load(None if database is None else database.space)
            if budget > embedder.n_ctx_max:
                limit = embedder.n_ctx_max
                raise OptionError(f"a chunk has at most {limit} tokens with {embedder.model}, got {budget}")
            if database is None:
                database = stack.enter_context(Database.create(path, space))
                reader = FileReader(database, records, budget, limits, tally)
            database.check_holds(space)
            if budget != kept:
                database.set_chunk_tokens(budget)
            if kept not in (None, budget):
                tally.notes.append(
                    f"chunks have at most {budget} tokens from now on, not {kept}: other files of the index are cut "
                    "anew when they are indexed next"
                )
            on_start(len(to_read), n_bytes)
            to_embed = reader.cut(to_read, embedder, on_file)
            embed_files(to_embed, embedder, space.dim, reader.store, progress, on_batch)
        if gone:
            database.remove_files(gone)
            tally.n_removed += sum(not records[path].problem for path in gone)
