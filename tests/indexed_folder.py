"""A folder that a test indexes with the fake engine, and what the index of it holds."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from command import write
from fake import FakeEngine

from q3e_local import Embedder
from q3e_local.search.database import Database
from q3e_local.search.documents import space_of
from q3e_local.search.indexing.folders import index_folders
from q3e_local.search.indexing.tally import Tally


class IndexedFolder:
    """A folder, and an index of it made with the fake. `engine` is the engine of the last run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.db = folder / "notes", folder / "notes.q3e"
        self.engine = FakeEngine()
        self.folder.mkdir()

    def index(self, *folders: Path, engine: FakeEngine | None = None, **options) -> Tally:
        self.engine = engine or FakeEngine()
        embedder = Embedder(self.engine, "fake")
        tally = Tally()
        load = options.pop("load", lambda space: (embedder, space_of(embedder)))
        index_folders(self.db, folders or [self.folder], load, tally, **options)
        return tally

    @property
    def embedded(self) -> list[str]:
        """The texts that the model computed, in no order."""
        return sorted(bytes(ids[:-1]).decode() for batch in self.engine.batches for ids in batch)

    @property
    def names(self) -> list[str]:
        """The names of the files that the index has text of."""
        return sorted(Path(path).name for path, record in Held(self.db).files.items() if not record.problem)


class Held:
    """What an index holds, without the times of indexing. Equal vectors may differ by the noise of their batches."""

    def __init__(self, db: Path) -> None:
        with Database.open(db) as database:
            files = database.files().items()
            self.files = {path: replace(record, indexed_at=0.0, size_bytes=0) for path, record in files}
            windows = list(database.entries())
        self.chunks = {entry.id: entry.chunk for window in windows for entry in window.entries}
        self.vectors = {
            entry.id: vector
            for window in windows
            for entry, vector in zip(window.entries, window.vectors, strict=True)
        }

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Held)
        return (self.files, self.chunks) == (other.files, other.chunks) and all(
            float(vector @ other.vectors[name]) > 0.9999 for name, vector in self.vectors.items()
        )

    __hash__ = None


def counts(tally: Tally) -> tuple[int, int, int, int]:
    """How many files are new, changed, unchanged and removed."""
    return tally.n_new, tally.n_changed, tally.n_unchanged, tally.n_removed


def reasons(tally: Tally) -> dict[str, str]:
    """Why files and folders were skipped, by their names."""
    return {skipped.path.name: skipped.reason for skipped in tally.skipped}


def never(space: object) -> None:
    """A `load` for runs that must not load a model."""
    raise AssertionError("no model is needed for this")


def many(folder: Path, n_files: int = 60) -> None:
    """Write files of 150 words."""
    choose = random.Random(1)
    words = [f"word{n}" for n in range(400)]
    text = {f"d{n % 7}/{n:03}.txt": " ".join(choose.choices(words, k=150)) + "." for n in range(n_files)}
    write(folder, text)
