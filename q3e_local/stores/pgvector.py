"""PostgreSQL with pgvector: the only place that imports psycopg and pgvector.

A table with a column for each field. The mark is the table's comment. Vectors of more than 2,000 numbers are halfvec
(16 bits a number), because an index of pgvector takes no longer ones: https://github.com/pgvector/pgvector#indexing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from q3e_local.errors import MissingPackageError, OptionError, OutputError
from q3e_local.stores.address import StoreAddress
from q3e_local.stores.rows import DIGEST, SOURCE, VECTOR, Row, Shape, Value
from q3e_local.stores.store import in_a_sentence
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted

try:
    import psycopg
    from pgvector import HalfVector
    from pgvector.psycopg import register_vector
    from psycopg.sql import SQL, Identifier, Literal
except ImportError:
    raise MissingPackageError("PostgreSQL", "psycopg and pgvector", "pgvector") from None

_INDEXED_MAX = {"vector": 2_000, "halfvec": 4_000}  # numbers in a vector that an index takes
_HALFVEC_SINCE = (0, 7)
_NAME_BYTES_MAX = 63  # PostgreSQL cuts longer names, without an error
_TIMEOUT_S = 10
_TYPES = {"text": "text", "integer": "bigint"}


class PgvectorStore:
    """A table of a database. The password may also come from where libpq looks: PGPASSWORD, ~/.pgpass."""

    n_batch = 512
    keeps_parts = True

    def __init__(self, address: StoreAddress) -> None:
        self._address, self._table = address, Identifier(address.collection)
        self._type, self._dim = "", 0
        self._n_without_nul = 0
        with self._asking():
            self._connection = psycopg.connect(address.url or "", connect_timeout=_TIMEOUT_S, autocommit=True)

    def mark(self) -> str | None:
        with self._asking():
            quoted = f'"{self._address.collection}"'
            query = "SELECT to_regclass(%(table)s), obj_description(to_regclass(%(table)s), 'pg_class')"
            ((number, mark),) = self._connection.execute(query, {"table": quoted})
            if number is not None and mark:
                self._learn(quoted)
        return None if number is None else str(mark or "")

    def create(self, shape: Shape) -> None:
        for name in shape.fields:
            if len(name.encode("utf-8")) > _NAME_BYTES_MAX:
                raise OptionError(
                    f"a column of PostgreSQL has at most {_NAME_BYTES_MAX} bytes in its name, got {name!r}"
                )
        advice = (
            "; pgvector must be there, and the user allowed to install it in this database: CREATE EXTENSION vector"
        )
        with in_a_sentence(self._address, psycopg.Error, advice=advice):
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        with self._asking(), self._connection.transaction():
            columns = [SQL("id text PRIMARY KEY, text text NOT NULL")]
            columns += [SQL("{} " + _TYPES[kind]).format(Identifier(name)) for name, kind in shape.fields.items()]
            columns.append(SQL("{} text, {} text").format(Identifier(SOURCE), Identifier(DIGEST)))
            kind = f"{self._type_for(shape.dim)}({shape.dim})"
            columns.append(SQL("{} " + kind + " NOT NULL").format(Identifier(VECTOR)))
            self._do("CREATE TABLE {} ({})", SQL(", ").join(columns))
            self._do("CREATE INDEX ON {} ({})", Identifier(SOURCE))
            self._do("COMMENT ON TABLE {} IS {}", Literal(shape.mark))
        with self._asking():
            self._learn(f'"{self._address.collection}"')

    def digests(self, source: str) -> dict[str, str]:
        with self._asking():
            return dict(self._do("SELECT id, {digest} FROM {} WHERE {source} = %s", values=(source,)))

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        for name in ids:
            if "\0" in name:  # under another id, the next run would not find the row again
                raise OutputError(f"the id {name!r} has the character NUL, which PostgreSQL does not take")
        with self._asking():
            return dict(self._do("SELECT id, {source} FROM {} WHERE id = ANY(%s)", values=(list(ids),)))

    def upsert(self, rows: Sequence[Row], vectors: Vectors, source: str) -> None:
        # psycopg takes a % for a placeholder in names too.
        columns = ("id", "text", *rows[0].fields, SOURCE, DIGEST, VECTOR)
        names = [Identifier(name.replace("%", "%%")) for name in columns]
        query = SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
            self._table,
            SQL(", ").join(names),
            SQL(", ").join([SQL("%s")] * len(names)),
            SQL(", ").join(SQL("{0} = EXCLUDED.{0}").format(name) for name in names[1:]),
        )
        values = [
            [row.id, *self._plain((row.text, *row.fields.values())), source, row.digest, self._vector(vector)]
            for row, vector in zip(rows, vectors, strict=True)
        ]
        with self._asking(), self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(query, values)

    def delete(self, ids: Sequence[str]) -> None:
        with self._asking():
            self._do("DELETE FROM {} WHERE id = ANY(%s)", values=(list(ids),))

    def finish(self) -> Sequence[str]:
        notes = []
        if self._type == "halfvec" and self._dim <= _INDEXED_MAX["halfvec"]:
            notes.append(
                f"the vectors are halfvec, 16 bits a number: an index of pgvector takes vectors of "
                f"{_INDEXED_MAX['vector']:,} numbers at most, these have {self._dim:,}"
            )
        elif self._dim > _INDEXED_MAX["vector"]:
            newer = ", or 4,000 with pgvector 0.7 or newer" if self._dim <= _INDEXED_MAX["halfvec"] else ""
            limit = _INDEXED_MAX["vector" if newer else "halfvec"]
            notes.append(
                f"searches will compare all rows: an index of pgvector takes vectors of {limit:,} numbers at most"
                f"{newer}, these have {self._dim:,}; q3e-local index rebuild -d {limit} cuts them"
            )
        if self._n_without_nul:
            what = counted(self._n_without_nul, "text has", "texts have")
            notes.append(f"{what} the character NUL, which PostgreSQL does not take: it is written as \u2400")
        return notes

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()

    def _do(self, query: str, *parts: Any, values: Sequence[Any] | None = None) -> psycopg.Cursor[Any]:
        """Run a statement whose first {} is the table, and the others are `parts`."""
        names = {"digest": Identifier(DIGEST), "source": Identifier(SOURCE)}
        return self._connection.execute(SQL(query).format(self._table, *parts, **names), values)

    def _learn(self, quoted: str) -> None:
        """How the vectors are kept in the table that is there, and how they are sent."""
        register_vector(self._connection)
        query = (
            "SELECT typname, atttypmod FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
            "WHERE attrelid = to_regclass(%s) AND attname = %s"
        )
        ((self._type, self._dim),) = self._connection.execute(query, (quoted, VECTOR))

    def _type_for(self, dim: int) -> str:
        ((version,),) = self._connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        has_halfvec = tuple(int(part) for part in version.split(".")[:2]) >= _HALFVEC_SINCE
        return "halfvec" if has_halfvec and _INDEXED_MAX["vector"] < dim <= _INDEXED_MAX["halfvec"] else "vector"

    def _vector(self, vector: Vectors) -> Any:
        return HalfVector(vector) if self._type == "halfvec" else vector

    def _plain(self, values: Iterable[Value]) -> list[Value]:
        """The values of a row without the character NUL, which no text of PostgreSQL has."""
        given = list(values)
        plain = [value.replace("\0", "\u2400") if isinstance(value, str) else value for value in given]
        self._n_without_nul += plain != given
        return plain

    def _asking(self) -> AbstractContextManager[None]:
        return in_a_sentence(self._address, psycopg.Error, ValueError)
