"""The codes of an index: a short form of each vector, which a search reads into memory and scans.

The code of a long vector has the signs of its first numbers. The code of a short vector has all its numbers with 8
bits each, because a few signs do not tell vectors apart.

Knows the table `codes` and the vectors that it is made from. A record of the table is a block: the codes of all rows
with the same `row // 256`, and for each code a byte that says `row % 256`. All codes are read before a first search:
of 200,000 with 1,024 bits, blocks are read in 26 ms, and a record for each row took 243 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apsw
import numpy as np
from numpy.typing import NDArray

from q3e_local.search.database import schema, vector_table
from q3e_local.search.database.bit_scan import WORD_BITS, Codes, Rounded, encode, fill, rounded
from q3e_local.search.database.records import Rows
from q3e_local.vectors import Vectors

CODE_BITS_MAX = 1024
# Up to here 8 bits a number take no more than twice the room of the longest code of signs. Of the first ten among
# 100,000, a shortlist of 800 by signs has 0.53 at 64 numbers, 0.78 at 128 and 0.95 at 256.
ROUNDED_DIM_MAX = 256
_BLOCK_ROWS = 256  # as many as a byte tells apart

_Bytes = NDArray[np.uint8]


def bits(dim: int) -> int:
    """The length of a code for vectors of this dim."""
    return 8 * dim if dim <= ROUNDED_DIM_MAX else -(-min(dim, CODE_BITS_MAX) // WORD_BITS) * WORD_BITS


def make(connection: apsw.Connection, dim: int) -> None:
    """Replace all codes by those of the vectors in the index."""
    connection.execute("DELETE FROM codes")
    for rows, vectors in vector_table.windows(connection, dim):
        insert(connection, rows, vectors)


def insert(connection: apsw.Connection, rows: Iterable[int], vectors: Vectors) -> None:
    """Add the codes of these vectors. Their rows ascend, and follow all rows that have codes."""
    codes = _encoded(vectors)
    for block, places, is_of_block in _by_block(rows):
        old_places, old_codes = _stored_block(connection, block)
        _store_block(connection, block, old_places + places.tobytes(), old_codes + codes[is_of_block].tobytes())


def remove(connection: apsw.Connection, rows: Iterable[int]) -> None:
    """Remove the codes of these rows, where there are any."""
    for block, places, _ in _by_block(rows):
        old_places, old_codes = _stored_block(connection, block)
        if old_places:
            numbers, codes = _arrays(old_places, old_codes)
            kept = ~np.isin(numbers, places)
            _store_block(connection, block, numbers[kept].tobytes(), codes[kept].tobytes())


def load(connection: apsw.Connection, dim: int, n: int) -> Codes | Rounded:
    """The codes of all n chunks, for a scan. Raises CorruptError."""
    if schema.version(connection) >= schema.WITH_CODES:
        found = _stored(connection, dim)
    else:
        # An index of an older schema that cannot be written has no such table; its vectors say the same, more slowly.
        found = ((rows, _encoded(vectors)) for rows, vectors in vector_table.windows(connection, dim))
    try:
        if dim <= ROUNDED_DIM_MAX:
            numbers = np.empty((n, dim), np.int8)
            return Rounded(fill(numbers, found), numbers)
        words = np.empty((bits(dim) // WORD_BITS, n), np.uint64)
        return Codes(fill(words.T, found), words)
    except ValueError as error:
        raise apsw.CorruptError(str(error)) from None


def _encoded(vectors: Vectors) -> _Bytes:
    """The codes (n, bits / 8) of vectors."""
    dim = vectors.shape[1]
    return rounded(vectors).view(np.uint8) if dim <= ROUNDED_DIM_MAX else encode(vectors, bits(dim))


def _by_block(rows: Iterable[int]) -> Iterator[tuple[int, _Bytes, NDArray[np.bool_]]]:
    """Each block of these rows, the places of its rows in it, and which of `rows` are of this block."""
    numbers = np.array(list(rows), np.int64)
    blocks, places = numbers // _BLOCK_ROWS, (numbers % _BLOCK_ROWS).astype(np.uint8)
    for block in np.unique(blocks).tolist():
        is_of_block = blocks == block
        yield block, places[is_of_block], is_of_block


def _stored_block(connection: apsw.Connection, block: int) -> tuple[bytes, bytes]:
    """Places and codes of a block; nothing of a block that is not there."""
    found = connection.execute("SELECT places, codes FROM codes WHERE block = ?", (block,)).fetchone()
    return found or (b"", b"")


def _store_block(connection: apsw.Connection, block: int, places: bytes, codes: bytes) -> None:
    if places:
        connection.execute("INSERT OR REPLACE INTO codes VALUES (?, ?, ?)", (block, places, codes))
    else:
        connection.execute("DELETE FROM codes WHERE block = ?", (block,))


def _stored(connection: apsw.Connection, dim: int) -> Iterator[tuple[Rows, _Bytes]]:
    """Rows and codes of each block. Raises CorruptError."""
    for block, places, stored in connection.execute("SELECT block, places, codes FROM codes ORDER BY block"):
        numbers, codes = _arrays(places, stored)
        if 8 * codes.shape[1] != bits(dim):
            raise apsw.CorruptError(f"a code has not {bits(dim)} bits")
        yield block * _BLOCK_ROWS + numbers.astype(np.int64), codes


def _arrays(places: bytes, codes: bytes) -> tuple[_Bytes, _Bytes]:
    """The places (n) and codes (n, bits / 8) of a stored block. Raises CorruptError."""
    if not places or len(codes) % len(places):
        raise apsw.CorruptError("the codes of a block are not as many as its rows")
    return np.frombuffer(places, np.uint8), np.frombuffer(codes, np.uint8).reshape(len(places), -1)
