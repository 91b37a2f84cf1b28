"""What a worker does with one partition of a large input: read it, embed it, write it whole.

A partition is a range of rows of a Parquet file, or of bytes of a JSON Lines file. Its vectors become one file under
the partition's name, which is there only when it is complete: whoever writes it twice, because a machine was lost or
two workers had the same partition, writes the same. What has no vector goes into a file beside, with the reason.

Knows pyarrow's file systems (folders, `s3://`, `gs://`), and embeds with EmbedBatches; nothing of Ray or Spark, which
send these functions to their workers by value, so that a worker needs q3e-local and no copy of this folder.
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from q3e_local import EmbedBatches
from q3e_local.batches.kinds import arrow_values
from q3e_local.cli.writing.record import cell
from q3e_local.errors import Q3EError, SpaceMismatchError

VECTORS, REJECTED, UNFINISHED = "vectors", "rejected", "unfinished"
EMBEDDING, TRUNCATED, ERROR = "embedding", "embedding_truncated", "embedding_error"
_ROWS = 1024  # read, embedded and written at a time
_BUFFER = 1 << 20  # bytes of JSON Lines read at a time
_REJECTED = pa.schema(
    [("file", pa.string()), ("place", pa.int64()), ("reason", pa.string()), ("text", pa.string())],
    metadata={"place": "a row of Parquet, from 1; of JSON Lines the byte at which a line begins, from 0"},
)


@dataclass(frozen=True)
class Job:
    """What holds for all partitions. `space` is what the first worker that was asked says; all must agree."""

    input_system: fs.FileSystem
    output_system: fs.FileSystem
    output: str  # a folder of it
    model: str
    column: str
    keep: pa.Schema  # the columns that go out with each vector
    kind: Literal["document", "query"] = "document"
    dim: int | None = None
    task: str | None = None
    instruction: str | None = None
    truncate: bool = False
    max_tokens: int | None = None
    server: tuple[str, ...] = ()
    space: str = ""

    def embed(self) -> EmbedBatches:
        """Names alone: the model is loaded at the first batch of a process, and stays for the next partition."""
        return EmbedBatches(
            self.model, self.column, EMBEDDING, self.kind, self.dim, task=self.task, instruction=self.instruction,
            truncate=self.truncate, max_tokens=self.max_tokens, errors="null", server=self.server or None,
        )  # fmt: skip


@dataclass(frozen=True)
class Partition:
    """Rows `start` to `end` (exclusive, from 0) of a Parquet file, or lines of JSON Lines that begin in these bytes.

    `size` and `modified` are the file's when the job was planned.
    """

    name: str
    file: str
    start: int
    end: int
    size: int
    modified: str


@dataclass(frozen=True)
class Done:
    """What became of a partition, and where. With a `failure` nothing was written."""

    name: str
    n_vectors: int = 0
    n_rejected: int = 0
    seconds: float = 0.0
    process: str = ""  # machine and process id
    failure: str = ""


@dataclass(frozen=True)
class _Rows:
    """Rows of an input: where each stands, its text, its kept columns; and what is no row, as `_REJECTED` has it."""

    places: list[int]
    texts: list[Any]
    keep: pa.Table
    broken: list[dict[str, Any]]


def space_of(job: Job) -> tuple[str, str]:
    """The name of the space of the vectors that this machine would make, or else why it cannot make any."""
    try:
        return job.embed().space, ""
    except (Q3EError, OSError) as error:
        return "", f"{socket.gethostname()}: {error}"


def embed_partition(job: Job, partition: Partition) -> Done:
    """Write a partition's vectors, unless they are there. Raises nothing that trying again would not mend."""
    known = done_before(job, partition.name)
    if known is not None and known[0] == partition:
        return known[1]
    try:
        return _embedded(job, partition)
    except (Q3EError, OSError, pa.ArrowException) as error:
        return Done(partition.name, failure=f"{partition.file}, on {socket.gethostname()}: {error}")


def _embedded(job: Job, partition: Partition) -> Done:
    """Raises SpaceMismatchError where this machine's model makes other vectors than that of the first worker."""
    began = time.monotonic()
    embed = job.embed()
    if embed.space != job.space:
        raise SpaceMismatchError(
            f"{job.model} is another model here: its vectors are of the space {embed.space}, those of this job of "
            f"{job.space}; put the same file on all machines"
        )
    with _Attempt(job, partition) as attempt:
        for rows in _rows(job, partition):
            attempt.write(rows, embed({job.column: rows.texts}))
        _check_unchanged(job, partition)
        seconds = round(time.monotonic() - began, 3)
        process = f"{socket.gethostname()}:{os.getpid()}"
        done = Done(partition.name, attempt.n_vectors, attempt.n_rejected, seconds, process)
        attempt.land(done)
    return done


def _check_unchanged(job: Job, partition: Partition) -> None:
    """Raise OSError where the file is not the one that was cut into partitions: its rows have moved.

    Whole seconds are compared: some S3 servers give those alone for a single file, and more in a list of files.
    """
    info = job.input_system.get_file_info(partition.file)
    if (info.size, str(info.mtime_ns)[:-9]) != (partition.size, partition.modified[:-9]):
        raise OSError("was changed while the job ran; run it again once nothing writes to the file")


def done_before(job: Job, name: str) -> tuple[Partition, Done] | None:
    """What a partition's file of vectors says of itself; None where there is no such file that is whole."""
    try:
        path = f"{job.output}/{VECTORS}/{name}.parquet"
        about = pq.read_metadata(path, filesystem=job.output_system).metadata or {}
        return Partition(**json.loads(about[b"partition"])), Done(**json.loads(about[b"done"]))
    except (pa.ArrowException, OSError, KeyError):
        return None


class _Attempt:
    """The files of a partition while they are written, under names that no other attempt has."""

    def __init__(self, job: Job, partition: Partition) -> None:
        for folder in (VECTORS, REJECTED, UNFINISHED):
            job.output_system.create_dir(f"{job.output}/{folder}", recursive=True)
        self._job, self._partition = job, partition
        own = f"{job.output}/{UNFINISHED}/{partition.name}-{uuid.uuid4().hex}"
        self._paths = {VECTORS: f"{own}.parquet", REJECTED: f"{own}-{REJECTED}.parquet"}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self.n_vectors = self.n_rejected = 0

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, *error: object) -> None:
        """Take away what has not landed."""
        for folder, writer in self._writers.items():
            writer.close()
            self._job.output_system.delete_file(self._paths[folder])

    def write(self, rows: _Rows, made: dict[str, Any]) -> None:
        """Put rows with a vector into one file, all others into the other. `made` is EmbedBatches' answer."""
        column, reasons = self._job.column, made[ERROR]
        good = np.flatnonzero([reason is None for reason in reasons])
        vectors = np.array([made[EMBEDDING][row] for row in good], np.float32).reshape(len(good), _dim(self._job))
        columns = {name: rows.keep.column(name).take(good) for name in rows.keep.column_names}
        columns[column] = pa.array([rows.texts[row] for row in good], pa.string())
        columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
        if self._job.truncate:
            columns[TRUNCATED] = pa.array([made[TRUNCATED][row] for row in good], pa.bool_())
        metadata = {"model": self._job.model, "space": self._job.space, "dtype": "float32"}
        self._to(VECTORS, pa.table(columns, metadata=metadata))
        self.n_vectors += len(good)

        rejected = rows.broken + [
            {"file": self._partition.file, "place": place, "reason": reason, "text": _shown(text)}
            for place, text, reason in zip(rows.places, rows.texts, reasons, strict=True)
            if reason is not None
        ]
        if rejected:
            self._to(REJECTED, pa.Table.from_pylist(rejected, _REJECTED))
            self.n_rejected += len(rejected)

    def land(self, done: Done) -> None:
        """Give the files their names, that of the vectors last: with it the partition is done."""
        if VECTORS not in self._writers:  # no row at all
            nothing = _Rows([], [], self._job.keep.empty_table(), [])
            self.write(nothing, {ERROR: [], EMBEDDING: [], TRUNCATED: []})
        about = {"partition": json.dumps(asdict(self._partition)), "done": json.dumps(asdict(done))}
        self._writers[VECTORS].add_key_value_metadata(about)
        for folder in (REJECTED, VECTORS):
            writer = self._writers.pop(folder, None)
            if writer is not None:
                writer.close()
                named = f"{self._job.output}/{folder}/{self._partition.name}.parquet"
                self._job.output_system.move(self._paths[folder], named)

    def _to(self, folder: str, table: pa.Table) -> None:
        if folder not in self._writers:
            path, system = self._paths[folder], self._job.output_system
            self._writers[folder] = pq.ParquetWriter(path, table.schema, filesystem=system)
        self._writers[folder].write_table(table)


def _rows(job: Job, partition: Partition) -> Iterator[_Rows]:
    with job.input_system.open_input_file(partition.file) as file:
        if is_parquet(partition.file):
            yield from _parquet(file, job, partition)
        else:
            yield from _json_lines(io.BufferedReader(file, _BUFFER), job, partition)


def is_parquet(path: str) -> bool:
    """Whether a file is read as Parquet; else it is read as JSON Lines."""
    return path.endswith((".parquet", ".pq"))


def _parquet(file: Any, job: Job, partition: Partition) -> Iterator[_Rows]:
    """Row groups are read that have rows of the partition, and of these all rows up to the last of the partition."""
    parquet = pq.ParquetFile(file)
    columns, first = [*job.keep.names, job.column], 0
    for name in columns:
        if name not in parquet.schema_arrow.names:
            raise pa.ArrowInvalid(f"has no column {name!r}")
    for group in range(parquet.num_row_groups):
        n_rows = parquet.metadata.row_group(group).num_rows
        if first < partition.end and first + n_rows > partition.start:
            row = first
            for batch in parquet.iter_batches(_ROWS, row_groups=[group], columns=columns):
                start, end = max(partition.start - row, 0), min(partition.end - row, batch.num_rows)
                if start < end:
                    table = pa.Table.from_batches([batch.slice(start, end - start)])
                    texts = arrow_values(table.column(job.column))
                    places = list(range(row + start + 1, row + end + 1))
                    yield _Rows(places, texts, table.select(job.keep.names).cast(job.keep), [])
                row += batch.num_rows
                if row >= partition.end:
                    break
        first += n_rows


def _json_lines(file: io.BufferedReader, job: Job, partition: Partition) -> Iterator[_Rows]:
    """Lines that begin in the partition; the last may end behind it."""
    place = max(partition.start - 1, 0)
    file.seek(place)
    if partition.start > 0:  # the line to which the byte before belongs is that of the partition before
        place += len(file.readline())
    while place < partition.end:
        places: list[int] = []
        records: list[dict[str, Any]] = []
        broken: list[dict[str, Any]] = []
        while place < partition.end and len(places) + len(broken) < _ROWS:
            line = file.readline()
            if not line:
                raise OSError(f"ends at byte {place:,}, and had {partition.size:,} when the job was planned")
            record, problem = _record(line)
            if record is not None:
                places.append(place)
                records.append(record)
            elif problem is not None:
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                broken.append({"file": partition.file, "place": place, "reason": problem, "text": text})
            place += len(line)
        kept = {name: [_shown(record.get(name)) for record in records] for name in job.keep.names}
        texts = [record.get(job.column) for record in records]
        yield _Rows(places, texts, pa.table(kept, job.keep) if kept else job.keep.empty_table(), broken)


def _record(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """The object on a line, or why there is none; neither for a blank line."""
    if not line.strip():
        return None, None
    try:
        record = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        return None, f"is not JSON: {error}"
    if not isinstance(record, dict):
        return None, f"is not a JSON object but {type(record).__name__}"
    return record, None


def _shown(value: Any) -> str | None:
    """A value as text: a string as it is, bytes as far as they are UTF-8, everything else as JSON writes it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else cell(value)


def _dim(job: Job) -> int:
    """How many numbers a vector has, which the name of its space says."""
    return int(job.space.split("-")[2])
