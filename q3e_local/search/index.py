"""Search over one's own texts: `VectorIndex`.

Joins an embedder and a database. Knows nothing of SQL, of reading files or of terminals.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path

import numpy as np

from q3e_local.embedding.request import DIM_MIN, EmbedRequest
from q3e_local.embedding.stream import Progress
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import OptionError, Q3EError, SpaceMismatchError
from q3e_local.reranking.rank_model import RankModel
from q3e_local.search.ask import Question, ask
from q3e_local.search.database import Database
from q3e_local.search.database.connection import has_bytes
from q3e_local.search.database.index_file import rebuild_command
from q3e_local.search.database.records import Chunk, Facts, Filters, IndexSpace, Window
from q3e_local.search.documents import space_of
from q3e_local.search.hits import MODES, Found, Hit, Mode
from q3e_local.search.reranked import Reading, second_stage
from q3e_local.vectors import Vectors, finish
from q3e_local.wording.counts import counted

__all__ = ["Found", "Hit", "Mode", "VectorIndex"]

K_MAX = 10_000
DIM_MAX = 65_536  # of vectors that no known model made
_BATCH = 512  # texts of one transaction


class VectorIndex:
    """Texts in one file, found by meaning and by words. Safe to use from several threads; close it when done.

        with q3e_local.load() as embedder, q3e_local.VectorIndex("notes.q3e", embedder, dim=512) as index:
            index.add(["…", "…"], ids=["a", "b"])
            for hit in index.search("what did we decide about the budget?"):
                print(hit.score, hit.id, hit.text)

    The file is made if it is missing; `dim` is then that of its vectors, and None the model's own. An open Database
    can stand in place of the path, and is closed with the index. Without an embedder the index searches words, or
    vectors that you bring. `task` and `instruction` are those of the documents, as of Embedder.embed_documents.
    Raises SpaceMismatchError for a file of another model, dim or instruction, and IndexFileError for a file that
    cannot be used. Without an instruction any file of the model can be searched; `add` needs the instruction that the
    texts of the file have.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Database,
        embedder: TextModel | None = None,
        dim: int | None = None,
        *,
        task: str | None = None,
        instruction: str | None = None,
    ) -> None:
        self.embedder = embedder
        self._task, self._instruction = task, instruction
        self.database = path if isinstance(path, Database) else self._opened(path, dim)
        self.path = self.database.path
        try:
            self._check(dim)
        except BaseException:
            if self.database is not path:
                self.close()
            raise

    @property
    def space(self) -> IndexSpace:
        """What made the vectors."""
        return self.database.space

    @property
    def dim(self) -> int:
        return self.space.dim

    def __len__(self) -> int:
        with self.database.snapshot() as state:
            return state.n_chunks()

    def __repr__(self) -> str:
        try:
            holds = f"{counted(len(self), 'text')}, {self.space}"
        except Q3EError as error:  # closed, or deleted meanwhile
            holds = str(error).removeprefix(f"{self.path} ")
        return f"<VectorIndex {self.path}: {holds}>"

    def add(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None = None,
        *,
        truncate: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Embed and store texts: their ids. An id that is there already gets the new text; without ids, they are new.

        Stored by hundreds: after an error, the texts before it are there. Raises TextError, OptionError.
        """
        if self.embedder is None:
            raise OptionError("without an embedder no text can be added; give VectorIndex one, or use add_vectors")
        space = space_of(self.embedder, self.dim, self._task, self._instruction)
        if not space.is_same(self.space):
            raise SpaceMismatchError(
                f"{self.path} holds {self.space.beside(space)}, and would get {space.beside(self.space)}; give "
                "VectorIndex the task or instruction of its texts, or embed all anew with",
                rebuild_command(self.path, self.space, space),
            )
        texts = _listed(texts, ids)
        request = EmbedRequest(texts, "document", self._task, self._instruction, self.dim, truncate)
        added: list[str] = []
        waiting: list[Vectors] = []

        def store() -> None:
            batch, vectors = slice(len(added), len(added) + len(waiting)), np.array(waiting)
            waiting.clear()
            if len(vectors):
                added.extend(self._put(texts[batch], vectors, None if ids is None else ids[batch]))

        try:
            for item in self.embedder.stream(request, progress):
                if isinstance(item, Exception):
                    raise item
                waiting.append(item.vector)
                if len(waiting) == _BATCH:
                    store()
        finally:
            store()
        return added

    def add_vectors(self, texts: Sequence[str], vectors: Vectors, ids: Sequence[str] | None = None) -> list[str]:
        """Store texts with vectors (n, dim) of your own, which are scaled to length 1: their ids, as `add`."""
        texts = _listed(texts, ids)
        rows = np.asarray(vectors, np.float32)
        if rows.shape != (len(texts), self.dim):
            raise OptionError(f"vectors must have shape {(len(texts), self.dim)}, got {rows.shape}")
        return self._put(texts, _scaled(rows), ids)

    def delete(self, ids: Iterable[str]) -> int:
        """Forget texts by id: how many there were."""
        return self.database.delete([ids] if isinstance(ids, str) else ids)

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        mode: Mode = "auto",
        exact: bool = False,
        task: str | None = None,
        instruction: str | None = None,
        path: str | None = None,
        since: datetime | date | float | None = None,
        rerank: int | bool | None = None,
        reranker: RankModel | None = None,
        rerank_seconds: float | None = None,
        rerank_progress: Reading | None = None,
    ) -> Found:
        """The k best for a question.

        `mode`: "vectors" by meaning, "words" by bm25, "hybrid" by both; "auto" is by both where the query has
        something that is meant to the letter, or rare. `exact` compares all full vectors. `task` and `instruction`
        are the query's. `path` is a glob on files, `since` a time of their change (for one's own texts: of adding).

        A `reranker` reads the first 10 hits, or the first `rerank`, with the question, and orders them by that; after
        `rerank_seconds` it reads no more, and the rest follows in its order. `score` stays the cosine.
        """
        if mode not in MODES:
            raise OptionError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if not isinstance(query, str) or not query.strip():
            what = "is empty" if isinstance(query, str) else f"must be a str, got {type(query).__name__}"
            raise OptionError(f"the query {what}")
        filters = _filters(path, since)
        stage = second_stage(reranker, rerank, rerank_seconds, rerank_progress)
        vector: Vectors | None = None
        cut: tuple[str, ...] = ()
        if self.embedder is not None:
            embedded = self.embedder.embed_query(query, self.dim, task=task, instruction=instruction, truncate=True)
            vector = embedded.vectors[0]
            cut = (f"the query was cut to {embedded.prompt_tokens[0]} tokens",) if embedded.truncated[0] else ()
        elif mode in ("vectors", "hybrid"):
            raise OptionError(f"mode {mode!r} needs a model; give VectorIndex an embedder, or use search_vector")
        n = max(_checked(k), 0 if stage is None else stage.n_candidates)
        found = self._ask(Question(query, vector, n, mode, exact, filters))
        found = replace(found, explained=cut + found.explained)
        return found if stage is None else stage.applied(found, query, k, task=task, instruction=instruction)

    def search_vector(
        self,
        vector: Vectors,
        k: int = 5,
        *,
        exact: bool = False,
        path: str | None = None,
        since: datetime | date | float | None = None,
    ) -> Found:
        """The k nearest to a vector (dim,) of the index's space, which is scaled to length 1."""
        query = _scaled(np.asarray(vector, np.float32).reshape(1, -1))[0]
        return self._ask(Question("", query, _checked(k), "vectors", exact, _filters(path, since)))

    def entries(self, n_window: int = 1024) -> Iterator[Window]:
        """All texts with their vectors, a window at a time."""
        return self.database.entries(n_window)

    def facts(self) -> Facts:
        """What is in it, and how large it is."""
        return self.database.facts()

    def close(self) -> None:
        """Close the file, not the embedder; twice is fine."""
        self.database.close()

    def __enter__(self) -> VectorIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, question: Question) -> Found:
        with self.database.snapshot() as state:
            return ask(state, question)

    def _opened(self, path: str | os.PathLike[str], dim: int | None) -> Database:
        path = Path(path).expanduser().absolute()
        return Database.open(path) if has_bytes(path) else Database.create(path, self._new_space(path, dim))

    def _new_space(self, path: Path, dim: int | None) -> IndexSpace:
        """The space of a file that is made."""
        if self.embedder is not None:
            return space_of(self.embedder, dim, self._task, self._instruction)
        if dim is None:
            raise OptionError(f"{path} is not there yet; give a model, or the dim of your own vectors")
        if type(dim) is not int or not 1 <= dim <= DIM_MAX:
            raise OptionError(f"dim must be between 1 and {DIM_MAX}, got {dim!r}", "dim")
        return IndexSpace("", "", dim)

    def _check(self, dim: int | None) -> None:
        """Raise SpaceMismatchError or OptionError where the embedder, or this dim, is not of the file's space."""
        held = self.space
        if self.embedder is None:
            if dim is not None and dim != held.dim:
                raise OptionError(f"{self.path} holds {held}, not {dim}-dim ones")
            return
        # A dim that this model cannot make is of another model's file, which the error below names.
        if dim is None and DIM_MIN <= held.dim <= self.embedder.n_embd:
            dim = held.dim
        space = space_of(self.embedder, dim, self._task, self._instruction)
        if self._task is None and self._instruction is None:  # questions are compared with whatever was embedded
            space = replace(space, prefix=held.prefix)
        self.database.check_holds(space)

    def _put(self, texts: Sequence[str], vectors: Vectors, ids: Sequence[str] | None) -> list[str]:
        return self.database.put(ids, [Chunk(text, 0, len(text)) for text in texts], vectors)


def _listed(texts: Sequence[str], ids: Sequence[str] | None) -> list[str]:
    if isinstance(texts, str) or isinstance(ids, str):
        raise OptionError("texts and ids must be lists, got one str; put it in a list")
    texts = list(texts)
    if ids is not None and len(ids) != len(texts):
        raise OptionError(f"there are {len(ids)} ids for {len(texts)} texts; give one for each")
    for name, n_times in Counter(ids or ()).items():
        if n_times > 1:
            raise OptionError(f"the id {name!r} is given twice")
    return texts


def _scaled(vectors: Vectors) -> Vectors:
    if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
        raise OptionError("a vector is all zeros, or holds what is no number")
    return finish(vectors)


def _checked(k: int) -> int:
    if type(k) is not int or not 1 <= k <= K_MAX:
        raise OptionError(f"k must be between 1 and {K_MAX}, got {k!r}")
    return k


def _filters(path: str | None, since: datetime | date | float | None) -> Filters:
    if path is not None and not isinstance(path, str):
        raise OptionError(f"path must be a glob in a str, such as '*.md' or 'notes/**', got {path!r}")
    if isinstance(since, date) and not isinstance(since, datetime):
        since = datetime.combine(since, time.min)  # a day begins at midnight here
    if isinstance(since, datetime):
        since = since.timestamp()
    if since is not None and not (isinstance(since, int | float) and math.isfinite(since)):
        raise OptionError(f"since must be a date, a datetime or seconds since 1970, got {since!r}")
    return Filters(path, since)
