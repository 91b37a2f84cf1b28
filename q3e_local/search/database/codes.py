"""The binary codes of an index, which sqlite-vec keeps in its table `codes`, and which are scanned in memory.

Of 100,000 codes of 1,024 bits sqlite-vec's own search gives the nearest 500 in 57 ms, a scan in memory in 1 ms.
Knows that table and the vectors it is derived from. Where sqlite-vec cannot be loaded, the codes are read from the
plain tables below it; what is written meanwhile leaves them behind, and then they are computed from the vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apsw
import numpy as np
from numpy.typing import NDArray

from q3e_local.search.database import chunks, schema, vectors
from q3e_local.search.database.records import Rows
from q3e_local.search.scan import Bits, Codes, code_bits, encode, gathered
from q3e_local.vectors import Vectors

CODE_BITS_MAX = 1024
_BEHIND = "codes_behind"


def is_behind(connection: apsw.Connection) -> bool:
    """Whether the table is not there, or lacks what was written without sqlite-vec."""
    return bool(schema.meta(connection).get(_BEHIND, 1))


def bits(dim: int) -> int:
    return code_bits(dim, CODE_BITS_MAX)


def make(connection: apsw.Connection, dim: int) -> None:
    """Make the table anew from the vectors."""
    connection.execute("DROP TABLE IF EXISTS codes")
    connection.execute(f"CREATE VIRTUAL TABLE codes USING vec0(code bit[{bits(dim)}])")
    schema.set_meta(connection, **{_BEHIND: 0})
    for rows, some in vectors.windows(connection, dim):
        insert(connection, rows, some, has_vec=True)


def leave_behind(connection: apsw.Connection) -> None:
    """Note that the table does not have what is written now."""
    schema.set_meta(connection, **{_BEHIND: 1})


def insert(connection: apsw.Connection, rows: Iterable[int], some: Vectors, *, has_vec: bool) -> None:
    """Add the codes of these vectors."""
    if not has_vec:
        return leave_behind(connection)
    codes = encode(some, bits(some.shape[1]))
    pairs = ((int(row), code.tobytes()) for row, code in zip(rows, codes, strict=True))
    connection.executemany("INSERT INTO codes (rowid, code) VALUES (?, vec_bit(?))", pairs)


def remove(connection: apsw.Connection, rows: Iterable[int], *, has_vec: bool) -> None:
    if not has_vec:
        return leave_behind(connection)
    connection.executemany("DELETE FROM codes WHERE rowid = ?", ((row,) for row in rows))


def load(connection: apsw.Connection, dim: int) -> Codes:
    """All codes, for a scan."""
    if is_behind(connection):
        computed = ((rows, encode(some, bits(dim))) for rows, some in vectors.windows(connection, dim))
        return gathered(computed, chunks.n_chunks(connection), bits(dim))
    taken = (_taken(validity) for (validity,) in connection.execute("SELECT validity FROM codes_chunks"))
    return gathered(_stored(connection, dim), sum(int(some.sum()) for some in taken), bits(dim))


def _stored(connection: apsw.Connection, dim: int) -> Iterator[tuple[Rows, Bits]]:
    """What sqlite-vec keeps in its own tables, which is fifty times as fast as to ask it for each row.

    Their layout is that of sqlite-vec 0.1: 1,024 rows in each record, of which a bit says whether they are taken, the
    first in the lowest bit (sqlite-vec.c, "vec0 virtual table: shadow tables").
    """
    select = (
        "SELECT validity, rowids, vectors FROM codes_chunks "
        "CROSS JOIN codes_vector_chunks00 AS stored ON stored.rowid = codes_chunks.chunk_id ORDER BY chunk_id"
    )
    for validity, rowids, codes in connection.execute(select):
        taken, rows = _taken(validity), np.frombuffer(rowids, "<i8")
        yield rows[taken], np.frombuffer(codes, np.uint8).reshape(len(rows), bits(dim) // 8)[taken]


def _taken(validity: bytes) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little").astype(bool)
