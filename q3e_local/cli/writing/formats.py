"""How embeddings are written: one class a format, each onto a binary stream it is handed.

Knows bytes and layouts, nothing of files, names or resuming. Numbers come in the shortest form that reads back
to the same float32.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import numpy as np
import orjson

from q3e_local.cli.writing.record import About, Record, cell, row_fields
from q3e_local.cli.writing.show import PLAIN_WIDTH, csv_line, fitted, visible
from q3e_local.reading.records.parquet import load_pyarrow
from q3e_local.vectors import npy_header, to_base64


class Writer(Protocol):
    """Writes records as they come; `finish` completes the output and leaves the stream open."""

    def write(self, record: Record) -> None: ...

    def finish(self) -> None: ...


class _Streamed:
    """Base of the formats that are complete after each record."""

    def __init__(self, stream: BinaryIO, about: About) -> None:
        self._stream, self._about = stream, about

    def finish(self) -> None:
        self._stream.flush()


class JsonLines(_Streamed):
    """A JSON object a line: index, id, tokens, truncated, space, text_sha256, embedding; dtype if not float32.

    Before the embedding `"blank":true` where there was no text, and the kept fields.
    """

    def write(self, record: Record) -> None:
        fields: dict[str, Any] = row_fields(record, self._about)
        fields["embedding"] = self._about.encoded(record)
        # One write and a flush, so that readers of the file, and --resume after a kill, see whole lines.
        self._stream.write(orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
        self._stream.flush()


class Json:
    """One JSON object in the shape of OpenAI's embedding list, and the space; dtype where it is not float32.

    Kept fields stand in the objects of `data`.
    """

    def __init__(self, stream: BinaryIO, about: About) -> None:
        self._stream, self._about = stream, about
        self._n_records = self._n_tokens = 0
        stream.write(b'{"object":"list","data":[')

    def write(self, record: Record) -> None:
        fields: dict[str, Any] = {"object": "embedding", "index": record.index}
        fields |= self._about.kept(record) | {"embedding": self._about.encoded(record)}
        self._stream.write(b",\n" if self._n_records else b"\n")
        self._stream.write(orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY))
        self._n_records += 1
        self._n_tokens += record.tokens

    def finish(self) -> None:
        rest: dict[str, Any] = {
            "model": self._about.model,
            "usage": {"prompt_tokens": self._n_tokens, "total_tokens": self._n_tokens},
            "space": self._about.space,
        }
        if self._about.dtype != "float32":
            rest["dtype"] = self._about.dtype
        self._stream.write(b"\n]," + orjson.dumps(rest, option=orjson.OPT_APPEND_NEWLINE)[1:])
        self._stream.flush()


class Csv(_Streamed):
    """A header and a row a text: index, id, tokens, truncated, and a column e0, e1, ... for each number.

    Before the numbers a column dtype where it is not float32, as in JSON Lines; a column blank where blank texts
    have rows of zeros; and the kept columns.
    """

    _wrote_header = False

    def write(self, record: Record) -> None:
        about, numbers = self._about, self._about.encoded(record)
        others: dict[str, str] = {} if about.dtype == "float32" else {"dtype": about.dtype}
        if about.has_zeros:
            others["blank"] = str(record.blank).lower()
        others |= {name: cell(record.kept.get(name)) for name in about.keep}
        if not self._wrote_header:
            self._wrote_header = True
            names = ("index", "id", "tokens", "truncated", *others, *(f"e{i}" for i in range(len(numbers))))
            self._stream.write(csv_line(names))
        # orjson's numbers, because repr would print a float32 with a float64's digits.
        texts = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode("ascii").split(",")
        truncated = str(record.truncated).lower()
        self._stream.write(csv_line((record.index, record.id, record.tokens, truncated, *others.values(), *texts)))


class Base64(_Streamed):
    """A line of base64 a text: the numbers little-endian, as OpenAI's encoding_format."""

    def write(self, record: Record) -> None:
        self._stream.write(to_base64(self._about.encoded(record)).encode("ascii") + b"\n")
        self._stream.flush()


class Npy:
    """NumPy's own format, (n, dim); needs a stream that can seek, because the header says how many rows follow."""

    def __init__(self, stream: BinaryIO, about: About, n_rows: int = 0) -> None:
        self._stream, self._about, self.n_rows = stream, about, n_rows
        empty = about.empty()
        self._dtype, self._width = empty.dtype.newbyteorder("<"), empty.shape[1]
        if n_rows == 0:
            self._write_header()
            stream.flush()

    def write(self, record: Record) -> None:
        self._stream.seek(0, io.SEEK_END)
        self._stream.write(self._about.encoded(record).astype(self._dtype, copy=False).tobytes())
        self._stream.flush()
        self.n_rows += 1

    def finish(self) -> None:
        self._write_header()
        self._stream.flush()

    def _write_header(self) -> None:
        self._stream.seek(0)
        self._stream.write(npy_header(self._dtype, self.n_rows, self._width))


class Parquet:
    """Columns index, id, tokens, truncated, embedding; model and space in the schema's metadata.

    A column blank where blank texts have rows of zeros, and the kept columns, of their types in the input where
    that is Parquet too, else text.
    """

    _ROW_GROUP = 1024

    def __init__(self, stream: BinaryIO, about: About) -> None:
        self._pyarrow = pyarrow = load_pyarrow("Parquet")
        empty, self._about = about.empty(), about
        columns = {
            "index": pyarrow.int64(),
            "id": pyarrow.string(),
            "tokens": pyarrow.int32(),
            "truncated": pyarrow.bool_(),
        }
        if about.has_zeros:
            columns["blank"] = pyarrow.bool_()
        columns |= {name: kind or pyarrow.string() for name, kind in about.keep.items()}
        columns["embedding"] = pyarrow.list_(pyarrow.from_numpy_dtype(empty.dtype), empty.shape[1])
        metadata = {"model": about.model, "space": about.space, "dtype": about.dtype}
        self._schema = pyarrow.schema(columns, metadata=metadata)
        self._file = pyarrow.parquet.ParquetWriter(stream, self._schema)
        self._waiting: list[dict[str, Any]] = []

    def write(self, record: Record) -> None:
        kept = {name: _typed(record.kept.get(name), kind) for name, kind in self._about.keep.items()}
        # A table takes of a row what its schema names.
        self._waiting.append(vars(record) | kept | {"embedding": self._about.encoded(record)})
        if len(self._waiting) == self._ROW_GROUP:
            self._write_group()

    def finish(self) -> None:
        try:
            if self._waiting:
                self._write_group()
            self._file.close()
        finally:
            # Where closing failed, its __del__ would try again, with a traceback.
            self._file.is_open = False

    def _write_group(self) -> None:
        self._file.write_table(self._pyarrow.Table.from_pylist(self._waiting, self._schema))
        self._waiting.clear()


def _typed(value: Any, kind: Any) -> Any:
    """A kept value as a column of this type has it, None: text."""
    return value if value is None or kind is not None else cell(value)


# Columns of a table behind id and text, which share the room that is left; those from the right go first.
_TABLE_WIDTHS = {"tokens": 9, "dim": 4, "norm": 6, "first values": 23}
_TABLE_ROOM = 24  # at least, for id and text


class Table(_Streamed):
    """For people: a line a text with tokens, dim, norm and the first numbers, fitted to the terminal's width."""

    def __init__(self, stream: BinaryIO, about: About) -> None:
        from rich.cells import set_cell_size  # knows how wide Chinese is

        super().__init__(stream, about)
        self._fit = set_cell_size
        # A narrow terminal has room for fewer columns.
        width = min(shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns, 140)
        self._columns = list(_TABLE_WIDTHS)
        while width - self._fixed_width() < _TABLE_ROOM and len(self._columns) > 1:
            self._columns.pop()
        room = max(_TABLE_ROOM, width - self._fixed_width())
        self._id_width = room * 2 // 5
        self._text_width = room - self._id_width
        self._line("id", "text", {name: name for name in _TABLE_WIDTHS})

    def write(self, record: Record) -> None:
        cells = {
            "tokens": f"{record.tokens} cut" if record.truncated else str(record.tokens),
            "dim": str(len(record.vector)),
            "norm": f"{float(np.linalg.norm(record.vector)):.4f}",
            "first values": " ".join(f"{number:7.4f}" for number in record.vector[:3].tolist()),
        }
        text = " ".join(visible(record.text[: 4 * self._text_width]).split())
        self._line(visible(record.id), text, cells)
        self._stream.flush()

    def _fixed_width(self) -> int:
        """Of all columns but id and text, with the spaces before them and between those two."""
        return 1 + sum(1 + _TABLE_WIDTHS[name] for name in self._columns)

    def _line(self, name: str, text: str, cells: dict[str, str]) -> None:
        aligned = (
            cells[column] if column == "first values" else f"{cells[column]:>{_TABLE_WIDTHS[column]}}"
            for column in self._columns
        )  # fmt: skip
        line = " ".join((fitted(name, self._id_width, keep_end=True), self._fit(text, self._text_width), *aligned))
        self._stream.write(line.rstrip().encode("utf-8") + b"\n")


FORMATS: dict[str, Callable[[BinaryIO, About], Writer]] = {
    "table": Table,
    "jsonl": JsonLines,
    "json": Json,
    "csv": Csv,
    "npy": Npy,
    "base64": Base64,
    "parquet": Parquet,
}
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".npy": "npy",
    ".b64": "base64",
    ".parquet": "parquet",
}
BINARY = ("npy", "parquet")
RESUMABLE = ("jsonl", "npy")
