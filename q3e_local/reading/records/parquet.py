"""Texts in a column of a Parquet file; the module that imports pyarrow for whoever reads or writes Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from q3e_local.errors import InputError, MissingPackageError
from q3e_local.reading.failures import parsing
from q3e_local.reading.records.item import Item, Wanted, failed, item_of, missing_column

_BATCH = 1024  # rows read at a time
_TEXT_TYPES = ("string", "large_string", "string_view", "null")


def read(name: str, file: BinaryIO, wanted: Wanted, n_bytes: int) -> Iterator[Item]:
    """Each row; `name:1` is the first. `n_bytes` is the file's size, which its rows share.

    Raises InputError for what cannot be read as Parquet, MissingPackageError without pyarrow.
    """
    pyarrow = load_pyarrow()
    with parsing("Parquet"):
        table = pyarrow.parquet.ParquetFile(file)
    schema = table.schema_arrow
    problem = missing_column(schema.names, wanted.names()) or _no_text(pyarrow, schema, wanted)
    if problem is not None:
        yield failed(name, problem, "file")
        return
    n_rows, row = table.metadata.num_rows, 0
    batches = table.iter_batches(batch_size=_BATCH, columns=list(dict.fromkeys(wanted.names())))
    while True:
        with parsing("Parquet"):
            batch = next(batches, None)
            if batch is None:
                return
            columns = {column: _values(pyarrow, batch.column(column)) for column in batch.schema.names}
        for place in range(batch.num_rows):
            record = {column: values[place] for column, values in columns.items()}
            if record[wanted.text] is None:
                record[wanted.text] = ""
            row += 1
            share = n_bytes * row // n_rows - n_bytes * (row - 1) // n_rows
            yield item_of(name, row, record, wanted, share)


def column_types(file: BinaryIO, columns: tuple[str, ...]) -> Mapping[str, Any]:
    """The pyarrow type of each of these columns that the file has. Raises as `read`."""
    pyarrow = load_pyarrow()
    with parsing("Parquet"):
        schema = pyarrow.parquet.read_schema(file)
    return {name: _plain(pyarrow, schema.field(name).type) for name in columns if schema.names.count(name) == 1}


def load_pyarrow(what: str = "reading Parquet") -> Any:
    """pyarrow, with its module for Parquet. Raises MissingPackageError that says what needs it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingPackageError(what, "pyarrow", "parquet") from None
    return pyarrow


def _no_text(pyarrow: Any, schema: Any, wanted: Wanted) -> str | None:
    found = _plain(pyarrow, schema.field(wanted.text).type)
    if str(found) in _TEXT_TYPES:
        return None
    return f"has no text in the column {wanted.text!r} but {found}"


def _plain(pyarrow: Any, kind: Any) -> Any:
    """The type of a column's values, without the way in which they are stored."""
    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind


def _values(pyarrow: Any, column: Any) -> list[Any]:
    if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
        try:
            column = column.cast(pyarrow.timestamp("us", column.type.tz))
        except pyarrow.ArrowInvalid:
            raise InputError("has times in nanoseconds, finer than can be kept; save them in microseconds") from None
    values: list[Any] = column.to_pylist()
    return values
