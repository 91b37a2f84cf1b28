"""Files on their way through the model: chunks of several files share batches, and a file is stored when its last
chunk has a vector.

Knows chunks and the embedder; nothing of where files come from or are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from q3e_local.embedding import stream
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import TextError
from q3e_local.search.database.records import Chunk, FileRecord
from q3e_local.search.documents import document_request
from q3e_local.vectors import Vectors

IndexProgress = Callable[[int, int, int], None]
"""Called as `progress(n_bytes, n_chunks, n_tokens)` with what is done in all."""


@dataclass(eq=False)
class FileChunks:
    """The chunks of a file, and the vectors they have so far."""

    record: FileRecord
    chunks: list[Chunk]
    vectors: list[Vectors | None]  # of each chunk; None until the model has computed it
    n_tokens: int  # of the chunks with vectors
    n_bytes: int  # on the disk
    n_embedded_tokens: int = 0
    n_sent: int = 0  # chunks that went to the model
    n_waiting: int = 0  # of these, chunks whose vectors are not back yet
    problem: str = ""  # why it has no vectors

    def stacked(self, dim: int) -> Vectors:
        """All vectors, (n_chunks, dim)."""
        rows = [vector for vector in self.vectors if vector is not None]
        assert len(rows) == len(self.chunks)
        return np.array(rows, np.float32).reshape(-1, dim)


def embed_files(
    files: Iterable[FileChunks],
    embedder: TextModel,
    dim: int,
    store: Callable[[FileChunks], None],
    progress: IndexProgress,
    on_batch: stream.Progress | None,
) -> None:
    """Store each file as soon as all its chunks have vectors, or a problem. Reads ahead to fill batches.

    `progress` is called after each chunk, and after its file is stored if the chunk is the last of it; `on_batch` as
    the `progress` of an embedder.
    """
    n_bytes, n_tokens = 0.0, 0
    at_work: deque[tuple[FileChunks, int]] = deque()  # chunks that are with the model, by file and number

    def wanted() -> Iterator[str]:
        nonlocal n_bytes
        for file in files:
            missing = [number for number, vector in enumerate(file.vectors) if vector is None]
            if not missing:
                n_bytes += file.n_bytes
                store(file)
                continue
            file.n_waiting = file.n_sent = len(missing)
            for number in missing:
                at_work.append((file, number))
                yield file.chunks[number].embedded

    results = embedder.stream(document_request(wanted(), dim), on_batch)
    for n_chunks, result in enumerate(results, 1):
        file, number = at_work.popleft()
        if isinstance(result, TextError):
            file.problem = file.problem or f"{_where(file.chunks[number])}: {result.message}"
        else:
            file.vectors[number] = result.vector
            file.n_tokens += result.prompt_tokens
            file.n_embedded_tokens += result.prompt_tokens
            n_tokens += result.prompt_tokens
        n_bytes += file.n_bytes / file.n_sent
        file.n_waiting -= 1
        if not file.n_waiting:
            store(file)
        progress(round(n_bytes), n_chunks, n_tokens)


def _where(chunk: Chunk) -> str:
    if chunk.line is not None:
        return f"line {chunk.line}"
    return f"page {chunk.page}" if chunk.page is not None else f"character {chunk.start}"
