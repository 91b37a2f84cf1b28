"""Each store as its own library sees it: the cases of tests/store_contract.py."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import chromadb
import lancedb
import numpy as np
import psycopg
import pyarrow
from chromadb.config import Settings
from pgvector.psycopg import register_vector
from psycopg.rows import dict_row
from pymilvus import MilvusClient
from qdrant_client import QdrantClient, models

NAME = "notes"
IDS = UUID("8b2f3c1e-6d0a-5f43-9a57-2c9c1e5b7d10")  # the namespace of our ids, as docs/stores.md says it


class Qdrant:
    def __init__(self, folder: Path, address: str = "", served: QdrantClient | None = None) -> None:
        self.folder, self.served = str(folder / "qdrant"), served
        self.address = address or f"qdrant:{self.folder}#{NAME}"

    def client(self) -> AbstractContextManager[QdrantClient]:
        return closing(QdrantClient(path=self.folder)) if self.served is None else nullcontext(self.served)

    def nearest(self, vector: np.ndarray, k: int) -> list[str]:
        with self.client() as client:
            return [point.payload["id"] for point in client.query_points(NAME, vector.tolist(), limit=k).points]

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        with self.client() as client:
            points, _ = client.scroll(NAME, limit=10_000)
        return {point.payload["id"]: point.payload for point in points}

    def put_own(self, name: str, vector: np.ndarray) -> None:
        number = str(uuid5(IDS, name))
        with self.client() as client:
            client.upsert(NAME, [models.PointStruct(id=number, vector=vector.tolist(), payload={"id": name})])


class Milvus:
    def __init__(self, uri: str, address: str) -> None:
        self.uri, self.address = uri, address

    def nearest(self, vector: np.ndarray, k: int) -> list[str]:
        with closing(MilvusClient(self.uri)) as client:
            client.load_collection(NAME)
            (hits,) = client.search(NAME, [vector.tolist()], limit=k, output_fields=["id"])
            return [hit["entity"]["id"] for hit in hits]

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        with closing(MilvusClient(self.uri)) as client:
            client.load_collection(NAME)
            return {
                row["id"]: row for row in client.query(NAME, filter='uuid != ""', output_fields=["*"], limit=10_000)
            }

    def put_own(self, name: str, vector: np.ndarray) -> None:
        number = str(uuid5(IDS, name))
        fields = {"uuid": number, "id": name, "text": "mine", "q3e_source": "", "q3e_digest": ""}
        with closing(MilvusClient(self.uri)) as client:
            client.upsert(NAME, [{**fields, "embedding": vector.tolist()}])


class Pgvector:
    def __init__(self, url: str) -> None:
        self.url, self.table = url, f"t{uuid4().hex}"
        self.address = f"{url}#{self.table}"

    def connection(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.url, autocommit=True, row_factory=dict_row)
        register_vector(connection)
        return connection

    def nearest(self, vector: np.ndarray, k: int) -> list[str]:
        with self.connection() as connection:
            query = f"SELECT id FROM {self.table} ORDER BY embedding <=> %s LIMIT %s"
            return [row["id"] for row in connection.execute(query, (vector, k))]

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        with self.connection() as connection:
            return {row["id"]: _without_vector(row) for row in connection.execute(f"SELECT * FROM {self.table}")}

    def put_own(self, name: str, vector: np.ndarray) -> None:
        with self.connection() as connection:
            connection.execute(
                f"INSERT INTO {self.table} (id, text, embedding) VALUES (%s, 'mine', %s)", (name, vector)
            )


class Lance:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder / "lance")
        self.address = f"lancedb:{self.folder}#{NAME}"

    def table(self) -> Any:
        return lancedb.connect(self.folder).open_table(NAME)

    def nearest(self, vector: np.ndarray, k: int) -> list[str]:
        return [row["id"] for row in self.table().search(vector).distance_type("cosine").limit(k).to_list()]

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        return {row["id"]: row for row in self.table().to_arrow().drop_columns("embedding").to_pylist()}

    def put_own(self, name: str, vector: np.ndarray) -> None:
        table = self.table()
        table.add(pyarrow.Table.from_pylist([{"id": name, "embedding": vector.tolist()}], schema=table.schema))


class Chroma:
    def __init__(self, address: str, folder: Path | None = None, port: int = 0) -> None:
        self.address, self.folder, self.port = address, folder, port
        self.name = address.rpartition("#")[2]

    def collection(self) -> Any:
        settings = Settings(anonymized_telemetry=False)
        if self.folder is None:
            client = chromadb.HttpClient("127.0.0.1", self.port, settings=settings)
        else:
            client = chromadb.PersistentClient(self.folder, settings)
        return client.get_collection(self.name, embedding_function=None)

    def nearest(self, vector: np.ndarray, k: int) -> list[str]:
        return self.collection().query(query_embeddings=[vector], n_results=k)["ids"][0]

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        found = self.collection().get()
        fields = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
        return {name: {"text": text, **(metadata or {})} for name, text, metadata in fields}

    def put_own(self, name: str, vector: np.ndarray) -> None:
        self.collection().upsert(ids=[name], embeddings=[vector], documents=["mine"])


def _without_vector(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in row.items() if name != "embedding"}
