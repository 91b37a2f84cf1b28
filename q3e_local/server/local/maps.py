"""Maps of indexes and of texts: where each passage lies on a plane, its cluster, and the words that name a cluster.

A map is computed once for a state of an index, on a thread of its own, and kept in memory until the index changes.
Knows index files and jobs; nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from q3e_local import jobs
from q3e_local.errors import IndexFileError, MissingPackageError, OptionError, SpaceMismatchError
from q3e_local.search.database import Database
from q3e_local.search.database.query_words import tokens
from q3e_local.search.database.records import Entry
from q3e_local.server.errors import RebuiltError
from q3e_local.server.local.indexes import Index
from q3e_local.vectors import Vectors, finish

POINTS_MAX = 20_000  # of a larger index as many passages are taken, evenly
# Of longer vectors the beginning: it lays texts out as the whole does, in a fraction of the memory.
_DIM_MAX = 512
_MAPPED_MIN = 2


@dataclass(frozen=True)
class Themed:
    """A cluster: the words that name it, its most central text by its place in the map, and how many texts it has."""

    words: tuple[str, ...]
    central: int
    size: int


@dataclass(frozen=True, eq=False)
class Drawn:
    """Points (n, 2) from 0 to 1, each with the number of its cluster (n,); no clusters where `no_clusters` says why.

    `entries` are of an index's map: the passages of the points, without their texts.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.intp]
    clusters: tuple[Themed, ...]
    central_texts: tuple[str, ...]
    no_clusters: str = ""
    entries: tuple[tuple[str, str | None], ...] = ()  # id and file
    n_all: int = 0  # passages of the index, of which those here were taken


class Work:
    """A map that is being made: which step, how far it is, and in the end the map or what went wrong."""

    def __init__(self, state: tuple[object, ...]) -> None:
        self.state = state
        self.step, self.n_done, self.n_total = "read", 0, 0
        self.drawn: Drawn | None = None
        self.error: Exception | None = None
        self.was_answered = False

    def tell(self, step: str, n_done: int = 0, n_total: int = 0) -> None:
        self.step, self.n_done, self.n_total = step, n_done, n_total


class Maps:
    """The maps of a server. One of an index is made at a time and one of texts, because each takes all of a core."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self._turn = threading.Lock()
        # Not the threads that all requests share: a client that leaves does not end the work on its map.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="map of texts")

    async def of_texts(self, texts: Sequence[str], vectors: Vectors) -> Drawn:
        """The map of some texts and their vectors. Raises OptionError for fewer than two."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, _drawn, Work(()), texts, vectors)

    async def of(self, index: Index) -> Work:
        """The map of this index, or the work on it: a call begins one where there is none of the index as it is now.

        An error of that work is raised once, and the next call begins again. Raises IndexUnusableError,
        QueueFullError, and OptionError for an index of fewer than two passages.
        """
        facts = await index.facts()
        _check_number(facts.n_chunks)
        state = (facts.changed_at, facts.n_chunks, facts.space)
        work = self._works.get(index.name)
        # A map that was begun is answered once, so that an index that changes all the time is seen too.
        if work is None or (work.was_answered and work.state != state):
            work = self._works[index.name] = Work(state)
            # Not a thread of a pool: Python would wait for it at the server's end.
            threading.Thread(target=self._make, args=(work, index, facts.n_chunks), daemon=True).start()
        if work.error is not None:
            del self._works[index.name]
            raise work.error
        work.was_answered = work.drawn is not None
        return work

    def _make(self, work: Work, index: Index, n_all: int) -> None:
        try:
            with self._turn:
                work.drawn = _of_index(work, index.path, n_all)
        except IndexFileError as error:
            work.error = index.unusable(error)
        except SpaceMismatchError:
            work.error = RebuiltError(f"the index {index.name!r} was rebuilt meanwhile; ask again")
        except Exception as error:
            work.error = error


def _check_number(n_passages: int) -> None:
    if n_passages < _MAPPED_MIN:
        raise OptionError(f"a map needs {_MAPPED_MIN} passages or more, the index has {n_passages}", "index")


def _of_index(work: Work, path: Path, n_all: int) -> Drawn:
    entries: list[Entry] = []
    parts: list[Vectors] = []
    step = max(1.0, n_all / POINTS_MAX)
    n_read = n_taken = 0
    with Database.open(path) as database:
        dim = database.space.dim
        # Vectors of no known model need not be of a kind that can be cut.
        cut = min(dim, _DIM_MAX) if database.space.digest else dim
        for window in database.entries():
            places = []
            for place in range(len(window.entries)):
                if n_read + place >= n_taken * step:
                    places.append(place)
                    n_taken += 1
            entries += [window.entries[place] for place in places]
            parts.append(finish(window.vectors[places], cut))
            n_read += len(window.entries)
            work.tell("read", n_read, n_all)
    _check_number(n_read)  # another process may have taken passages away since they were counted
    texts = [entry.chunk.embedded for entry in entries]
    found = _drawn(work, texts, np.concatenate(parts))
    named = tuple((entry.id, entry.file) for entry in entries)
    return replace(found, entries=named, n_all=n_read)


def _drawn(work: Work, texts: Sequence[str], vectors: Vectors) -> Drawn:
    work.tell("place")
    points = jobs.plot(vectors).points
    work.tell("cluster")
    try:
        parted = jobs.cluster(vectors, progress=lambda n_done, n_total: work.tell("cluster", n_done, n_total))
    except MissingPackageError as error:
        return Drawn(points, np.zeros(len(points), np.intp), (), (), str(error))
    work.tell("names")
    words = jobs.key_words(texts, parted.labels.tolist(), tokens)
    clusters = tuple(
        Themed(named, group.rows[0], len(group.rows)) for named, group in zip(words, parted.clusters, strict=True)
    )
    return Drawn(points, parted.labels, clusters, tuple(texts[each.central] for each in clusters))
