"""The indexes of a server: opened at its start, and again when their files are replaced; searched beside the loop.

Knows index files, their names for clients and threads; nothing of HTTP, nor how a query becomes a vector.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from q3e_local.errors import (
    IndexFileError,
    ModelError,
    ModelNotHereError,
    OptionError,
    Q3EError,
    SpaceMismatchError,
)
from q3e_local.files import identity
from q3e_local.models import installed
from q3e_local.models.names import served_as
from q3e_local.search.ask import Question, ask
from q3e_local.search.database import Database
from q3e_local.search.database.records import Facts, IndexSpace, Passages
from q3e_local.search.hits import Found
from q3e_local.search.places import SUFFIX, existing, names, option_of, quoted
from q3e_local.server.errors import IndexUnusableError, QueueFullError, RebuiltError, StoppingError, UnknownIndexError
from q3e_local.server.served_names import ServedNames
from q3e_local.server.settings import ServerSettings

logger = logging.getLogger(__name__)

# Characters of a passage that an answer has. A chunk of a file is far shorter; a text that a program added may be of
# any length, and an answer has up to 200 passages.
TEXT_MAX = 20_000

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Made:
    """The space of an index's vectors, and the name that their model has on this server; None for no model's."""

    space: IndexSpace
    model: str | None


class Index:
    """One index of a server. The next search sees what other processes do to its file.

    A thread for each index reads the file, so that a search waits for other searches of the same index alone.
    """

    def __init__(self, name: str, path: Path, settings: ServerSettings) -> None:
        self.name, self.path = name, path
        self.n_searches, self.seconds = 0, 0.0
        self._settings, self._n_waiting, self._is_closed = settings, 0, False
        self._database: Database | None = None
        self._file: tuple[int, int] | None = None  # device and number of the file that is open
        database = self._opened()
        try:
            self.made = Made(database.space, _served_model(path, database.space, settings))
            with database.snapshot() as state:
                self.n_chunks_at_start = state.n_chunks()
                state.read_codes()
        except BaseException:
            database.close()
            raise
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"index {name}")

    async def search(self, question: Question, space: IndexSpace) -> Found:
        """The hits for a question whose vector is of a model and dim of `space`.

        Raises RebuiltError where the index is of another space by now, IndexUnusableError, QueueFullError.
        """

        def answer(database: Database) -> Found:
            if not database.space.is_same(space):
                raise RebuiltError(f"the index {self.name!r} was rebuilt meanwhile")
            began = time.perf_counter()
            try:
                with database.snapshot() as state:
                    return ask(state, question)
            finally:
                self.n_searches += 1
                self.seconds += time.perf_counter() - began

        return await self._run(answer)

    async def passages(self, ids: Sequence[str], n_around: int = 0) -> Passages:
        """The passages of these ids; with `n_around`, the first one's with so many before and behind it in its file.

        All comes from the index, and nothing from the files. Raises IndexUnusableError, QueueFullError.
        """

        def answer(database: Database) -> Passages:
            with database.snapshot() as state:
                return state.around(ids[0], n_around) if n_around else Passages(state.named(ids))

        return await self._run(answer)

    async def facts(self) -> Facts:
        """Counts of the index. Brings `made` up to date. Raises IndexUnusableError, QueueFullError."""
        return await self._run(Database.facts)

    async def read(self, work: Callable[[Database], Answer]) -> Answer:
        """What `work` reads in the index. Raises what it raises, IndexUnusableError, QueueFullError."""
        return await self._run(work)

    def unusable(self, error: IndexFileError) -> IndexUnusableError:
        """What clients are told of this error. Only the log has the file's path: they know the index by its name."""
        logger.warning("the index %s cannot be searched: %s", self.name, error)
        why = "its file is gone" if not self.path.exists() else "the server's log says why"
        return IndexUnusableError(f"the index {self.name!r} cannot be searched: {why}")

    def close(self) -> None:
        """Close the file once the search that runs has ended; those that wait are refused."""
        self._is_closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._database is not None:
            self._database.close()

    async def _run(self, work: Callable[[Database], Answer]) -> Answer:
        if self._is_closed:
            raise StoppingError
        if self._n_waiting >= self._settings.max_queue:
            raise QueueFullError(
                f"the index {self.name!r} has {self._n_waiting} searches to do already; try again in 1 s", 1
            )
        self._n_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._done, work)
        finally:
            self._n_waiting -= 1

    def _done(self, work: Callable[[Database], Answer]) -> Answer:
        """Work on the index's thread."""
        try:
            try:
                return work(self._current())
            except SpaceMismatchError:  # another process rebuilt it in place
                self._forget()
                return work(self._current())
        except IndexFileError as error:
            self._forget()  # until the next search, which may find a sound file
            raise self.unusable(error) from None

    def _current(self) -> Database:
        """The database, opened again where its file is not the one that is open."""
        if self._database is not None and self._file is not None and self._file == identity(self.path):
            return self._database
        self._forget()
        database = self._opened()
        if not self.made.space.is_same(database.space):
            logger.info("the index %s holds %s now", self.name, database.space)
            try:
                model = _served_model(self.path, database.space, self._settings)
            except (ModelError, SpaceMismatchError):  # a search by words needs no model
                model = database.space.model
            self.made = Made(database.space, model)
        return database

    def _opened(self) -> Database:
        # Before the file is opened: where it is replaced in between, the next search sees that.
        self._file = identity(self.path)
        self._database = Database.open(self.path)
        return self._database

    def _forget(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None


class Indexes:
    """All indexes of a server, by the names that clients know them by. Close them when done."""

    def __init__(self, settings: ServerSettings, leave_out: Callable[[str, Q3EError], None] | None = None) -> None:
        """Raises IndexFileError, OptionError for a name twice, and what is wrong with the model of an index.

        With `leave_out`, which is told of it, an index that cannot be used is left out instead.
        """
        self._indexes: dict[str, Index] = {}
        try:
            for given in settings.indexes:
                try:
                    self._open(_file_of(given), settings)
                except Q3EError as error:
                    if leave_out is None:
                        raise
                    leave_out(given, error)
        except BaseException:
            self.close()
            raise

    def _open(self, file: Path, settings: ServerSettings) -> None:
        """Open the index of this file, unless it is open already."""
        other = self._indexes.get(file.stem)
        if other is None:
            self._indexes[file.stem] = Index(file.stem, file, settings)
        elif other.path != file:
            raise OptionError(f"{other.path} and {file} would both be served as {file.stem!r}; rename one of them")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._indexes)

    def get(self, name: str | None) -> Index:
        """The index of this name; without a name, the only index. Raises UnknownIndexError, or OptionError."""
        if not self._indexes:
            raise UnknownIndexError("this server has no index; start it with one: q3e-local serve --index NAME")
        if name is None and len(self._indexes) == 1:
            return next(iter(self._indexes.values()))
        there_are = f"there are {', '.join(self._indexes)}"
        if name is None:
            raise OptionError(f"index is required: {there_are}", "index")
        if name not in self._indexes:
            raise UnknownIndexError(f"there is no index {name[:100]!r} here; {there_are}")
        return self._indexes[name]

    def __iter__(self) -> Iterator[Index]:
        return iter(self._indexes.values())

    def counters(self) -> dict[str, float]:
        """What was counted since the start, over all indexes."""
        return {
            "n_searches": sum(each.n_searches for each in self._indexes.values()),
            "search_seconds": sum(each.seconds for each in self._indexes.values()),
        }

    def close(self) -> None:
        """Close them all; twice is fine."""
        for index in self._indexes.values():
            index.close()

    def __enter__(self) -> Indexes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def path_of(index: str) -> Path | None:
    """The path that `--index` means; None for a name in the data folder, which comes before a file's."""
    is_path = index.endswith(SUFFIX) or any(each and each in index for each in (os.sep, os.altsep))
    return Path(index).expanduser() if is_path or (index not in names() and Path(index).is_file()) else None


def _file_of(index: str) -> Path:
    """The file that `--index` means. Raises IndexFileError, or OptionError for what can be no index's name."""
    path = path_of(index)
    try:
        file = (existing(name=index) if path is None else existing(path)).absolute()
    except OptionError:
        raise OptionError(f"an index is named, or given as the path of a {SUFFIX} file; got {index!r}") from None
    if not file.stem.isprintable():  # JSON could not carry the name
        raise OptionError(f"{str(file)!r} has a name that is no text; rename it")
    return file


def _served_model(path: Path, space: IndexSpace, settings: ServerSettings) -> str | None:
    """The name under which this server has the model that made an index's vectors; None for the user's own vectors.

    Raises ModelNotHereError, or SpaceMismatchError where another file has its name.
    """
    if not space.digest:
        return None
    served, other_digest = ServedNames(settings), ""
    recorded = [] if installed.path_of(space.model) else [space.model]
    for name in dict.fromkeys(
        (*recorded, *map(served_as, settings.models), *(model.name for model in installed.installed()))
    ):
        with suppress(ModelError, OptionError):
            info = served.resolve(name).located.inspect()
            if info.digest == space.digest:
                return name
            if name == space.model:
                other_digest = info.digest
    rebuild = f"or embed it anew with a model that is: q3e-local index rebuild{option_of(path)} -m MODEL"
    if other_digest:
        raise SpaceMismatchError(
            f"{path} holds {space} (file {space.digest[:8]}), and {space.model} on this machine is another file "
            f"({other_digest[:8]}); serve the one that made it with -m FILE, {rebuild}"
        )
    how = f"-m {quoted(space.model)}" if not recorded else f"q3e-local pull {space.model}"
    raise ModelNotHereError(f"{path} holds {space}, a model that is not served here; bring it with: {how}, {rebuild}")
