"""Chroma, a server or a folder: the only place that imports chromadb. Its telemetry is off.

The text is Chroma's document, the fields are its metadata. The mark is in the collection's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from q3e_local.errors import MissingPackageError, OptionError
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import DIGEST, SOURCE, Row, Shape
from q3e_local.stores.store import in_a_sentence, local_path
from q3e_local.vectors import Vectors

try:
    import chromadb
    from chromadb.config import Settings
    from chromadb.errors import ChromaError, NotFoundError
    from httpx import HTTPError  # what its client of a server lets through
except ImportError:
    raise MissingPackageError("Chroma", "chromadb", "chroma") from None

_MARK = "q3e_local"
_PORT = 8000
_AT_ONCE = 1000


class ChromaStore:
    """A collection of Chroma. A token for the server is the password of the address, sent as X-Chroma-Token."""

    n_batch = 256
    keeps_parts = True

    def __init__(self, address: StoreAddress) -> None:
        self._address, self._name = address, address.collection
        self._collection: Any = None
        settings = Settings(anonymized_telemetry=False)
        with self._asking():
            if address.path is not None:
                self._client: Any = chromadb.PersistentClient(str(local_path(address)), settings)
            else:
                parts = address.parts
                if parts.path.strip("/"):
                    raise OptionError(f"the address of Chroma ends behind its port, got the path {parts.path}")
                headers = {"X-Chroma-Token": address.password} if address.password else None
                is_tls = parts.scheme.endswith("+https")
                self._client = chromadb.HttpClient(
                    parts.hostname or "", parts.port or _PORT, is_tls, headers, settings
                )

    def mark(self) -> str | None:
        with self._asking():
            try:
                # The vectors come from here: no function of Chroma's is to make any.
                self._collection = self._client.get_collection(self._name, embedding_function=None)
            except NotFoundError:
                return None
            return str((self._collection.metadata or {}).get(_MARK, ""))

    def create(self, shape: Shape) -> None:
        with self._asking():
            self._collection = self._client.create_collection(
                self._name, configuration={"hnsw": {"space": "cosine"}}, metadata={_MARK: shape.mark},
                embedding_function=None,
            )  # fmt: skip

    def digests(self, source: str) -> dict[str, str]:
        found: dict[str, str] = {}
        with self._asking():
            while True:
                page = self._collection.get(
                    where={SOURCE: source}, include=["metadatas"], limit=_AT_ONCE, offset=len(found)
                )
                found |= {name: str(each.get(DIGEST)) for name, each in _pairs(page)}
                if len(page["ids"]) < _AT_ONCE:
                    return found

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        with self._asking():
            page = self._collection.get(ids=list(ids), include=["metadatas"])
        return {name: each.get(SOURCE) for name, each in _pairs(page)}

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        with self._asking():
            self._collection.upsert(
                ids=[row.id for row in rows],
                embeddings=vectors,
                documents=[row.text for row in rows],
                # None takes away what an earlier version of the row had.
                metadatas=[{**row.fields, SOURCE: source, DIGEST: row.digest} for row in rows],
            )

    def delete(self, ids: Sequence[str]) -> None:
        with self._asking():
            self._collection.delete(ids=list(ids))

    def finish(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        self._client.close()

    def _asking(self) -> AbstractContextManager[None]:
        return in_a_sentence(self._address, ChromaError, HTTPError, ValueError, RuntimeError, OSError)


def _pairs(page: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(name, each or {}) for name, each in zip(page["ids"], page["metadatas"], strict=True)]
