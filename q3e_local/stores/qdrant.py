"""Qdrant, a server or a folder of its client's local mode: the only place that imports qdrant_client.

Ids of points are UUIDs there, made of ours; ours are in the payload as `id`. The mark is in the collection's
metadata.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from q3e_local.errors import MissingPackageError, OutputError
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import DIGEST, SOURCE, Row, Shape, uuid_of
from q3e_local.stores.store import in_a_sentence, local_path
from q3e_local.vectors import Vectors

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import ApiException
except ImportError:
    raise MissingPackageError("Qdrant", "qdrant-client", "qdrant") from None

_MARK = "q3e_local"
_TIMEOUT_S = 60
_LOCAL_MAX = 20_000  # points in a folder, above which the client itself advises against it
_AT_ONCE = 1000


class QdrantStore:
    """A collection of Qdrant. A key for the server is the password of the address, or in QDRANT_API_KEY."""

    n_batch = 256
    keeps_parts = True

    def __init__(self, address: StoreAddress) -> None:
        self._address, self._name = address, address.collection
        with self._asking(), warnings.catch_warnings():
            # A key over http: the page on stores says that qdrant+https is there for it.
            warnings.simplefilter("ignore", UserWarning)
            if address.path is not None:
                self._client = QdrantClient(path=str(local_path(address)))
            else:
                parts = address.parts
                tls = "s" if parts.scheme.endswith("+https") else ""
                self._client = QdrantClient(
                    url=f"http{tls}://{parts.netloc.rpartition('@')[2]}",
                    port=parts.port or 6333,
                    prefix=parts.path.strip("/") or None,
                    api_key=address.password or os.environ.get("QDRANT_API_KEY") or None,
                    timeout=_TIMEOUT_S,
                    check_compatibility=False,
                )

    def mark(self) -> str | None:
        with self._asking():
            if not self._client.collection_exists(self._name):
                return None
            mark = self._mark_there()
            if mark:
                self._index_source()
            return mark

    def create(self, shape: Shape) -> None:
        with self._asking():
            self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(size=shape.dim, distance=models.Distance.COSINE),
                metadata={_MARK: shape.mark},
            )
            self._index_source()
            is_marked = self._mark_there() == shape.mark
            if not is_marked:
                self._client.delete_collection(self._name)
        if not is_marked:
            raise OutputError(
                f"cannot use {self._address}: the server keeps no metadata of a collection; Qdrant 1.16 or newer does"
            )

    def digests(self, source: str) -> dict[str, str]:
        of_source = models.Filter(must=[models.FieldCondition(key=SOURCE, match=models.MatchValue(value=source))])
        found, place = {}, None
        with self._asking():
            while True:
                points, place = self._client.scroll(
                    self._name, of_source, limit=_AT_ONCE, offset=place, with_payload=["id", DIGEST]
                )
                for point in points:
                    payload = point.payload or {}
                    found[str(payload.get("id"))] = str(payload.get(DIGEST))
                if place is None:
                    return found

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        names = {uuid_of(name): name for name in ids}
        with self._asking():
            points = self._client.retrieve(self._name, list(names), with_payload=[SOURCE])
        return {names[str(point.id)]: (point.payload or {}).get(SOURCE) for point in points}

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        payloads = [
            {"id": row.id, "text": row.text}
            | {name: value for name, value in row.fields.items() if value is not None}
            | {SOURCE: source, DIGEST: row.digest}
            for row in rows
        ]
        points = models.Batch(ids=[uuid_of(row.id) for row in rows], vectors=vectors.tolist(), payloads=payloads)
        with self._asking(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `finish` says it, once
            self._client.upsert(self._name, points, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        with self._asking():
            self._client.delete(self._name, [uuid_of(name) for name in ids], wait=True)

    def finish(self) -> Sequence[str]:
        if self._address.path is None:
            return ()
        with self._asking():
            n_points = self._client.count(self._name).count
        if n_points <= _LOCAL_MAX:
            return ()
        return (
            f"a folder of Qdrant is slow with more than {_LOCAL_MAX:,} points, and has {n_points:,}: use a server",
        )

    def close(self) -> None:
        self._client.close()

    def _index_source(self) -> None:
        """Let a server find the rows of a source quickly; where it can already, nothing happens."""
        if self._address.path is None:
            self._client.create_payload_index(self._name, SOURCE, models.PayloadSchemaType.KEYWORD, wait=True)

    def _mark_there(self) -> str:
        facts = self._client.get_collection(self._name).config.metadata or {}
        return str(facts.get(_MARK, ""))

    def _asking(self) -> AbstractContextManager[None]:
        # RuntimeError: another process has the folder.
        return in_a_sentence(self._address, ApiException, RuntimeError, ValueError, OSError)
