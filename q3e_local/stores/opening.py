"""The store at an address, open: `opened`.

Knows which module has which store, and that one process writes at a time; a store's library is imported when its
store is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module

from q3e_local.errors import OptionError, OutputError
from q3e_local.files import sole_writer
from q3e_local.stores.address import Kind, StoreAddress
from q3e_local.stores.store import Store

_STORES: dict[Kind, str] = {
    "qdrant": "qdrant:QdrantStore",
    "milvus": "milvus:MilvusStore",
    "pgvector": "pgvector:PgvectorStore",
    "lancedb": "lancedb:LanceStore",
    "chroma": "chroma:ChromaStore",
    "sqlite-vec": "sqlite_vec:SqliteVecStore",
    "redis": "redis:RedisStore",
    "pinecone": "pinecone:PineconeFile",
}


@contextmanager
def opened(address: StoreAddress, replace: bool = False) -> Iterator[Store]:
    """The store, until the block ends. `replace` lets a file of Pinecone's be written over one that is there.

    Raises OutputError where it cannot be reached or another process of this machine writes to it, OptionError for
    what it cannot have, MissingPackageError without its library.
    """
    module, name = _STORES[address.kind].split(":")
    store_of = getattr(import_module(f"q3e_local.stores.{module}"), name)
    if replace and address.kind != "pinecone":
        raise OptionError(
            f"--force replaces files, and {address} is a collection: to begin anew, delete it or name another with "
            "#NAME"
        )

    def refuse() -> None:
        raise OutputError(f"{address} is being written by another process; wait for it")

    where = address.place if address.path is None else str(address.path.resolve())
    with (
        sole_writer(os.fsencode(f"{where}#{address.collection}"), refuse),
        closing(store_of(address, replace) if replace else store_of(address)) as store,
    ):
        yield store
