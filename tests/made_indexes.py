"""Index files for tests: vectors, chunks and records that are made, what an index holds and answers, and to whom.

Expected answers come from NumPy over the vectors that were put in.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import numpy as np
from paths import TESTS

from q3e_local.search.database import Database
from q3e_local.search.database.query_words import terms_of
from q3e_local.search.database.records import NO_FILTERS, Chunk, FileRecord, Filters, IndexSpace, Ranked
from q3e_local.vectors import finish

DIM = 32


def space(dim: int) -> IndexSpace:
    return IndexSpace("demo", "ab" * 32, dim)


SPACE = space(DIM)


def vectors(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return finish(np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32))


def record(path: str, mtime: float = 0) -> FileRecord:
    return FileRecord(path, 10, round(mtime * 1e9), "digest", 7, "markdown")


def chunks(*texts: str) -> list[Chunk]:
    return [Chunk(text, 0, len(text)) for text in texts]


def texts_of(number: int) -> str:
    return f"{('alpha', 'beta', 'gamma-7', '第三季度预算复盘')[number % 4]} text {number}"


def nearest(database: Database, vector: np.ndarray, k: int, filters: Filters = NO_FILTERS) -> Ranked:
    with database.snapshot() as state:
        return state.nearest(vector, k, filters)


def exact(database: Database, vector: np.ndarray, k: int, filters: Filters = NO_FILTERS) -> Ranked:
    with database.snapshot() as state:
        return state.exact(vector, k, filters)


def by_words(database: Database, query: str, k: int = 50, filters: Filters = NO_FILTERS) -> Ranked:
    with database.snapshot() as state:
        return state.words(state.counted(terms_of(query)).found, k, filters)


def n_chunks(database: Database) -> int:
    with database.snapshot() as state:
        return state.n_chunks()


def ids(database: Database, ranked: Ranked) -> list[str]:
    with database.snapshot() as state:
        return [entry.id for entry in state.entries_of(ranked.rows)]


def by_numpy(names: list[str], stored: np.ndarray, query: np.ndarray, k: int) -> tuple[list[str], np.ndarray]:
    """Names and scores of the k best, equal ones by name."""
    scores = (stored.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    order = sorted(range(len(names)), key=lambda place: (-scores[place], names[place]))[:k]
    return [names[place] for place in order], scores[order]


def everything(database: Database) -> dict[str, object]:
    """All that is in it, without the numbers of rows."""
    found: dict[str, object] = {}
    for window in database.entries(7):
        for entry, vector in zip(window.entries, window.vectors, strict=True):
            found[entry.id] = (entry.chunk, entry.file, entry.mtime if entry.file else None, vector.tobytes())
    return found


def vectors_by_row(database: Database) -> dict[int, np.ndarray]:
    return {
        entry.row: vector
        for window in database.entries()
        for entry, vector in zip(window.entries, window.vectors, strict=True)
    }


def answers(database: Database) -> list[object]:
    """What it says to some questions by code, by full vectors and by words."""
    found: list[object] = []
    for vector in vectors(5, 99, database.space.dim):
        for search in (exact, nearest):
            ranked = search(database, vector, 6)
            found.append((ids(database, ranked), ranked.scores.round(6).tolist()))
    for query in ("alpha", "beta 预算", "gamma-7", "复"):
        with database.snapshot() as state:
            counted = state.counted(terms_of(query)).found
        terms = {term.match: n for term, n in counted.items()}
        found.append((terms, sorted(ids(database, by_words(database, query)))))
    return found


def stored_codes(path: Path) -> dict[int, bytes]:
    """The code of each row, as the table `codes` has it: 256 rows in a block, of which a byte tells each apart."""
    found = {}
    with apsw.Connection(str(path)) as connection:
        for block, places, codes in connection.execute("SELECT block, places, codes FROM codes"):
            n_bytes = len(codes) // len(places)
            for number, place in enumerate(places):
                assert 256 * block + place not in found
                found[256 * block + place] = codes[number * n_bytes : (number + 1) * n_bytes]
    return found


# The beginning of a program that opens an index as a user who may only read it. The program is a text and not a
# function, because the process must take on another user before it opens anything.
_AS_A_READER = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from made_indexes import *
from q3e_local.errors import IndexFileError
vectors(1)  # NumPy loads the rest of itself, which the user may not read
if os.getuid() == 0:  # whom rights do not bind
    os.setuid(65534)
with Database.open(sys.argv[1]) as database:
"""


@contextmanager
def reader(path: Path, block: str) -> Iterator[subprocess.Popen[str]]:
    """A process of a user who may only read the index; it runs a block of code with the open `database`."""
    lines = "".join(f"    {line}\n" for line in block.strip().splitlines())
    command = [sys.executable, "-c", _AS_A_READER + lines, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process


_WRITE = """
try:
    database.delete(["a"])
except IndexFileError as error:
    print(error)
"""


def said_by_a_reader(make: Callable[[Path], object], block: str) -> list[str]:
    """What a block of code prints, and how an attempt to write then ends, for a user who may write neither the index
    nor its folder.
    """
    with tempfile.TemporaryDirectory() as name:  # the folders of pytest are closed to others
        folder, path = Path(name), Path(name) / "a.q3e"
        make(path)
        path.chmod(0o444)
        folder.chmod(0o555)
        try:
            with reader(path, block + _WRITE) as process:
                said, errors = process.communicate()
        finally:
            folder.chmod(0o755)
    assert process.returncode == 0, errors
    return said.splitlines()
