"""The files of one run on their way from the disk to chunks, and with their vectors into the index.

Knows readers, chunks and the records of files; nothing of folders, nor of how chunks are embedded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InputError
from q3e_local.reading import read_bytes
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.walk import FoundFile, Skipped
from q3e_local.search.database import Database
from q3e_local.search.database.records import FileRecord
from q3e_local.search.indexing.chunking import chunks, counted_first
from q3e_local.search.indexing.file_vectors import FileChunks
from q3e_local.search.indexing.tally import Tally
from q3e_local.vectors import Vectors

# Counted up when readers or chunks change, so that files are read again.
_VERSION = 1
# The coarsest clock of a disk (FAT). A file that was read so shortly after it was written may be written again at the
# same time and size. Its record gets a size that no file has, as in git, and so the next run compares the content.
_TICK_NS = 2_000_000_000
_NO_SIZE = -1
# Files that are read before the first of them is cut: where the tokenizer is far away, one trip serves them all.
_AHEAD_FILES, _AHEAD_BYTES = 32, 1 << 20


def recipe_of(budget: int) -> str:
    """How files are read and cut, as their records have it."""
    return f"{_VERSION}:{budget}"


def still_to_read(
    files: Sequence[FoundFile],
    database: Database,
    records: Mapping[str, FileRecord],
    recipe: str,
    limits: Limits,
    tally: Tally,
) -> list[FoundFile]:
    """The files that a model is needed for. The others are in the tally: same content, closed, or too large."""
    left = []
    for file in files:
        record = records.get(file.path.as_posix())
        may_be_same = record is not None and record.size_bytes in (file.size_bytes, _NO_SIZE)
        now = time.time_ns()
        try:
            limits.check_size(file.size_bytes)
            with file.path.open("rb") as stream:
                if record is None or not may_be_same or record.recipe != recipe:
                    left.append(file)
                    continue
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:  # deleted since the walk, which the next run sees
            continue
        except OSError as error:
            tally.skipped.append(Skipped(file.path, _unreadable(error)))
            continue
        except InputError as error:
            if record is not None:
                database.remove_files([record.path])
                tally.n_removed += not record.problem
            tally.skipped.append(Skipped(file.path, str(error)))
            continue
        if record.digest != digest:
            left.append(file)
            continue
        size = _recorded_size(file, now)
        if (size, file.mtime_ns) != (record.size_bytes, record.mtime_ns):
            database.touch_file(replace(record, size_bytes=size, mtime_ns=file.mtime_ns))
        if record.problem:
            tally.skipped.append(Skipped(file.path, record.problem))
        else:
            tally.n_unchanged += 1
    return left


@dataclass(frozen=True)
class _Read:
    """A file that was read."""

    record: FileRecord
    document: Document
    n_bytes: int  # on the disk


class FileReader:
    """Reads and cuts the files of one run, and stores each when its chunks have vectors."""

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
        self._by_digest = {record.digest: record for record in records.values() if not record.problem}

    def cut(self, files: Sequence[FoundFile], on_file: Callable[[Path], None]) -> Iterator[FileChunks]:
        """The chunks of each file that can be read. The other files are in the tally."""
        group: list[_Read] = []
        n_bytes = 0
        for read in self._read(files, on_file):
            group.append(read)
            n_bytes += read.n_bytes
            if len(group) == _AHEAD_FILES or n_bytes >= _AHEAD_BYTES:
                yield from self._cut_all(group)
                group, n_bytes = [], 0
        yield from self._cut_all(group)

    def store(self, file: FileChunks) -> None:
        """Put a file into the index in place of what the index had of it."""
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

    def _read(self, files: Sequence[FoundFile], on_file: Callable[[Path], None]) -> Iterator[_Read]:
        for file in files:
            on_file(file.path)
            now = time.time_ns()
            try:
                self._limits.check_size(file.size_bytes)
                data = file.path.read_bytes()
            except FileNotFoundError:  # deleted since the walk, which the next run sees
                continue
            except OSError as error:  # the index keeps what it has of the file, which may be readable again
                self._tally.skipped.append(Skipped(file.path, _unreadable(error)))
                continue
            except InputError as error:
                self._drop(file.path.as_posix(), str(error))
                continue
            digest, recipe = hashlib.sha256(data).hexdigest(), recipe_of(self._budget)
            record = FileRecord(file.path.as_posix(), _recorded_size(file, now), file.mtime_ns, digest, recipe=recipe)
            try:
                document = read_bytes(file.path.name, data, self._limits)
            except InputError as error:
                self._refuse(replace(record, problem=str(error)))
                continue
            # Parts of the file that could not be read; the rest of it is indexed.
            self._tally.skipped += [Skipped(file.path, problem) for problem in document.problems]
            yield _Read(replace(record, kind=document.kind), document, len(data))

    def _cut_all(self, group: Sequence[_Read]) -> Iterator[FileChunks]:
        """Cut files whose tokens are counted ahead together."""
        self._embedder.expect_counts(text for read in group for text in counted_first(read.document))
        for read in group:
            yield self._cut(read)

    def _cut(self, read: _Read) -> FileChunks:
        """The chunks of a file, with the vectors that the index has of the same texts."""
        record = read.record
        cut = chunks(read.document, self._n_tokens, self._budget, expect=self._embedder.expect_counts)
        known = self._known_vectors(self._records.get(record.path), self._by_digest.get(record.digest))
        vectors = [known.get(chunk.embedded) for chunk in cut]
        reused = [chunk for chunk, vector in zip(cut, vectors, strict=True) if vector is not None]
        self._tally.n_reused += len(reused)
        n_tokens = sum(self._embedder.count_tokens([chunk.embedded for chunk in reused]))
        return FileChunks(record, cut, vectors, n_tokens, read.n_bytes)

    def _n_tokens(self, text: str) -> int:
        return self._embedder.count_tokens([text])[0]

    def _known_vectors(self, *records: FileRecord | None) -> dict[str, Vectors]:
        """Vectors by text: of what a file was before, and of a file of the same content that was moved or copied."""
        known = {}
        for record in {record for record in records if record is not None}:
            window = self._database.of_file(record.path)
            for entry, vector in zip(window.entries, window.vectors, strict=True):
                known[entry.chunk.embedded] = vector
        return known

    def _refuse(self, record: FileRecord) -> None:
        """Keep why a file cannot be read, so that no run reads it until it changes; its old text is no answer."""
        self._tally.n_removed += self._had(record.path)
        self._database.replace_file(record, [], np.empty((0, self._database.space.dim), np.float32))
        self._tally.skipped.append(Skipped(Path(record.path), record.problem))

    def _drop(self, path: str, problem: str) -> None:
        """Forget a file, so that the next run reads it again."""
        self._tally.n_removed += self._had(path)
        if path in self._records:
            self._database.remove_files([path])
        self._tally.skipped.append(Skipped(Path(path), problem))

    def _had(self, path: str) -> bool:
        """Whether the index had text of this file before the run."""
        record = self._records.get(path)
        return record is not None and not record.problem


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _recorded_size(file: FoundFile, read_at_ns: int) -> int:
    """The size that goes into the record of a file which was read at this time."""
    return file.size_bytes if file.mtime_ns < read_at_ns - _TICK_NS else _NO_SIZE
