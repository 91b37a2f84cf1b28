"""Folders into an index: read what changed, cut it, embed it, store it file by file.

Knows readers, chunks and the database; nothing of terminals, nor of how a model is loaded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from q3e_local.embedding import stream
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import IndexFileError, InputError, OptionError
from q3e_local.reading import read_bytes
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.walk import Found, Skipped
from q3e_local.search.database import Database
from q3e_local.search.database.places import alone, is_there
from q3e_local.search.database.records import FileRecord, IndexSpace
from q3e_local.search.indexing.changes import changes
from q3e_local.search.indexing.chunking import CHUNK_TOKENS, chunks, counted_first
from q3e_local.search.indexing.file_vectors import FileChunks, Progress, embed_files
from q3e_local.vectors import Vectors

# Counted up when readers or chunks change, so that files are read again.
_VERSION = 1
# As coarse as clocks of disks are (FAT). A file that was written so shortly before it was read may be written again
# at the same time and size: its record gets a size that no file has, as in git, and the next run looks into it.
_TICK_NS = 2_000_000_000
_NO_SIZE = -1
# Files that are read before the first of them is cut: where the tokenizer is far away, one trip serves them all.
_AHEAD_FILES, _AHEAD_BYTES = 32, 1 << 20


@dataclass
class Tally:
    """What a run did. It is true at any time, also of a run that was interrupted."""

    n_new: int = 0
    n_changed: int = 0
    n_unchanged: int = 0
    n_removed: int = 0
    n_chunks: int = 0  # of new and changed files
    n_reused: int = 0  # of those: with vectors that were in the index already
    n_tokens: int = 0  # that were embedded
    n_left_out: int = 0  # known, still there, and yet no files of this run: they stay as they were
    skipped: list[Skipped] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # what is wrong with folders that could not be looked at
    notes: list[str] = field(default_factory=list)  # what else the user should know

    @property
    def n_faults(self) -> int:
        """Files that could not be read although they should."""
        return sum(not one.is_expected for one in self.skipped)


Load = Callable[[IndexSpace | None], tuple[TextModel, IndexSpace]]
"""Answers a model, and the space of what it embeds. Is given that of the index, if there is one already."""


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
    progress: Progress = lambda n_bytes, n_chunks, n_tokens: None,
) -> None:
    """Bring the index at `path` up to date with folders, or make it. One run at a time: another one waits.

    The model is loaded when there is something to read, or where it `must_load` to be compared with the index's.
    `on_start` is called, when it is loaded, with how many files of how many bytes there are to read; `on_file` before
    each of them is read; `on_batch(n_chunks, n_tokens)` after each batch that was computed; `progress` after each
    chunk, when its file is stored if it was the last. Whatever they raise ends the run. `chunk_tokens` None: as the
    index has it, or 256. What was done when a run ends early stays, and the next one goes on. Of several folders
    those that are missing are in the tally, and the others are indexed.

    Raises InputError where all folders are missing, OptionError for a budget above the model's context,
    SpaceMismatchError for a model that is not the index's.
    """
    with alone(path, on_wait), ExitStack() as stack:
        database = _opened(path)
        if database is not None:
            stack.enter_context(closing(database))
        records = {} if database is None else database.files()
        kept = None if database is None else database.chunk_tokens()
        budget = chunk_tokens or kept or CHUNK_TOKENS
        found = changes(path, folders, globs, records, _recipe(budget))
        if found.missing and not found.has_looked:
            raise InputError("\n".join(found.missing))
        tally.missing += found.missing
        tally.n_unchanged += found.n_unchanged
        tally.n_left_out += found.n_left_out
        tally.skipped += found.skipped
        to_read = list(found.to_read)
        if database is not None:
            to_read = _still_to_read(to_read, database, records, _recipe(budget), limits, tally)
        if database is None or to_read or must_load:
            n_bytes = sum(one.size_bytes for one in to_read)
            embedder, space = load(None if database is None else database.space)
            if budget > embedder.n_ctx_max:
                limit = embedder.n_ctx_max
                raise OptionError(f"a chunk has at most {limit} tokens with {embedder.model}, got {budget}")
            database = stack.enter_context(closing(Database.create(path, space)))
            if budget != kept:
                database.set_chunk_tokens(budget)
            if kept not in (None, budget):
                tally.notes.append(
                    f"chunks have at most {budget} tokens from now on, not {kept}: other files of the index are cut "
                    "anew when they are indexed next"
                )
            on_start(len(to_read), n_bytes)
            reader = _Reader(database, records, embedder, budget, limits, tally)
            to_embed = reader.files(to_read, on_file)
            embed_files(to_embed, embedder, space.dim, reader.store, progress, on_batch)
        if found.gone:
            database.remove_files(found.gone)
            tally.n_removed += sum(not records[path].problem for path in found.gone)


def _still_to_read(
    found: Sequence[Found],
    database: Database,
    records: Mapping[str, FileRecord],
    recipe: str,
    limits: Limits,
    tally: Tally,
) -> list[Found]:
    """Without those that need no model: what was only touched, cannot be opened, or is too large."""
    left = []
    for one in found:
        record = records.get(one.path.as_posix())
        may_be_same = record is not None and record.size_bytes in (one.size_bytes, _NO_SIZE)
        now = time.time_ns()
        try:
            limits.check_size(one.size_bytes)
            with one.path.open("rb") as file:
                if record is None or not may_be_same or not record.digest.startswith(recipe):
                    left.append(one)
                    continue
                digest = recipe + hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:  # deleted since it was found: the next run sees that
            continue
        except OSError as error:
            tally.skipped.append(Skipped(one.path, _unreadable(error)))
            continue
        except InputError as error:
            if record is not None:
                database.remove_files([record.path])
                tally.n_removed += not record.problem
            tally.skipped.append(Skipped(one.path, str(error)))
            continue
        if record.digest != digest:
            left.append(one)
            continue
        size = _size(one, now)
        if (size, one.mtime_ns) != (record.size_bytes, record.mtime_ns):
            database.touch_file(replace(record, size_bytes=size, mtime_ns=one.mtime_ns))
        if record.problem:
            tally.skipped.append(Skipped(one.path, record.problem))
        else:
            tally.n_unchanged += 1
    return left


def _opened(path: Path) -> Database | None:
    """The index, if it is there: one whose making was interrupted is not."""
    if not is_there(path):
        return None
    try:
        return Database.open(path)
    except IndexFileError:
        if path.stat().st_size:
            raise
        return None


@dataclass(frozen=True)
class _Read:
    """A file that was read."""

    record: FileRecord
    document: Document
    n_bytes: int  # on the disk


class _Reader:
    """Reads the files of one run, and stores them when they have their vectors."""

    def __init__(
        self,
        database: Database,
        records: Mapping[str, FileRecord],
        embedder: TextModel,
        budget: int,
        limits: Limits,
        tally: Tally,
    ) -> None:
        self._database, self._records, self._embedder = database, records, embedder
        self._budget, self._limits, self._tally = budget, limits, tally
        self._by_digest = {one.digest: one for one in records.values() if not one.problem}

    def files(self, found: Sequence[Found], on_file: Callable[[Path], None]) -> Iterator[FileChunks]:
        """Those that there is something to store of; the others are in the tally."""
        group: list[_Read] = []
        n_bytes = 0
        for read in self._read(found, on_file):
            group.append(read)
            n_bytes += read.n_bytes
            if len(group) == _AHEAD_FILES or n_bytes >= _AHEAD_BYTES:
                yield from self._cut_all(group)
                group, n_bytes = [], 0
        yield from self._cut_all(group)

    def _read(self, found: Sequence[Found], on_file: Callable[[Path], None]) -> Iterator[_Read]:
        for one in found:
            on_file(one.path)
            now = time.time_ns()
            try:
                self._limits.check_size(one.size_bytes)
                data = one.path.read_bytes()
            except FileNotFoundError:  # deleted since it was found: the next run sees that
                continue
            except OSError as error:  # what the index has of it stays: it may be readable again
                self._tally.skipped.append(Skipped(one.path, _unreadable(error)))
                continue
            except InputError as error:
                self._drop(one.path.as_posix(), str(error))
                continue
            digest = _recipe(self._budget) + _digest(data)
            record = FileRecord(one.path.as_posix(), _size(one, now), one.mtime_ns, digest)
            try:
                document = read_bytes(one.path.name, data, self._limits)
            except InputError as error:
                self._refuse(replace(record, problem=str(error)))
                continue
            # Of a file that can be read but for a part of it: that part.
            self._tally.skipped += [Skipped(one.path, problem) for problem in document.problems]
            yield _Read(replace(record, kind=document.kind), document, len(data))

    def _cut_all(self, group: Sequence[_Read]) -> Iterator[FileChunks]:
        """Cut some files whose tokens are counted ahead together."""
        self._embedder.expect_counts(text for read in group for text in counted_first(read.document))
        for read in group:
            yield self._cut(read)

    def store(self, file: FileChunks) -> None:
        """Put a file into the index in the place of what it was."""
        path = file.record.path
        self._tally.n_tokens += file.n_embedded_tokens
        if file.problem:
            self._drop(path, file.problem)
            return
        record = replace(file.record, n_tokens=file.n_tokens)
        self._database.replace_file(record, file.chunks, file.stacked(self._database.space.dim))
        self._tally.n_chunks += len(file.chunks)
        if self._had(path):
            self._tally.n_changed += 1
        else:
            self._tally.n_new += 1

    def _cut(self, read: _Read) -> FileChunks:
        """The file, cut, with the vectors it has already."""
        record = read.record
        cut = chunks(read.document, self._counted, self._budget, expect=self._embedder.expect_counts)
        known = self._known(self._records.get(record.path), self._by_digest.get(record.digest))
        vectors = [known.get(chunk.embedded) for chunk in cut]
        reused = [chunk for chunk, vector in zip(cut, vectors, strict=True) if vector is not None]
        self._tally.n_reused += len(reused)
        n_tokens = sum(self._embedder.count_tokens([chunk.embedded for chunk in reused]))
        return FileChunks(cut, record, vectors, n_tokens, n_bytes=read.n_bytes)

    def _counted(self, text: str) -> int:
        return self._embedder.count_tokens([text])[0]

    def _known(self, *records: FileRecord | None) -> dict[str, Vectors]:
        """Vectors the index has of what this file was, or of one with the same content, which it may have been."""
        known = {}
        for record in {record for record in records if record is not None}:
            found = self._database.of_file(record.path)
            for entry, vector in zip(found.entries, found.vectors, strict=True):
                known[entry.chunk.embedded] = vector
        return known

    def _refuse(self, record: FileRecord) -> None:
        """A file that is no good now: what it said before is no answer any more, and nobody need read it again."""
        self._tally.n_removed += self._had(record.path)
        self._database.replace_file(record, [], np.empty((0, self._database.space.dim), np.float32))
        self._tally.skipped.append(Skipped(Path(record.path), record.problem))

    def _drop(self, path: str, problem: str) -> None:
        """As `_refuse`, of a file that the next run is to look at again."""
        self._tally.n_removed += self._had(path)
        if path in self._records:
            self._database.remove_files([path])
        self._tally.skipped.append(Skipped(Path(path), problem))

    def _had(self, path: str) -> bool:
        """Whether the index had something of it."""
        record = self._records.get(path)
        return record is not None and not record.problem


def _recipe(budget: int) -> str:
    """What a record's digest begins with: how the file was cut."""
    return f"{_VERSION}:{budget}:"


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _size(found: Found, read_at_ns: int) -> int:
    """What a record says of a file that was read at this time."""
    return found.size_bytes if found.mtime_ns < read_at_ns - _TICK_NS else _NO_SIZE
