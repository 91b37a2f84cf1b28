"""The short forms of an index's vectors, which sqlite-vec keeps in its table `codes` and a search scans in memory.

Of many numbers the signs, of few all numbers with 8 bits each: there, signs are too few to tell vectors apart.

Of 100,000 codes of 1,024 bits sqlite-vec's own search gives the nearest 500 in 57 ms, a scan in memory in 1 ms.
Knows that table and the vectors it is derived from. Where sqlite-vec cannot be loaded, the codes are read from the
plain tables below it; what is written meanwhile leaves them behind, and then they are computed from the vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apsw
import numpy as np
from numpy.typing import NDArray

from q3e_local.search.database import chunk_table, schema, vector_table
from q3e_local.search.database.bit_scan import Codes, Rounded, all_rounded, code_bits, encode, gathered, rounded
from q3e_local.search.database.records import Rows
from q3e_local.vectors import Vectors

CODE_BITS_MAX = 1024
# Up to here 8 bits a number take no more than twice the room of the longest code of signs. Of the first ten among
# 100,000, a shortlist of 800 by signs has 0.53 at 64 numbers, 0.78 at 128 and 0.95 at 256.
ROUNDED_DIM_MAX = 256
_BEHIND = "codes_behind"


def is_behind(connection: apsw.Connection) -> bool:
    """Whether the table is not there, or lacks what was written without sqlite-vec."""
    return bool(schema.meta(connection).get(_BEHIND, 1))


def bits(dim: int) -> int:
    """Of a vector's short form."""
    return 8 * dim if dim <= ROUNDED_DIM_MAX else code_bits(dim, CODE_BITS_MAX)


def make(connection: apsw.Connection, dim: int) -> None:
    """Make the table anew from the vectors."""
    connection.execute("DROP TABLE IF EXISTS codes")
    kind = f"int8[{dim}]" if dim <= ROUNDED_DIM_MAX else f"bit[{bits(dim)}]"
    connection.execute(f"CREATE VIRTUAL TABLE codes USING vec0(code {kind})")
    schema.set_meta(connection, **{_BEHIND: 0})
    for rows, some in vector_table.windows(connection, dim):
        insert(connection, rows, some, has_vec=True)


def leave_behind(connection: apsw.Connection) -> None:
    """Note that the table does not have what is written now."""
    schema.set_meta(connection, **{_BEHIND: 1})


def insert(connection: apsw.Connection, rows: Iterable[int], some: Vectors, *, has_vec: bool) -> None:
    """Add the codes of these vectors."""
    if not has_vec:
        return leave_behind(connection)
    read = "vec_int8" if some.shape[1] <= ROUNDED_DIM_MAX else "vec_bit"
    pairs = ((int(row), code.tobytes()) for row, code in zip(rows, _made(some), strict=True))
    connection.executemany(f"INSERT INTO codes (rowid, code) VALUES (?, {read}(?))", pairs)  # noqa: S608


def remove(connection: apsw.Connection, rows: Iterable[int], *, has_vec: bool) -> None:
    if not has_vec:
        return leave_behind(connection)
    connection.executemany("DELETE FROM codes WHERE rowid = ?", ((row,) for row in rows))


def load(connection: apsw.Connection, dim: int) -> Codes | Rounded:
    """All codes, for a scan. Raises CorruptError."""
    found: Iterator[tuple[Rows, NDArray[np.uint8]]]
    if is_behind(connection):
        found = ((rows, _made(some)) for rows, some in vector_table.windows(connection, dim))
        n = chunk_table.n_chunks(connection)
    else:
        found = _stored(connection, dim)
        taken = (_taken(validity) for (validity,) in connection.execute("SELECT validity FROM codes_chunks"))
        n = sum(int(some.sum()) for some in taken)
    try:
        if dim <= ROUNDED_DIM_MAX:
            return all_rounded(((rows, some.view(np.int8)) for rows, some in found), n, dim)
        return gathered(found, n, bits(dim))
    except (ValueError, IndexError):  # of arrays that do not fit each other
        raise apsw.CorruptError("the codes are not as many, or not as long, as they should be") from None


def _made(some: Vectors) -> NDArray[np.uint8]:
    dim = some.shape[1]
    return rounded(some).view(np.uint8) if dim <= ROUNDED_DIM_MAX else encode(some, bits(dim))


def _stored(connection: apsw.Connection, dim: int) -> Iterator[tuple[Rows, NDArray[np.uint8]]]:
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
