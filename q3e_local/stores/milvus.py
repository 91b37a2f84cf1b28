"""Milvus, a server or a file of Milvus Lite: the only place that imports pymilvus.

The primary key is a UUID made of our id, because expressions of Milvus Lite cannot have every character; ours is in
the field `id`. The mark is in the collection's properties.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import unquote

from q3e_local.errors import MissingPackageError, OptionError, OutputError
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import DIGEST, SOURCE, VECTOR, Row, Shape, uuid_of
from q3e_local.stores.store import in_a_sentence, local_path
from q3e_local.vectors import Vectors

try:
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException
except ImportError:
    raise MissingPackageError("Milvus", "pymilvus", "milvus") from None

_MARK = "q3e_local"
_TIMEOUT_S = 30
_VARCHAR_MAX = 65_535  # bytes of a text: https://milvus.io/docs/string.md
_AT_ONCE = 10_000  # each page is a scan of Milvus Lite, and 16,384 rows are the most that Milvus gives


class MilvusStore:
    """A collection of Milvus. A token for the server is a password without a user."""

    n_batch = 256
    keeps_parts = True

    def __init__(self, address: StoreAddress) -> None:
        self._address, self._name = address, address.collection
        if "-" in self._name:
            raise OptionError(f"Milvus has no hyphens in the names of collections; got {self._name!r}")
        # It logs every error that it raises, with a traceback.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        with self._asking():
            if address.path is None:
                parts = address.parts
                tls = "s" if parts.scheme.endswith("+https") else ""
                user = unquote(parts.username or "")
                login = {"user": user, "password": address.password} if user else {"token": address.password}
                self._client = MilvusClient(
                    f"http{tls}://{parts.netloc.rpartition('@')[2]}",
                    db_name=parts.path.strip("/"),
                    timeout=_TIMEOUT_S,
                    **login,
                )
            else:
                if address.path.suffix != ".db":
                    raise OptionError(f"the file of Milvus Lite must end in .db, got {address.path}")
                self._client = MilvusClient(str(local_path(address)))

    def mark(self) -> str | None:
        with self._asking():
            if not self._client.has_collection(self._name):
                return None
            facts: dict[str, Any] = self._client.describe_collection(self._name)
            mark = facts.get("properties", {}).get(_MARK)
            if mark:
                self._client.load_collection(self._name)
            return str(mark or "")

    def create(self, shape: Shape) -> None:
        with self._asking():
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("uuid", DataType.VARCHAR, is_primary=True, max_length=36)
            schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=shape.dim)
            for name in ("id", "text", SOURCE, DIGEST):
                schema.add_field(name, DataType.VARCHAR, max_length=_VARCHAR_MAX)
            for name, kind in shape.fields.items():
                if kind == "integer":
                    schema.add_field(name, DataType.INT64, nullable=True)
                else:
                    schema.add_field(name, DataType.VARCHAR, max_length=_VARCHAR_MAX, nullable=True)
            indexes = self._client.prepare_index_params()
            indexes.add_index(VECTOR, index_type="AUTOINDEX", metric_type="COSINE")
            properties = {_MARK: shape.mark}
            self._client.create_collection(self._name, schema=schema, index_params=indexes, properties=properties)

    def digests(self, source: str) -> dict[str, str]:
        found: dict[str, str] = {}
        with self._asking():
            pages = self._client.query_iterator(
                self._name, filter=f'{SOURCE} == "{source}"', output_fields=["id", DIGEST], batch_size=_AT_ONCE,
                consistency_level="Strong",
            )  # fmt: skip
            while page := pages.next():
                found |= {each["id"]: each[DIGEST] for each in page}
            pages.close()
        return found

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        keys = [uuid_of(name) for name in ids]
        with self._asking():
            found = self._client.query(self._name, ids=keys, output_fields=["id", SOURCE], consistency_level="Strong")
        return {each["id"]: each[SOURCE] for each in found}

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        data = [
            {"uuid": uuid_of(row.id), "id": row.id, "text": row.text, SOURCE: source, DIGEST: row.digest}
            | dict(row.fields)
            | {VECTOR: vector.tolist()}
            for row, vector in zip(rows, vectors, strict=True)
        ]
        for fields in data:
            for name, value in fields.items():
                n_bytes = len(value.encode("utf-8")) if isinstance(value, str) else 0
                if n_bytes > _VARCHAR_MAX:
                    raise OutputError(
                        f"{name} of {str(fields['id'])[:200]} has {n_bytes:,} bytes, Milvus holds {_VARCHAR_MAX:,}; "
                        "cut the text into smaller ones, as q3e-local index does"
                    )
        with self._asking():
            self._client.upsert(self._name, data)

    def delete(self, ids: Sequence[str]) -> None:
        with self._asking():
            self._client.delete(self._name, ids=[uuid_of(name) for name in ids])

    def finish(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        self._client.close()

    def _asking(self) -> AbstractContextManager[None]:
        is_local = self._address.path is not None
        advice = "; does another process have it open?" if is_local else ""
        return in_a_sentence(self._address, MilvusException, ValueError, OSError, advice=advice)
