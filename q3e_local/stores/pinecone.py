"""Files that Pinecone imports from object storage: Parquet for an index of vectors, JSON Lines for one of documents.

Formats: https://docs.pinecone.io/guides/data/import-data, and for Parquet
https://docs.pinecone.io/guides/legacy/vectors-api/import-vectors. A file is written whole or not at all. Knows no
network: people upload the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, BinaryIO

import orjson

from q3e_local.errors import OptionError, OutputError
from q3e_local.files import landing
from q3e_local.reading.records.parquet import load_pyarrow
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import VECTOR, Row, Shape
from q3e_local.stores.store import in_a_sentence, local_path
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted

# https://docs.pinecone.io/reference/api/database-limits
_ID_MAX = 512  # characters, of ASCII
_METADATA_BYTES_MAX = 40 * 1024
_SUFFIXES = (".parquet", ".jsonl")


class PineconeFile:
    """A file with a row for each text: `id`, `values` and `metadata` in Parquet; a document a line in JSON Lines."""

    n_batch = 1024
    keeps_parts = False

    def __init__(self, address: StoreAddress, replace: bool = False) -> None:
        self._address, self._path = address, local_path(address)
        self._is_parquet = self._path.suffix.lower() == ".parquet"
        if self._path.suffix.lower() not in _SUFFIXES:
            raise OptionError(f"a file for Pinecone ends in {' or '.join(_SUFFIXES)}, got {self._path}")
        if self._path.exists() and not replace:
            raise OutputError(f"{self._path} exists; replace it with --force")
        self._stack = ExitStack()
        self._space: dict[str, str] = {}
        self._n_other_ids = 0

    def mark(self) -> str | None:
        return None  # each run writes the file anew

    def create(self, shape: Shape) -> None:
        self._space = {"model": shape.model, "space": shape.space}
        with self._asking():
            self._stream: BinaryIO = self._stack.enter_context(landing(self._path))
            if self._is_parquet:
                self._pyarrow = pyarrow = load_pyarrow("Parquet")
                string, floats = pyarrow.string(), pyarrow.list_(pyarrow.float32())
                self._schema = pyarrow.schema({"id": string, "values": floats, "metadata": string})
                self._parquet = self._stack.enter_context(pyarrow.parquet.ParquetWriter(self._stream, self._schema))

    def digests(self, source: str) -> dict[str, str]:
        return {}

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        return {}

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        names, facts = [], []
        for row in rows:
            fields = {name: value for name, value in row.fields.items() if value is not None}
            fact: dict[str, Any] = {"text": row.text, **fields, **self._space}
            names.append(self._name(row.id))
            if names[-1] != row.id:
                fact["id"] = row.id
            n_bytes = len(orjson.dumps(fact))
            if n_bytes > _METADATA_BYTES_MAX:
                raise OutputError(
                    f"{row.id} has {n_bytes:,} bytes of text and fields, Pinecone takes {_METADATA_BYTES_MAX:,}; cut "
                    "the text into smaller ones, as q3e-local index does"
                )
            facts.append(fact)
        with self._asking():
            if self._is_parquet:
                metadata = [orjson.dumps(fact).decode("utf-8") for fact in facts]
                columns = {"id": names, "values": list(vectors), "metadata": metadata}
                self._parquet.write_table(self._pyarrow.table(columns, schema=self._schema))
                return
            for name, fact, vector in zip(names, facts, vectors, strict=True):
                document = {"_id": name, **fact, VECTOR: vector}
                option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
                self._stream.write(orjson.dumps(document, option=option))

    def delete(self, ids: Sequence[str]) -> None:
        raise OutputError(f"nothing can be deleted from {self._path}: each run writes it anew")

    def finish(self) -> Sequence[str]:
        with self._asking():
            self._stack.close()
        if not self._n_other_ids:
            return ()
        return (
            f"{counted(self._n_other_ids, 'id')} beyond ASCII or longer than {_ID_MAX} characters, which Pinecone "
            "does not take: the SHA-256 stands in their place, and the id in the field id",
        )

    def close(self) -> None:
        """Take away what was not finished."""
        error = OutputError("not finished")
        self._stack.__exit__(OutputError, error, None)

    def _name(self, name: str) -> str:
        if name.isascii() and len(name) <= _ID_MAX and "\0" not in name:
            return name
        self._n_other_ids += 1
        return hashlib.sha256(name.encode("utf-8")).hexdigest()

    def _asking(self) -> AbstractContextManager[None]:
        return in_a_sentence(self._address, OSError)
