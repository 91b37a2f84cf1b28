"""LanceDB, a folder: the only place that imports lancedb.

A table with a column for each field. The mark is in the metadata of the table's schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from q3e_local.errors import MissingPackageError
from q3e_local.reading.records.parquet import load_pyarrow
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import DIGEST, SOURCE, VECTOR, Row, Shape
from q3e_local.stores.store import in_a_sentence, local_path
from q3e_local.vectors import Vectors

try:
    import lancedb
except ImportError:
    raise MissingPackageError("LanceDB", "lancedb", "lancedb") from None

_MARK = b"q3e_local"


class LanceStore:
    """A table of LanceDB."""

    n_batch = 4096  # each batch is a version of the table
    keeps_parts = True

    def __init__(self, address: StoreAddress) -> None:
        self._address, self._name = address, address.collection
        self._pyarrow = load_pyarrow("LanceDB")
        self._table: Any = None
        with self._asking():
            self._database = lancedb.connect(str(local_path(address)))

    def mark(self) -> str | None:
        with self._asking():
            names, page = set(), None
            while True:
                found = self._database.list_tables(page_token=page)
                names |= set(found.tables)
                page = found.page_token
                if not page:
                    break
            if self._name not in names:
                return None
            self._table = self._database.open_table(self._name)
            return str((self._table.schema.metadata or {}).get(_MARK, b""), "utf-8")

    def create(self, shape: Shape) -> None:
        pyarrow = self._pyarrow
        string, types = pyarrow.string(), {"text": pyarrow.string(), "integer": pyarrow.int64()}
        columns = {"id": string, "text": string, **{name: types[kind] for name, kind in shape.fields.items()}}
        columns |= {SOURCE: string, DIGEST: string, VECTOR: pyarrow.list_(pyarrow.float32(), shape.dim)}
        with self._asking():
            schema = pyarrow.schema(columns, metadata={_MARK: shape.mark})
            self._table = self._database.create_table(self._name, schema=schema)

    def digests(self, source: str) -> dict[str, str]:
        return self._pairs(f"{SOURCE} = {_quoted(source)}", DIGEST)

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        return self._pairs(_among(ids), SOURCE)

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        pyarrow, schema = self._pyarrow, self._table.schema
        records = [{"id": row.id, "text": row.text, **row.fields, SOURCE: source, DIGEST: row.digest} for row in rows]
        place = schema.get_field_index(VECTOR)
        texts = pyarrow.Table.from_pylist(records, schema=schema.remove(place))
        numbers = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), vectors.shape[1])
        with self._asking():
            data = texts.add_column(place, schema.field(place), numbers)
            merging = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merging.execute(data)

    def delete(self, ids: Sequence[str]) -> None:
        with self._asking():
            self._table.delete(_among(ids))

    def finish(self) -> Sequence[str]:
        with self._asking():
            self._table.optimize()  # joins what the batches left in pieces
        return ()

    def close(self) -> None:
        self._table = None

    def _pairs(self, condition: str, column: str) -> dict[str, Any]:
        with self._asking():
            n_rows = self._table.count_rows()
            if not n_rows:
                return {}
            found = self._table.search().where(condition).select(["id", column]).limit(n_rows).to_arrow()
            return dict(zip(found["id"].to_pylist(), found[column].to_pylist(), strict=True))

    def _asking(self) -> AbstractContextManager[None]:
        # Its errors from Rust are ValueError, RuntimeError and OSError.
        return in_a_sentence(self._address, ValueError, RuntimeError, OSError)


def _among(ids: Iterable[str]) -> str:
    return f"id IN ({', '.join(map(_quoted, ids))})"


def _quoted(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
