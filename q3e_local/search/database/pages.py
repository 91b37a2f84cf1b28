"""How large the pages of an index file are, by the size of its vectors.

Knows SQLite's file format alone: https://sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

_SIZES = (4096, 8192, 16384, 32768, 65536)
_CELL_BYTES = 9  # a row has beside its record: its place, its length, its number
_HEADER_BYTES = 5  # the record begins with: the type of its column


def page_bytes(dim: int) -> int:
    """The smallest page in which vectors of this dim waste no more than a seventh of the room.

    In the usual 4,096 bytes a vector of 512 numbers would waste half. In a page that is larger than needed, more is
    read for each vector and written for each change.
    """
    n_bytes = 4 * dim
    fitting = (size for size in _SIZES if stored_bytes(n_bytes, size) <= n_bytes * 7 / 6)
    return next(fitting, _SIZES[0])  # of so short vectors SQLite itself takes more room than any page wastes


def stored_bytes(n_bytes: int, size: int) -> float:
    """The room that a vector of so many bytes takes in pages of this size, with its share of the wasted room."""
    payload = n_bytes + _HEADER_BYTES
    if payload <= size - 35:
        return size / ((size - 8) // (payload + _CELL_BYTES))
    # Too long for a page: SQLite keeps a part in the page and the rest in overflow pages.
    least = (size - 12) * 32 // 255 - 23
    most = least + (payload - least) % (size - 4)
    local = most if most <= size - 35 else least
    n_pages = -(-(payload - local) // (size - 4))
    return n_pages * size + size / ((size - 8) // (local + 4 + _CELL_BYTES))
