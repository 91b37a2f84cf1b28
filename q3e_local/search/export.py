"""An index as a file for other programs: JSON Lines, Parquet, or vectors for NumPy with a list of their texts.

Knows formats; nothing of models or of how an index is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from q3e_local.errors import OptionError, OutputError
from q3e_local.files import landing, rows_file
from q3e_local.reading.records.parquet import load_pyarrow
from q3e_local.search.database import Database
from q3e_local.search.database.records import Entry, IndexSpace, Window
from q3e_local.vectors import npy_header

SUFFIXES = (".jsonl", ".npy", ".parquet")
_OF_CHUNK = ("text", "headings", "page", "line", "last_line", "start", "end")


def export(
    database: Database,
    path: Path,
    *,
    force: bool = False,
    progress: Callable[[int], None] = lambda n_chunks: None,
) -> list[Path]:
    """Write all chunks with their vectors: the paths of the files, which are written whole or not at all.

    The suffix says the format. NAME.npy.rows.jsonl beside a .npy lists the text of each row. `progress` is called
    with how many chunks are written. Raises OptionError for another suffix, OutputError where a file exists or cannot
    be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise OptionError(f"{path} does not say its format: end it in {', '.join(SUFFIXES)}")
    targets = [path, rows_file(path)] if suffix == ".npy" else [path]
    taken = [target for target in targets if target.exists()]
    if taken and not force:
        raise OutputError(f"{taken[0]} exists; replace it with --force")
    windows = _reported(database.entries(), progress)
    try:
        with ExitStack() as stack:
            streams = [stack.enter_context(landing(target)) for target in reversed(targets)]
            _WRITERS[suffix](windows, database.space, *reversed(streams))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    return targets


def _fields(entry: Entry) -> dict[str, Any]:
    """The fields of a chunk without its vector, by their names in every format."""
    return {"id": entry.id, "file": entry.file} | {name: getattr(entry.chunk, name) for name in _OF_CHUNK}


def _reported(windows: Iterator[Window], progress: Callable[[int], None]) -> Iterator[Window]:
    n_chunks = 0
    for window in windows:
        yield window
        n_chunks += len(window.entries)
        progress(n_chunks)


def _jsonl(windows: Iterator[Window], space: IndexSpace, stream: BinaryIO) -> None:
    for window in windows:
        for entry, vector in zip(window.entries, window.vectors, strict=True):
            stream.write(_line(_fields(entry) | {"embedding": vector}))


def _npy(windows: Iterator[Window], space: IndexSpace, stream: BinaryIO, rows: BinaryIO) -> None:
    n_rows, dtype = 0, np.dtype("<f4")
    stream.write(npy_header(dtype, 0, space.dim))
    for window in windows:
        stream.write(window.vectors.astype(dtype, copy=False).tobytes())
        for entry in window.entries:
            rows.write(_line({"row": n_rows, **_fields(entry)}))
            n_rows += 1
    stream.seek(0)
    stream.write(npy_header(dtype, n_rows, space.dim))  # now that the number is known


def _parquet(windows: Iterator[Window], space: IndexSpace, stream: BinaryIO) -> None:
    pyarrow = load_pyarrow("Parquet")
    string, int64 = pyarrow.string(), pyarrow.int64()
    kinds = {"id": string, "file": string, "text": string, "headings": pyarrow.list_(string)}
    texts = pyarrow.schema([(name, kinds.get(name, int64)) for name in ("id", "file", *_OF_CHUNK)])
    embedding = pyarrow.field("embedding", pyarrow.list_(pyarrow.float32(), space.dim))
    metadata = {"model": space.model, "space": space.name, "dtype": "float32"}
    with pyarrow.parquet.ParquetWriter(stream, texts.append(embedding).with_metadata(metadata)) as writer:
        for window in windows:
            rows = pyarrow.Table.from_pylist([_fields(entry) for entry in window.entries], schema=texts)
            numbers = pyarrow.array(window.vectors.reshape(-1))
            vectors = pyarrow.FixedSizeListArray.from_arrays(numbers, space.dim)
            writer.write_table(rows.append_column(embedding, vectors))


_WRITERS: dict[str, Callable[..., None]] = {".jsonl": _jsonl, ".npy": _npy, ".parquet": _parquet}


def _line(record: dict[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
