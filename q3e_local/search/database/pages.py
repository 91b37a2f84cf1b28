"""How large the pages of an index file are, by the size of its vectors.

Knows SQLite's file format alone: https://sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

_SIZES = (4096, 8192, 16384, 32768, 65536)
_CELL_BYTES = 9  # of a row beside its record: where it is, its length, its number
_HEADER_BYTES = 5  # of the record: what its column is


def page_bytes(dim: int) -> int:
    """The smallest page of which vectors of this dim waste no more than a seventh.

    Of the usual 4,096 bytes a vector of 512 numbers would waste half. Of larger ones than needed, more is read for
    each vector and written for each change.
    """
    n_bytes = 4 * dim
    fitting = (size for size in _SIZES if stored_bytes(n_bytes, size) <= n_bytes * 7 / 6)
    return next(fitting, _SIZES[0])  # with so few numbers, what SQLite adds is more than what is left empty


def stored_bytes(n_bytes: int, size: int) -> float:
    """What a vector of so many bytes takes in a file of pages of this size, with its share of what is left empty."""
    payload = n_bytes + _HEADER_BYTES
    if payload <= size - 35:
        return size / ((size - 8) // (payload + _CELL_BYTES))
    # Too long for a page: a part of it stays, the rest fills pages of its own.
    least = (size - 12) * 32 // 255 - 23
    most = least + (payload - least) % (size - 4)
    local = most if most <= size - 35 else least
    n_pages = -(-(payload - local) // (size - 4))
    return n_pages * size + size / ((size - 8) // (local + 4 + _CELL_BYTES))
