"""An index into a vector store: its chunks as rows, and `send`, which brings the store up to date with the index.

Knows chunks and rows; nothing of stores.
"""

from __future__ import annotations

from collections.abc import Callable

from q3e_local.search.database import Database
from q3e_local.search.database.records import Entry, Facts, IndexSpace
from q3e_local.stores.filling import Filling
from q3e_local.stores.rows import FieldType, Row, Shape, Value, digest_of
from q3e_local.vectors import Vectors

_FIELDS: dict[str, FieldType] = {
    "file": "text", "headings": "text", "page": "integer", "line": "integer", "last_line": "integer",
    "start": "integer", "end": "integer",
}  # fmt: skip
_N_WINDOW = 256


def shape_of(space: IndexSpace) -> Shape:
    """What the rows of an index have in common."""
    return Shape(space.model, space.name, space.dim, _FIELDS)


def source_of(facts: Facts) -> str:
    """The name under which a store knows what an index sent. It stays when the index is moved or rebuilt.

    The moment when the index was made tells indexes apart, to the microsecond: paths would not, of two machines.
    """
    return f"index-{round(facts.created_at * 1e6):x}"


def send(database: Database, filling: Filling, progress: Callable[[int], None] = lambda n_chunks: None) -> int:
    """Send all chunks that the store does not have as they are now, and delete there what the index no longer has.

    Returns how many chunks the index has, all of one state, whatever is written meanwhile. `progress` is called with
    how many chunks were compared or sent.
    """
    ids: set[str] = set()
    for window in database.entries(_N_WINDOW):
        for entry, vector in zip(window.entries, window.vectors, strict=True):
            row = _row(entry, vector)
            if not filling.has(row.id, row.digest):
                filling.put(row, vector)
            ids.add(row.id)
        progress(len(ids))
    filling.flush()
    filling.delete_others(ids)
    filling.finish()
    return len(ids)


def _row(entry: Entry, vector: Vectors) -> Row:
    chunk = entry.chunk
    fields: dict[str, Value] = {
        "file": entry.file, "headings": " > ".join(chunk.headings) or None, "page": chunk.page, "line": chunk.line,
        "last_line": chunk.last_line, "start": chunk.start, "end": chunk.end,
    }  # fmt: skip
    digest = digest_of(entry.id, chunk.text, repr(fields), vector.tobytes())
    return Row(entry.id, chunk.text, fields, digest)
