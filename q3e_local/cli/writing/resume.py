"""Files that grow record by record: opened new, or continued where an earlier run stopped.

Knows how to find the whole records of an interrupted file, and refuses what does not continue it. A `.npy` has
no room for ids, so its rows are described, a line each, in `FILE.rows.jsonl` beside it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from q3e_local.cli.writing.formats import JsonLines, Npy, Writer
from q3e_local.cli.writing.record import FIELDS, About, Record, row_fields
from q3e_local.errors import OutputError
from q3e_local.files import rows_file

Done = dict[int, tuple[str, str]]
"""Id and text digest of the texts that a file has, by their index."""

_BEGINNING = b'{"index":'  # of every line of ours


@contextmanager
def open_resumable(path: Path, form: str, about: About, resuming: bool) -> Iterator[tuple[Writer, Done]]:
    """A writer at the end of the file's whole records, and what each of them is of.

    Raises OutputError when what is there is of another space or dtype, has other kept fields, or is no output of
    this command.
    """
    is_npy = form == "npy"
    lines_path = rows_file(path) if is_npy else path
    paths = (lines_path, path) if is_npy else (path,)
    continuing = resuming and _has_content(path)
    if continuing and not lines_path.exists():
        raise OutputError(f"cannot continue {path}: {lines_path} beside it is gone; replace both with --force")
    try:
        with ExitStack() as stack:
            streams = [stack.enter_context(_open(each)) for each in paths]
            lines, stream = streams[0], streams[-1]

            def begin(n_rows: int = 0) -> Writer:
                return _NpyWithRows(Npy(stream, about, n_rows), lines, about) if is_npy else JsonLines(lines, about)

            if continuing:
                done, ends = _read_lines(lines_path, lines, about)
                n_lines = len(ends) - 1
                n_whole = _cut_rows(path, stream, about, n_lines) if is_npy else n_lines
                lines.seek(ends[n_whole])
                lines.truncate()
                yield begin(n_whole), dict(islice(done.items(), n_whole))
            else:
                begun = _Begun(begin, streams)
                yield begun, {}
                begun.empty()
    finally:
        for each in (path,) if continuing else paths:
            if not _has_content(each):
                each.unlink(missing_ok=True)


def _open(path: Path) -> BinaryIO:
    """Open without truncating: with --force the old content is lost only when the first record is written."""
    stream: BinaryIO = path.open("r+b" if path.exists() else "x+b")
    return stream


class _Begun:
    """A writer that empties the files with its first record, or at the end of a sound run without records."""

    def __init__(self, begin: Callable[[], Writer], streams: Sequence[BinaryIO]) -> None:
        self._begin, self._streams = begin, streams
        self._writer: Writer | None = None

    def empty(self) -> None:
        for stream in self._streams if self._writer is None else ():
            stream.seek(0)
            stream.truncate()

    def write(self, record: Record) -> None:
        if self._writer is None:
            self.empty()
            self._writer = self._begin()
        self._writer.write(record)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.finish()


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


class _NpyWithRows:
    def __init__(self, npy: Npy, rows: BinaryIO, about: About) -> None:
        self._npy, self._rows, self._about = npy, rows, about

    def write(self, record: Record) -> None:
        self._npy.write(record)
        fields = row_fields(record, self._about) | {"row": self._npy.n_rows - 1}
        self._rows.write(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
        self._rows.flush()

    def finish(self) -> None:
        self._npy.finish()
        self._rows.flush()


def _read_lines(path: Path, stream: BinaryIO, about: About) -> tuple[Done, list[int]]:
    """The index, id and digest in every whole line, and the ends: the first n lines end at `ends[n]`."""
    done: Done = {}
    ends = [0]
    for number, line in enumerate(stream, 1):
        foreign = OutputError(f"cannot continue {path}: line {number} is not a record of q3e-local embed")
        if not line.endswith(b"\n"):
            # Cut off within a record of ours, or a file of somebody else's that must not be cut.
            if not line.startswith(_BEGINNING[: len(line)]):
                raise foreign
            break
        try:
            fields = orjson.loads(line)
            space, dtype = fields["space"], fields.get("dtype", "float32")
            index, name, digest = fields["index"], fields["id"], fields["text_sha256"]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise foreign from None
        _check(path, fields, space, dtype, about)
        done[index] = name, digest
        ends.append(ends[-1] + len(line))
    return done, ends


def _check(path: Path, fields: dict[str, Any], space: Any, dtype: Any, about: About) -> None:
    """Raise OutputError for a record that this run would not have written."""
    if space != about.space:
        raise OutputError(
            f"cannot continue {path}: it holds vectors of the space {space}, these would be of {about.space} "
            "(another model file, dim or instruction); write to a new file"
        )
    if dtype != about.dtype:
        raise OutputError(f"cannot continue {path}: it holds {dtype} vectors, not {about.dtype}; write to a new file")
    kept = sorted(fields.keys() - FIELDS)
    if kept != sorted(about.keep):
        raise OutputError(
            f"cannot continue {path}: it was begun with {_keep(kept)}, not with {_keep(list(about.keep))}; "
            "write to a new file"
        )
    if fields.get("blank") and not about.has_zeros:
        raise OutputError(f"cannot continue {path}: it has rows of zeros for blank texts; give --blank zeros")


def _keep(names: Sequence[str]) -> str:
    return f"--keep {','.join(names)}" if names else "no --keep"


def _cut_rows(path: Path, stream: BinaryIO, about: About, n_lines: int) -> int:
    """Cut off the rows that have no line, and return how many stay. The header of a killed run counts wrong."""
    row = about.empty()
    try:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError:
        shape, dtype = (), None
    if len(shape) != 2 or shape[1] != row.shape[1] or dtype != row.dtype:
        raise OutputError(f"cannot continue {path}: it is no array of shape (n, {row.shape[1]}) and type {row.dtype}")
    begin, row_bytes = stream.tell(), row.shape[1] * row.dtype.itemsize
    # Killed between a row and its line, or before either reached the disk: keep what both have.
    n_rows: int = min((stream.seek(0, io.SEEK_END) - begin) // row_bytes, n_lines)
    stream.truncate(begin + n_rows * row_bytes)
    return n_rows
