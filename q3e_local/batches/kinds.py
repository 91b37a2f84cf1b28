"""The kinds of batches that programs hand over: where their texts are, and how columns come behind theirs.

Knows dicts, pandas, Arrow and lists; nothing of models. pandas and Arrow are looked at only where a batch is theirs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import OptionError
from q3e_local.vectors import Vectors


@dataclass(frozen=True)
class Columns:
    """The new columns of a batch of n rows."""

    name: str
    vectors: Vectors  # (n, dim); NaN in rows that failed
    failed: NDArray[np.bool_]  # (n,)
    truncated: NDArray[np.bool_] | None  # (n,); None: no such column
    reasons: NDArray[np.object_] | None  # (n,), a str where a row failed, else None; None: no such column
    about: Mapping[str, str]  # what the vectors are, where a column has a place for it

    def rows(self) -> list[Vectors | None]:
        """A vector (dim,) for each row, None where it failed."""
        return [None if failed else vector for vector, failed in zip(self.vectors, self.failed, strict=True)]

    def beside(self) -> dict[str, NDArray[Any]]:
        """The columns beside that of the vectors: arrays (n,) of bool, or of objects that are str or None."""
        columns = {f"{self.name}_truncated": self.truncated, f"{self.name}_error": self.reasons}
        return {name: values for name, values in columns.items() if values is not None}


class Batch(Protocol):
    """A batch as it was handed over, which stays as it is."""

    def names(self) -> Sequence[str] | None:
        """The names of the columns; None where the batch is the texts themselves."""

    def texts(self) -> list[Any]:
        """The values of the column of texts: None where one is missing, bytes where one is not UTF-8."""

    def joined(self, columns: Columns, *, fixed_size: bool) -> Any:
        """A batch of the same kind with these columns behind its own."""


def opened_batch(batch: Any, column: str) -> Batch:
    """A batch of any kind. Raises OptionError for what is none."""
    if _is_of("pandas", batch, "DataFrame"):
        return _Frame(batch, column)
    if _is_of("pyarrow", batch, "Table", "RecordBatch"):
        return _Arrow(batch, column)
    if isinstance(batch, Mapping):
        values = batch.get(column, ())
        if isinstance(values, str | bytes):
            raise OptionError(f"column {column!r} of the batch is one text; put it in a list")
        return _Dict(batch, column)
    if isinstance(batch, list) and all(isinstance(each, Mapping) for each in batch) and batch:
        return _Records(batch, column)
    if isinstance(batch, list):
        return _Texts(batch)
    raise OptionError(
        "a batch must be a dict of arrays, a DataFrame, an Arrow Table or RecordBatch, or a list, got "
        f"{type(batch).__name__}"
    )


def _is_of(module: str, batch: Any, *names: str) -> bool:
    """Whether a batch is one of a module's classes; a module that nobody has imported made no batch."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(batch, tuple(getattr(loaded, name) for name in names))


class _Dict:
    """A dict of arrays or lists. The vectors are an array (n, dim), or of a list of texts a list of arrays."""

    def __init__(self, batch: Mapping[str, Any], column: str) -> None:
        self._batch, self._column = batch, column

    def names(self) -> Sequence[str]:
        return list(self._batch)

    def texts(self) -> list[Any]:
        values = self._batch[self._column]
        return [None if _is_nan(value) else value for value in values]

    def joined(self, columns: Columns, *, fixed_size: bool) -> dict[str, Any]:
        if isinstance(self._batch[self._column], list):
            beside = {name: values.tolist() for name, values in columns.beside().items()}
            return {**self._batch, columns.name: columns.rows(), **beside}
        return {**self._batch, columns.name: columns.vectors, **columns.beside()}


class _Records:
    """A list of dicts. A text may be missing in any of them, and by chance in all of a batch."""

    def __init__(self, batch: Sequence[Mapping[str, Any]], column: str) -> None:
        self._batch, self._column = batch, column

    def names(self) -> Sequence[str]:
        return list({self._column: None} | dict.fromkeys(name for record in self._batch for name in record))

    def texts(self) -> list[Any]:
        return [None if _is_nan(value := record.get(self._column)) else value for record in self._batch]

    def joined(self, columns: Columns, *, fixed_size: bool) -> list[dict[str, Any]]:
        beside = {name: values.tolist() for name, values in columns.beside().items()}
        added = {columns.name: columns.rows(), **beside}
        return [
            {**record, **{name: values[row] for name, values in added.items()}}
            for row, record in enumerate(self._batch)
        ]


class _Texts:
    """A list of texts; its answer is a list of vectors (dim,)."""

    def __init__(self, batch: Sequence[Any]) -> None:
        self._batch = batch

    def names(self) -> None:
        return None

    def texts(self) -> list[Any]:
        return list(self._batch)

    def joined(self, columns: Columns, *, fixed_size: bool) -> list[Any]:
        return list(columns.rows())


class _Frame:
    """A pandas DataFrame. The vectors are a column of objects, arrays (dim,)."""

    def __init__(self, batch: Any, column: str) -> None:
        self._batch, self._column = batch, column

    def names(self) -> Sequence[str]:
        return list(self._batch.columns)

    def texts(self) -> list[Any]:
        series = self._batch[self._column]
        return [
            None if missing else value for value, missing in zip(series.tolist(), series.isna().tolist(), strict=True)
        ]

    def joined(self, columns: Columns, *, fixed_size: bool) -> Any:
        # An array of arrays of one length would be taken for two dimensions.
        vectors = np.empty(len(columns.vectors), object)
        for row, vector in enumerate(columns.rows()):
            vectors[row] = vector
        return self._batch.assign(**{columns.name: vectors}, **columns.beside())


class _Arrow:
    """An Arrow Table or RecordBatch. The vectors are a list column of float32, whose field says what they are."""

    def __init__(self, batch: Any, column: str) -> None:
        self._batch, self._column = batch, column

    def names(self) -> Sequence[str]:
        names: list[str] = self._batch.schema.names
        return names

    def texts(self) -> list[Any]:
        return arrow_values(self._batch.column(self._column))

    def joined(self, columns: Columns, *, fixed_size: bool) -> Any:
        import pyarrow

        n, dim = columns.vectors.shape
        numbers = pyarrow.array(columns.vectors.reshape(-1))
        mask = pyarrow.array(columns.failed)
        if fixed_size:
            vectors = pyarrow.FixedSizeListArray.from_arrays(numbers, dim, mask=mask)
        else:
            offsets = pyarrow.array(np.arange(n + 1, dtype=np.int32) * dim)
            vectors = pyarrow.ListArray.from_arrays(offsets, numbers, mask=mask)
        fields, arrays = [pyarrow.field(columns.name, vectors.type, metadata=dict(columns.about))], [vectors]
        for name, values in columns.beside().items():
            kind = pyarrow.bool_() if values.dtype == bool else pyarrow.string()
            fields.append(pyarrow.field(name, kind))
            arrays.append(pyarrow.array(values, kind))
        schema = self._batch.schema
        joined = pyarrow.schema([*schema, *fields], metadata=schema.metadata)
        return type(self._batch).from_arrays([*self._batch.columns, *arrays], schema=joined)


def arrow_values(column: Any) -> list[Any]:
    """The values of a column of Arrow: None where one is missing, bytes where a string is not UTF-8.

    Arrow does not check strings when it reads them from a file, and raises where Python asks for one.
    """
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_arrow_value(scalar) for scalar in column]
    return values


def _arrow_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return getattr(scalar, "value", scalar).as_buffer().to_pybytes()  # `value`: of a dictionary


def _is_nan(value: Any) -> bool:
    """Whether a value is the number that stands for a missing text in arrays of objects."""
    return isinstance(value, float) and math.isnan(value)
