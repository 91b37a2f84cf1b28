"""Folders into an index: read what changed, cut it, embed it, store it file by file.

Knows readers, chunks and the database; nothing of terminals, nor of how a model is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from q3e_local.embedder import Embedder
from q3e_local.errors import IndexFileError, InputError, OptionError
from q3e_local.reading import read
from q3e_local.reading.limits import Limits
from q3e_local.reading.walk import Found, Skipped
from q3e_local.search.changes import changes
from q3e_local.search.chunks import CHUNK_TOKENS, Count, chunks
from q3e_local.search.database import Database
from q3e_local.search.database.records import FileRecord, IndexSpace
from q3e_local.search.embedding import FileChunks, Progress, counter, embedded
from q3e_local.search.locate import alone, files_of
from q3e_local.vectors import Vectors

# Counted up when readers or chunks change, so that files are read again.
_VERSION = 1


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
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def n_faults(self) -> int:
        """Files that could not be read although they should."""
        return sum(not one.is_expected for one in self.skipped)


Load = Callable[[IndexSpace | None, int], tuple[Embedder, IndexSpace]]
"""Answers a model, and the space of what it embeds. Is told that of the index, if there is one already, and how many
bytes there are to read."""


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
    on_start: Callable[[int], None] = lambda n_bytes: None,
    progress: Progress = lambda n_bytes, n_chunks, n_tokens: None,
) -> None:
    """Bring the index at `path` up to date with folders, or make it. One run at a time: another one waits.

    The model is loaded when there is something to read, or where it `must_load` to be compared with the index's.
    `on_start` is told, when it is loaded, how many bytes there are to read. `chunk_tokens` None: as the index has it,
    or 256. What was done when a run ends early stays, and the next one goes on.

    Raises InputError for a missing folder, OptionError for a budget above the model's context, SpaceMismatchError for
    a model that is not the index's.
    """
    with alone(path, on_wait), ExitStack() as stack:
        database = _opened(path)
        if database is not None:
            stack.enter_context(closing(database))
        records = {} if database is None else database.files()
        budget = chunk_tokens or next((_budget(one) for one in records.values()), CHUNK_TOKENS)
        found = changes(folders, globs, records, _recipe(budget), files_of(path))
        tally.n_unchanged += found.n_unchanged
        tally.skipped += found.skipped
        if database is None or found.to_read or must_load:
            n_bytes = sum(one.size_bytes for one in found.to_read)
            embedder, space = load(None if database is None else database.space, n_bytes)
            if budget > embedder.engine.n_ctx_max:
                limit = embedder.engine.n_ctx_max
                raise OptionError(f"a chunk has at most {limit} tokens with {embedder.model}, got {budget}")
            database = stack.enter_context(closing(Database.create(path, space)))
            on_start(n_bytes)
            reader = _Reader(database, records, counter(embedder), budget, limits, tally)
            for file in embedded(reader.files(found.to_read), embedder, space.dim, progress):
                reader.store(file)
        tally.n_removed += database.remove_files(found.gone)


def _opened(path: Path) -> Database | None:
    """The index, if it is there: one whose making was interrupted is not."""
    if not path.exists():
        return None
    try:
        return Database.open(path)
    except IndexFileError:
        if path.stat().st_size:
            raise
        return None


class _Reader:
    """Reads the files of one run, and stores them when they have their vectors."""

    def __init__(
        self,
        database: Database,
        records: Mapping[str, FileRecord],
        count: Count,
        budget: int,
        limits: Limits,
        tally: Tally,
    ) -> None:
        self._database, self._records, self._count = database, records, count
        self._budget, self._limits, self._tally = budget, limits, tally
        self._by_digest = {record.digest: record for record in records.values()}

    def files(self, found: Sequence[Found]) -> Iterator[FileChunks]:
        """Those that there is something to store of; the others are in the tally."""
        for one in found:
            path = one.path.as_posix()
            try:
                file = self._read(one, path)
            except FileNotFoundError:  # deleted since it was found: the next run sees that
                continue
            except OSError as error:  # what the index has of it stays: it may be readable again
                self._tally.skipped.append(Skipped(one.path, f"cannot be read: {error.strerror or error}"))
            except InputError as error:
                self._drop(path, str(error))
            else:
                if file is not None:
                    yield file

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
        if path in self._records:
            self._tally.n_changed += 1
        else:
            self._tally.n_new += 1

    def _read(self, found: Found, path: str) -> FileChunks | None:
        """The file, read and cut, with the vectors it has already; None if it is what it was."""
        self._limits.check_size(found.size_bytes)
        before = self._records.get(path)
        digest = _recipe(self._budget) + _digest(found.path)
        if before is not None and before.digest == digest:
            self._database.touch_file(replace(before, size_bytes=found.size_bytes, mtime_ns=found.mtime_ns))
            self._tally.n_unchanged += 1
            return None
        document = read(found.path, self._limits)
        cut = chunks(document, self._count, self._budget)
        known = self._known(before, self._by_digest.get(digest))
        vectors = [known.get(chunk.embedded) for chunk in cut]
        reused = [chunk for chunk, vector in zip(cut, vectors, strict=True) if vector is not None]
        self._tally.n_reused += len(reused)
        record = FileRecord(path, found.size_bytes, found.mtime_ns, digest, kind=document.kind)
        n_tokens = sum(self._count(chunk.embedded) for chunk in reused)
        return FileChunks(cut, record, vectors, n_tokens)

    def _known(self, *records: FileRecord | None) -> dict[str, Vectors]:
        """Vectors the index has of what this file was, or of one with the same content, which it may have been."""
        known = {}
        for record in {record for record in records if record is not None}:
            found = self._database.of_file(record.path)
            for entry, vector in zip(found.entries, found.vectors, strict=True):
                known[entry.chunk.embedded] = vector
        return known

    def _drop(self, path: str, problem: str) -> None:
        """A file that is no good now: what it said before is no answer any more."""
        if path in self._records:
            self._tally.n_removed += self._database.remove_files([path])
        self._tally.skipped.append(Skipped(Path(path), problem))


def _recipe(budget: int) -> str:
    """What a record's digest begins with: how the file was cut."""
    return f"{_VERSION}:{budget}:"


def _budget(record: FileRecord) -> int:
    return int(record.digest.split(":")[1])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
