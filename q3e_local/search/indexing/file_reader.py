"""The files of one run on their way from the disk to chunks, and with their vectors into the index.

Knows readers, chunks and the records of files; nothing of folders, nor of how chunks are embedded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InputError
from q3e_local.files import sha256
from q3e_local.reading import read_bytes
from q3e_local.reading.document import Document
from q3e_local.reading.encodings import marked_encoding, shown
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


T = TypeVar("T")


def recipe_of(budget: int) -> str:
    """How files are read and cut, as their records have it."""
    return f"{_VERSION}:{budget}"


@dataclass(frozen=True)
class _Read:
    """A file that was read."""

    record: FileRecord
    document: Document
    n_bytes: int  # on the disk


class FileReader:
    """Reads and cuts the files of one run, and stores each when its chunks have vectors."""

    def __init__(
        self, database: Database, records: Mapping[str, FileRecord], budget: int, limits: Limits, tally: Tally
    ) -> None:
        self._database, self._records = database, records
        self._budget, self._limits, self._tally = budget, limits, tally
        self._by_digest = {record.digest: record for record in records.values() if not record.problem}

    def needing_a_model(self, files: Sequence[FoundFile]) -> list[FoundFile]:
        """The files that need a model. The others are in the tally: unchanged, closed, too large."""
        left, recipe = [], recipe_of(self._budget)
        for file in files:
            record, now = self._records.get(file.path.as_posix()), time.time_ns()
            alike = ((recipe, file.size_bytes), (recipe, _NO_SIZE))
            if record is not None and (record.recipe, record.size_bytes) not in alike:
                record = None
            digest = self._opened(file, _opens if record is None else sha256)
            if digest is None:
                continue
            if record is None or record.digest != digest:
                left.append(file)
                continue
            size = _recorded_size(file, now)
            if (size, file.mtime_ns) != (record.size_bytes, record.mtime_ns):
                self._database.touch_file(replace(record, size_bytes=size, mtime_ns=file.mtime_ns))
            if record.problem:
                self._tally.skipped.append(Skipped(file.path, record.problem))
            else:
                self._tally.n_unchanged += 1
        return left

    def cut(
        self, files: Sequence[FoundFile], embedder: TextModel, on_file: Callable[[Path], None]
    ) -> Iterator[FileChunks]:
        """The chunks of each file that can be read. The other files are in the tally."""
        group: list[_Read] = []
        n_bytes = 0
        for read in self._read(files, on_file):
            group.append(read)
            n_bytes += read.n_bytes
            if len(group) == _AHEAD_FILES or n_bytes >= _AHEAD_BYTES:
                yield from self._cut_all(group, embedder)
                group, n_bytes = [], 0
        yield from self._cut_all(group, embedder)

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
            data = self._opened(file, Path.read_bytes)
            if data is None:
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
            if document.encoding not in (None, "utf-8", marked_encoding(data)):
                self._tally.read_as.setdefault(shown(document.encoding), []).append(file.path)
            yield _Read(replace(record, kind=document.kind), document, len(data))

    def _opened(self, file: FoundFile, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of a file; None for a file that is too large, gone or closed to us."""
        try:
            self._limits.check_size(file.size_bytes)
            return read(file.path)
        except FileNotFoundError:  # deleted since the walk, which the next run sees
            pass
        except OSError as error:  # the index keeps what it has of the file, which may be readable again
            self._tally.skipped.append(Skipped(file.path, f"cannot be read: {error.strerror or error}"))
        except InputError as error:
            self._drop(file.path.as_posix(), str(error))
        return None

    def _cut_all(self, group: Sequence[_Read], embedder: TextModel) -> Iterator[FileChunks]:
        """The chunks of files, whose tokens are counted together, with the vectors that the index has already."""
        embedder.expect_counts(text for read in group for text in counted_first(read.document))

        def n_tokens(text: str) -> int:
            return embedder.count_tokens([text])[0]

        for read in group:
            record = read.record
            cut = chunks(read.document, n_tokens, self._budget, expect=embedder.expect_counts)
            known = self._known_vectors(self._records.get(record.path), self._by_digest.get(record.digest))
            vectors = [known.get(chunk.embedded) for chunk in cut]
            reused = [chunk for chunk, vector in zip(cut, vectors, strict=True) if vector is not None]
            self._tally.n_reused += len(reused)
            n_known = sum(embedder.count_tokens([chunk.embedded for chunk in reused]))
            yield FileChunks(record, cut, vectors, n_known, read.n_bytes)

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


def _opens(path: Path) -> str:
    """Raises OSError for a file that cannot be opened."""
    path.open("rb").close()
    return ""


def _recorded_size(file: FoundFile, read_at_ns: int) -> int:
    """The size that goes into the record of a file which was read at this time."""
    return file.size_bytes if file.mtime_ns < read_at_ns - _TICK_NS else _NO_SIZE
