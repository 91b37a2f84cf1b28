"""A collection brought up to date: `Filling` sends what is new or changed and deletes what is gone.

A run that was interrupted, or is made again, sends only what the store does not have. Rows that somebody else put
there are neither replaced nor deleted. Knows no store and nothing of where rows come from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import numpy as np

from q3e_local.errors import OutputError
from q3e_local.stores.rows import Row, Shape, check
from q3e_local.stores.store import Store
from q3e_local.vectors import Vectors

_NAMED_AT_MOST = 3


class Filling:
    """Rows of one source on their way into one open store. `name` is the collection in messages.

    Raises SpaceMismatchError where the collection holds vectors of another space, OutputError where it cannot be
    used.
    """

    def __init__(self, store: Store, name: str, shape: Shape, source: str) -> None:
        self._store, self._name, self._source = store, name, source
        mark = store.mark()
        if mark is None:
            store.create(shape)
            self._there: dict[str, str] = {}
        else:
            check(mark, shape, name)
            self._there = store.digests(source)
        self._rows: list[Row] = []
        self._vectors: list[Vectors] = []
        self.n_sent = self.n_deleted = 0
        self.notes: Sequence[str] = ()

    @property
    def n_there(self) -> int:
        """How many rows of this source the store has."""
        return len(self._there)

    @property
    def keeps_parts(self) -> bool:
        """Whether rows stay in the store when the run ends before its time."""
        return self._store.keeps_parts

    def has(self, name: str, digest: str) -> bool:
        """Whether the store has the row of this id as it is now."""
        return self._there.get(name) == digest

    def put(self, row: Row, vector: Vectors) -> None:
        """Send a row, float32 (dim,), once a batch is full. Raises OutputError for the id of somebody else's row."""
        self._rows.append(row)
        self._vectors.append(vector)
        if len(self._rows) >= self._store.n_batch:
            self.flush()

    def flush(self) -> None:
        """Send what waits for its batch to be full."""
        rows, vectors = self._rows, self._vectors
        self._rows, self._vectors = [], []
        if not rows:
            return
        self._check_free([row.id for row in rows if row.id not in self._there])
        self._store.upsert(rows, np.stack(vectors), self._source)
        self._there |= {row.id: row.digest for row in rows}
        self.n_sent += len(rows)

    def delete_others(self, kept: Collection[str]) -> None:
        """Delete the rows of this source whose ids are not among these."""
        gone = [name for name in self._there if name not in kept]
        for names in _parts(gone, self._store.n_batch):
            self._store.delete(names)
            for name in names:
                del self._there[name]
            self.n_deleted += len(names)

    def finish(self) -> None:
        """Send the rest, and leave the collection ready to be searched. What is to be known of it is in `notes`."""
        self.flush()
        self.notes = tuple(self._store.finish())

    def _check_free(self, ids: Sequence[str]) -> None:
        taken = [name for name in self._store.sources(ids) if name not in self._there] if ids else []
        if taken:
            named = ", ".join(map(repr, taken[:_NAMED_AT_MOST]))
            more = f" and {len(taken) - _NAMED_AT_MOST:,} more" if len(taken) > _NAMED_AT_MOST else ""
            raise OutputError(
                f"{self._name} has rows with the ids {named}{more} that this export did not put there (an index that "
                "was made anew counts as another), and they are left alone: name another collection with #NAME at "
                "the end of the address, or delete this one"
            )


def _parts(names: Sequence[str], n: int) -> Iterator[list[str]]:
    rest = iter(names)
    while part := list(islice(rest, n)):
        yield part
