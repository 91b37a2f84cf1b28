"""A plain SQLite file with sqlite-vec: the only place that imports sqlite_vec.

The table NAME has the texts and fields, NAME_vectors is sqlite-vec's table of vectors with the same numbers of rows,
and NAME_about has the mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import apsw

from q3e_local import sqlite
from q3e_local.errors import MissingPackageError, OutputError
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import DIGEST, SOURCE, VECTOR, Row, Shape
from q3e_local.stores.store import in_a_sentence, local_path
from q3e_local.vectors import Vectors

try:
    import sqlite_vec
except ImportError:
    raise MissingPackageError("sqlite-vec", "sqlite-vec", "sqlite-vec") from None

_BUSY_MS = 5_000
_TYPES = {"text": "TEXT", "integer": "INTEGER"}


class SqliteVecStore:
    """Two tables of an SQLite file, one row in each for every text."""

    n_batch = 1024
    keeps_parts = True

    def __init__(self, address: StoreAddress) -> None:
        self._address = address
        name = address.collection
        self._table, self._vectors, self._about = f'"{name}"', f'"{name}_vectors"', f'"{name}_about"'
        path = local_path(address)
        with self._asking():
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(_BUSY_MS)
            self._connection.enable_load_extension(True)
            self._connection.load_extension(sqlite_vec.loadable_path())
            self._connection.enable_load_extension(False)
            is_of_another = bool(self._connection.pragma("application_id"))
        if is_of_another:
            raise OutputError(f"{path} is a file of another program, such as an index; name a new file")

    def mark(self) -> str | None:
        with self._asking():
            names = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
            if self._about.strip('"') in names:
                return str(self._connection.execute(f"SELECT mark FROM {self._about}").get)  # noqa: S608
            return "" if self._table.strip('"') in names else None

    def create(self, shape: Shape) -> None:
        fields = [f"{_quoted(name)} {_TYPES[kind]}" for name, kind in shape.fields.items()]
        columns = ["row INTEGER PRIMARY KEY", "id TEXT NOT NULL UNIQUE", "text TEXT NOT NULL", *fields]
        columns += [f"{SOURCE} TEXT", f"{DIGEST} TEXT"]
        with self._changing():
            self._connection.execute(f"CREATE TABLE {self._table} ({', '.join(columns)})")
            self._connection.execute(
                f"CREATE INDEX {_quoted(self._address.collection + '_source')} ON {self._table} ({SOURCE})"
            )
            vector = f"{VECTOR} float[{shape.dim}] distance_metric=cosine"
            self._connection.execute(f"CREATE VIRTUAL TABLE {self._vectors} USING vec0 ({vector})")
            self._connection.execute(f"CREATE TABLE {self._about} (mark TEXT NOT NULL)")
            self._connection.execute(f"INSERT INTO {self._about} VALUES (?)", (shape.mark,))  # noqa: S608

    def digests(self, source: str) -> dict[str, str]:
        with self._asking():
            query = f"SELECT id, {DIGEST} FROM {self._table} WHERE {SOURCE} = ?"  # noqa: S608
            return dict(self._connection.execute(query, (source,)))

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        with self._asking():
            query = f"SELECT id, {SOURCE} FROM {self._table} WHERE id = ?"  # noqa: S608
            return dict(self._connection.executemany(query, ((name,) for name in ids)))

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        names = [_quoted(name) for name in ("id", "text", *rows[0].fields, SOURCE, DIGEST)]
        replaced = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        insert = (
            f"INSERT INTO {self._table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608
            f"ON CONFLICT (id) DO UPDATE SET {replaced} RETURNING row"
        )
        with self._changing():
            for row, vector in zip(rows, vectors, strict=True):
                number = self._connection.execute(
                    insert, (row.id, row.text, *row.fields.values(), source, row.digest)
                ).get
                # vec0 knows neither INSERT OR REPLACE nor ON CONFLICT.
                self._connection.execute(f"DELETE FROM {self._vectors} WHERE rowid = ?", (number,))  # noqa: S608
                self._connection.execute(
                    f"INSERT INTO {self._vectors} (rowid, {VECTOR}) VALUES (?, ?)",  # noqa: S608
                    (number, vector.tobytes()),
                )

    def delete(self, ids: Sequence[str]) -> None:
        with self._changing():
            query = f"DELETE FROM {self._table} WHERE id = ? RETURNING row"  # noqa: S608
            rows = list(self._connection.executemany(query, ((name,) for name in ids)))
            self._connection.executemany(f"DELETE FROM {self._vectors} WHERE rowid = ?", rows)  # noqa: S608

    def finish(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._asking(), sqlite.transaction(self._connection):
            yield

    def _asking(self) -> AbstractContextManager[None]:
        return in_a_sentence(self._address, apsw.Error, OSError)


def _quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
