"""What holds for every store: an index goes there, again and again, is found there, and nothing else is touched.

A `Case` looks into a store with the store's own library, never through ours. Expected neighbours are those of our
exact search, expected rows those that were put into the index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from made_indexes import exact, ids, record, space, vectors

from q3e_local.errors import OutputError, SpaceMismatchError
from q3e_local.search.database import Database
from q3e_local.search.database.records import Chunk
from q3e_local.search.sending import send, shape_of, source_of
from q3e_local.stores.address import parse
from q3e_local.stores.filling import Filling
from q3e_local.stores.opening import opened

# What SQL, filters and expressions of stores may trip over, in ids and in texts.
HOSTILE = ["it's", 'a "quoted" id', "back\\slash", "new\nline", "百分之六 %s {} $1", "x" * 300, "-- ; DROP TABLE q3e"]


class Case(Protocol):
    """A collection as the store's own library sees it."""

    address: str

    def nearest(self, vector: np.ndarray, k: int) -> list[str]:
        """Our ids of the nearest rows, best first."""

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """All rows by our id, with their fields."""

    def put_own(self, name: str, vector: np.ndarray) -> None:
        """Put a row there as somebody else would, without our fields."""


def make_index(path: Path, n_files: int = 8, n_chunks: int = 9, dim: int = 32) -> None:
    """An index with files of some chunks and texts with hostile ids."""
    with Database.create(path, space(dim)) as database:
        for number in range(n_files):
            chunks = [
                Chunk(
                    f"text {number} {part}",
                    10 * part,
                    10 * part + 8,
                    ("Head", "Sub") if part % 2 else (),
                    line=part + 1,
                )
                for part in range(n_chunks)
            ]
            database.replace_file(record(f"notes/{number}.md"), chunks, vectors(n_chunks, number, dim))
        database.put(HOSTILE, [Chunk(f"text of {name}", 0, 9) for name in HOSTILE], vectors(len(HOSTILE), 99, dim))


def export(path: Path, address: str, progress: Callable[[int], None] = lambda n: None) -> Filling:
    """What `index export --to` does: the counts are in what is returned."""
    found = parse(address)
    assert found is not None
    with Database.open(path) as database, opened(found) as store:
        filling = Filling(store, str(found), shape_of(database.space), source_of(database.facts()))
        send(database, filling, progress)
    return filling


def check_the_same_is_found(case: Case, path: Path, dim: int = 32) -> None:
    make_index(path, dim=dim)
    assert export(path, case.address).n_sent == 8 * 9 + len(HOSTILE)
    with Database.open(path) as database:
        for query in vectors(6, 1234, dim):
            assert case.nearest(query, 10) == ids(database, exact(database, query, 10))
        entries = {entry.id: entry for window in database.entries() for entry in window.entries}
    rows = case.rows()
    assert rows.keys() == entries.keys()
    for name, entry in entries.items():
        chunk, row = entry.chunk, rows[name]
        assert row["text"] == chunk.text
        assert row.get("file") == entry.file
        assert row.get("headings") == (" > ".join(chunk.headings) or None)
        assert (row.get("line"), row.get("page")) == (chunk.line, None)
        assert (row["start"], row["end"]) == (chunk.start, chunk.end)


def check_again_sends_what_changed_and_deletes_what_is_gone(case: Case, path: Path) -> None:
    make_index(path)
    first = export(path, case.address)
    again = export(path, case.address)
    assert (again.n_sent, again.n_deleted, again.n_there) == (0, 0, first.n_sent)
    # By cosine its length does not count; by Euclidean distance it would be far from everything.
    own = vectors(1, 77)[0]
    case.put_own("my own", 5 * own)
    assert case.nearest(own, 1) == ["my own"]
    with Database.open(path) as database:
        database.remove_files(["notes/0.md"])
        changed = [Chunk("another text", 0, 12, page=3), Chunk("text 1 1", 10, 18, ("Head", "Sub"), line=2)]
        database.replace_file(record("notes/1.md"), changed, vectors(2, 500))
    last = export(path, case.address)
    # Two chunks of the changed file are new, its other seven and the nine of the file that is gone go.
    assert (last.n_sent, last.n_deleted) == (2, 16)
    rows = case.rows()
    with Database.open(path) as database:
        expected = {entry.id for window in database.entries() for entry in window.entries}
        query = vectors(2, 500)[0]
        assert case.nearest(query, 1) == ids(database, exact(database, query, 1)) == ["notes/1.md#0"]
    assert rows.keys() == expected | {"my own"}
    row = rows["notes/1.md#0"]
    assert (row["text"], row.get("page"), row.get("line")) == ("another text", 3, None)


def check_an_interrupted_export_goes_on(case: Case, path: Path) -> None:
    make_index(path, n_files=40, n_chunks=20)  # 800 chunks and the hostile ones, in windows of 256

    def stop(n_chunks: int) -> None:
        raise KeyboardInterrupt

    address = parse(case.address)
    assert address is not None
    with Database.open(path) as database, opened(address) as store:
        store.n_batch = 100
        filling = Filling(store, case.address, shape_of(database.space), source_of(database.facts()))
        with pytest.raises(KeyboardInterrupt):
            send(database, filling, stop)
    assert filling.n_sent == 200
    assert len(case.rows()) == 200
    rest = export(path, case.address)
    assert (rest.n_sent, rest.n_there) == (607, 807)
    assert len(case.rows()) == 807


def check_rows_of_others_are_left_alone(case: Case, path: Path) -> None:
    with Database.create(path, space(32)):
        pass
    assert export(path, case.address).n_sent == 0  # an empty index makes an empty collection
    case.put_own("it's", vectors(1, 7)[0])
    before = case.rows()
    make_index(path)
    with pytest.raises(OutputError, match=r"has rows with the ids \"it's\" that this export did not put there"):
        export(path, case.address)
    assert case.rows()["it's"] == before["it's"]
    # Another index with the same ids is somebody else too.
    other = path.with_name("other.q3e")
    with Database.create(other, space(32)) as database:
        database.put(["it's"], [Chunk("other", 0, 5)], vectors(1, 8))
    with pytest.raises(OutputError, match="that this export did not put there"):
        export(other, case.address)


def check_vectors_of_another_space_are_refused(case: Case, path: Path) -> None:
    make_index(path)
    export(path, case.address)
    before = case.rows()
    other = path.with_name("other.q3e")
    make_index(other, dim=16)
    with pytest.raises(SpaceMismatchError, match="holds 32-dim vectors of demo, not 16-dim vectors of demo"):
        export(other, case.address)
    assert case.rows() == before
