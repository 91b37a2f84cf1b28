"""Folders into an index: what changed is embedded, what was deleted goes, and nothing that stops it does harm."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import apsw
import made_files
import pytest
from command import PROGRAM, write
from fake import FakeEngine, seen

import q3e_local
from q3e_local import Embedder, VectorIndex
from q3e_local.errors import IndexFileError, InputError, OptionError, SpaceMismatchError
from q3e_local.reading import Limits
from q3e_local.search.database import Database
from q3e_local.search.database.places import alone, existing
from q3e_local.search.index import space_of
from q3e_local.search.indexing.folders import Tally, index_folders


class World:
    """A folder, and an index of it made with the fake."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.db = folder / "notes", folder / "notes.q3e"
        self.engine = FakeEngine()
        self.folder.mkdir()

    def index(self, *folders: Path, engine: FakeEngine | None = None, dim: int | None = None, **options) -> Tally:
        self.engine = engine or FakeEngine()
        embedder = Embedder(self.engine, "fake")
        tally = Tally()
        load = options.pop("load", lambda space: (embedder, space_of(embedder, dim)))
        index_folders(self.db, folders or [self.folder], load, tally, **options)
        return tally

    @property
    def embedded(self) -> list[str]:
        """The texts that the model computed, in no order."""
        return sorted(bytes(ids[:-1]).decode() for batch in self.engine.batches for ids in batch)

    @property
    def names(self) -> list[str]:
        return sorted(Path(path).name for path, one in Held(self.db).files.items() if not one.problem)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Held:
    """What an index holds, but for when it came there. Equal vectors may differ by the noise of their batches."""

    def __init__(self, db: Path) -> None:
        with Database.open(db) as database:
            self.files = {path: replace(one, indexed_at=0.0, size_bytes=0) for path, one in database.files().items()}
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
    return tally.n_new, tally.n_changed, tally.n_unchanged, tally.n_removed


def never(space: object) -> None:
    raise AssertionError("no model is needed for this")


# What a run finds.


def test_only_what_changed_is_embedded_again(world):
    write(world.folder, {"a.txt": "first", "b.md": "# Head\n\nsecond", "sub/c.txt": "third"})
    tally = world.index()
    assert (counts(tally), tally.n_chunks) == ((3, 0, 0, 0), 3)
    assert world.embedded == ["Head\nsecond", "first", "third"]
    # Bytes are tokens, and an end token.
    assert tally.n_tokens == len("Head\nsecondfirstthird") + 3

    assert counts(world.index(load=never)) == (0, 0, 3, 0)

    os.utime(world.folder / "a.txt", ns=(1, 1))
    assert counts(world.index()) == (0, 0, 3, 0)
    assert world.embedded == []
    assert counts(world.index(load=never)) == (0, 0, 3, 0)

    write(world.folder, {"a.txt": "FIRST"})
    assert counts(world.index()) == (0, 1, 2, 0)
    assert world.embedded == ["FIRST"]

    (world.folder / "sub" / "c.txt").unlink()
    assert counts(world.index(load=never)) == (0, 0, 2, 1)
    assert world.names == ["a.txt", "b.md"]


def test_vectors_are_those_of_what_the_model_sees(world):
    write(world.folder, {"b.md": "# Head\n\nsecond", "empty.txt": ""})
    world.index()
    with Database.open(world.db) as database:
        (window,) = database.entries()
        assert [seen(vector) for vector in window.vectors] == [(256, len("Head\nsecond") + 1)]
        assert {Path(path).name: one.n_tokens for path, one in database.files().items()} == {
            "b.md": 12,
            "empty.txt": 0,
        }


def test_of_a_changed_file_only_the_changed_chunks_are_embedded(world):
    parts = [f"# {n}\n\n" + f"part {n} " * 20 for n in range(6)]
    write(world.folder, {"a.md": "\n\n".join(parts)})
    assert world.index().n_chunks == 6
    parts[3] = "# 3\n\nwritten anew"
    write(world.folder, {"a.md": "\n\n".join(parts)})
    tally = world.index()
    assert (tally.n_chunks, tally.n_reused, world.embedded) == (6, 5, ["3\nwritten anew"])
    changed = Held(world.db)
    world.db.unlink()
    world.index()
    assert changed == Held(world.db)


@pytest.mark.parametrize("copied", [True, False])
def test_a_renamed_or_copied_file_is_not_embedded_again(world, copied):
    write(world.folder, {"a.md": "# A\n\nsome text", "other.txt": "other"})
    world.index()
    content = (world.folder / "a.md").read_bytes()
    if not copied:
        (world.folder / "a.md").unlink()
    write(world.folder, {"b.md": content})
    tally = world.index()
    assert (counts(tally), tally.n_reused) == ((1, 0, 2 if copied else 1, 0 if copied else 1), 1)
    assert world.embedded == []
    assert world.names == (["a.md", "b.md", "other.txt"] if copied else ["b.md", "other.txt"])
    renamed = Held(world.db)
    world.db.unlink()
    world.index()
    assert renamed == Held(world.db)


def test_only_what_lies_below_the_folders_given_can_go(world, tmp_path):
    other = tmp_path / "notes2"
    write(world.folder, {"a.txt": "a", "keep.txt": "k"})
    write(other, {"b.txt": "b"})
    world.index(world.folder, other)
    (world.folder / "a.txt").unlink()
    (other / "b.txt").unlink()
    write(other, {"c.txt": "c"})
    assert counts(world.index()) == (0, 0, 1, 1)
    assert world.names == ["b.txt", "keep.txt"]


def test_a_glob_makes_nothing_go_that_is_still_there(world):
    write(world.folder, {"a.txt": "a", "b.md": "b", "c.txt": "c"})
    world.index()
    (world.folder / "c.txt").unlink()
    assert counts(world.index(globs=["*.md"])) == (0, 0, 1, 1)
    assert world.names == ["a.txt", "b.md"]


def test_what_became_a_picture_goes_and_what_was_named_stays(world):
    write(world.folder, {"a.txt": "a", "b.dat": "text", ".hidden/c.txt": "c"})
    world.index(world.folder, world.folder / ".hidden")
    write(world.folder, {"b.dat": bytes(range(256))})
    assert counts(world.index()) == (0, 0, 1, 1)
    assert world.names == ["a.txt", "c.txt"]


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_whose_disk_is_not_mounted_loses_nothing(world, empty):
    write(world.folder, {"a.txt": "a"})
    world.index()
    before = Held(world.db)
    (world.folder / "a.txt").unlink()
    if not empty:
        world.folder.rmdir()
    with pytest.raises(
        InputError, match=r"the index has 1 file of it; if its disk is not mounted, mount it"
    ) as error:
        world.index(load=never)
    assert f"q3e-local index rm --db {world.db} --below {world.folder}" in str(error.value)
    assert Held(world.db) == before


def test_a_missing_folder_of_no_index(world, tmp_path):
    with pytest.raises(InputError, match=r"there is no folder or file .*nowhere$"):
        world.index(tmp_path / "nowhere", load=never)
    assert not world.db.exists()


def test_files_are_cut_anew_to_another_budget_which_is_remembered(world):
    write(world.folder, {"a.txt": "\n\n".join(f"paragraph {n} " * 4 for n in range(4))})
    assert world.index().n_chunks == 1
    assert counts(world.index(chunk_tokens=64)) == (0, 1, 0, 0)
    assert len(Held(world.db).chunks) == 4
    assert counts(world.index(load=never)) == (0, 0, 1, 0)
    # Of the index, not of its first file.
    write(world.folder, {"0.txt": "first by name"})
    tally = world.index(chunk_tokens=128)
    assert tally.notes == [
        "chunks have at most 128 tokens from now on, not 64: other files of the index are cut anew when they are "
        "indexed next"
    ]
    assert counts(world.index(load=never)) == (0, 0, 2, 0)
    with pytest.raises(OptionError, match="a chunk has at most 1000 tokens with fake, got 1001"):
        world.index(chunk_tokens=1001)


def test_another_model_or_dim_is_refused_with_both_named(world):
    write(world.folder, {"a.txt": "a"})
    world.index()
    before = Held(world.db)
    write(world.folder, {"b.txt": "b"})
    other = FakeEngine()
    other.digest = "0b" * 32
    with pytest.raises(
        SpaceMismatchError, match=r"of fake \(file fafafafa\), not .* \(file 0b0b0b0b\); .*index rebuild"
    ):
        world.index(engine=other)
    with pytest.raises(SpaceMismatchError, match="64-dim vectors of fake, not 32-dim vectors of fake"):
        world.index(dim=32)
    (world.folder / "b.txt").unlink()
    with pytest.raises(SpaceMismatchError):
        world.index(dim=32, must_load=True)
    assert Held(world.db) == before


def test_the_index_itself_is_no_file_of_the_folder(world):
    world.db = world.folder / "notes.q3e"
    write(world.folder, {"a.txt": "a"})
    assert world.index().skipped == []
    tally = world.index(load=never)
    assert (counts(tally), tally.skipped) == ((0, 0, 1, 0), [])


def test_small_files_share_batches(world):
    write(world.folder, {f"{n:02}.txt": f"text {n:02}" for n in range(32)})
    world.index()
    # 8 ids each with the end token: 4 fill a batch of 32.
    assert [len(batch) for batch in world.engine.batches] == [4] * 8


# What is wrong with files.


def test_a_chunk_without_a_vector_costs_its_file_alone(world):
    write(world.folder, {"a.txt": "fine", "b.md": "# B\n\nfine\n\n# C\n\nhas poison in it", "c.txt": "fine too"})
    tally = world.index(engine=FakeEngine(bad="poison"))
    assert world.names == ["a.txt", "c.txt"]
    (skipped,) = tally.skipped
    assert (skipped.path.name, tally.n_faults) == ("b.md", 1)
    assert skipped.reason.startswith("line 7: the fake has no vector")


def test_broken_files_of_every_kind_are_passed_over(world):
    made_files.folder(world.folder)
    n_good = world.index().n_new
    assert n_good == len(Held(world.db).files) >= 12
    for path in list(world.folder.iterdir()):
        if path.suffix in (".pdf", ".docx", ".pptx", ".epub", ".ipynb"):
            content = path.read_bytes()
            write(world.folder, {f"half-{path.name}": content[: len(content) // 2]})
    write(
        world.folder,
        {
            "secret.pdf": made_files.encrypted_pdf("hidden", "password"),
            "scan.pdf": made_files.scanned_pdf(),
            "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
            "things.zip": made_files.zipped({"a.txt": "a"}),
            "binary.dat": bytes(range(256)),
        },
    )
    (world.folder / "loop").symlink_to(world.folder)
    tally = world.index()
    assert counts(tally) == (0, 0, n_good, 0)
    expected = {one.path.name for one in tally.skipped if one.is_expected}
    assert expected == {"picture.png", "things.zip", "binary.dat"}
    faults = {one.path.name: one.reason for one in tally.skipped if not one.is_expected}
    assert {"secret.pdf", "scan.pdf"} < set(faults)
    assert all(name.startswith("half-") for name in faults.keys() - {"secret.pdf", "scan.pdf"})
    assert all(faults.values())


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_disk_without_flock_holds_an_index_too(world, monkeypatch):
    import fcntl

    def missing(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    write(world.folder, {"a.txt": "a"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # filelock's own, of the lock it takes instead
        assert counts(world.index()) == (1, 0, 0, 0)


def test_a_part_that_cannot_be_read_is_told_and_the_rest_is_found(world):
    write(world.folder, {"log.txt": "第一行没有问题。\n".encode() * 40 + b"\xff\n"})
    tally = world.index()
    assert world.names == ["log.txt"]
    assert [(one.path.name, one.is_expected) for one in tally.skipped] == [("log.txt", False)]
    assert "byte" in tally.skipped[0].reason


def test_a_file_that_is_broken_now_is_no_answer_any_more(world):
    write(world.folder, {"a.pdf": made_files.pdf(["text of the page"]), "b.txt": "b"})
    world.index()
    write(world.folder, {"a.pdf": made_files.encrypted_pdf("text", "password")})
    tally = world.index()
    assert (world.names, tally.n_faults, tally.n_removed) == (["b.txt"], 1, 1)


def test_a_file_that_cannot_be_opened_keeps_what_it_said(world, monkeypatch):
    write(world.folder, {"a.txt": "a"})
    world.index()
    write(world.folder, {"a.txt": "changed"})

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    tally = world.index()
    assert (world.names, [one.reason for one in tally.skipped]) == (["a.txt"], ["cannot be read: Permission denied"])


def test_what_was_broken_is_known_to_be_without_a_model(world):
    write(world.folder, {"a.txt": "a", "scan.pdf": made_files.scanned_pdf(), "gone.pdf": b"%PDF-1.4 nothing"})
    first = world.index()
    again = world.index(load=never)
    assert [(one.path, one.reason) for one in again.skipped] == [(one.path, one.reason) for one in first.skipped]
    assert (counts(again), again.n_faults, world.names) == ((0, 0, 1, 0), 2, ["a.txt"])
    with Database.open(world.db) as database:
        assert database.facts().n_files == 1

    (world.folder / "gone.pdf").unlink()
    write(world.folder, {"scan.pdf": made_files.pdf(["text of the page"])})
    tally = world.index()
    assert (counts(tally), tally.n_faults, world.names) == ((1, 0, 1, 0), 0, ["a.txt", "scan.pdf"])


def test_what_is_too_large_or_closed_needs_no_model(world, monkeypatch):
    write(world.folder, {"a.txt": "a", "b.txt": "b"})
    world.index()
    write(world.folder, {"b.txt": "b" * 2000, "new.txt": "n" * 2000, "closed.txt": "closed"})
    real = Path.open

    def refuse(path: Path, *arguments: object, **options: object) -> object:
        if path.name == "closed.txt":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    tally = world.index(load=never, limits=Limits(size_bytes=1000))
    assert (counts(tally), world.names) == ((0, 0, 1, 1), ["a.txt"])
    assert [(one.path.name, one.reason.split(":")[0]) for one in tally.skipped] == [
        ("b.txt", "is too large"), ("closed.txt", "cannot be read"), ("new.txt", "is too large")
    ]  # fmt: skip


def test_a_file_that_changes_while_it_is_read_is_what_was_read(world, monkeypatch):
    """Digest and text are of one reading, so that going back to the old text is a change."""
    write(world.folder, {"a.txt": "first"})
    real = Path.read_bytes

    def read_and_change(path: Path) -> bytes:
        data = real(path)
        path.write_bytes(b"other")
        return data

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_and_change)
        world.index()
    assert [chunk.text for chunk in Held(world.db).chunks.values()] == ["first"]
    world.index()
    assert [chunk.text for chunk in Held(world.db).chunks.values()] == ["other"]


def test_a_second_edit_of_equal_size_at_the_same_tick_is_seen(world):
    write(world.folder, {"a.txt": "first"})
    status = (world.folder / "a.txt").stat()
    world.index()
    write(world.folder, {"a.txt": "later"})
    os.utime(world.folder / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert counts(world.index()) == (0, 1, 0, 0)
    assert world.embedded == ["later"]


def test_files_that_need_no_model_are_stored_at_once(world):
    """A folder was moved: what is done when the run is interrupted stays, though the model had nothing to do.

    Files are read ahead, 32 at most, so that a server counts the tokens of several at once: those may be lost.
    """
    many(world.folder, 70)
    world.index()
    world.folder = world.folder.rename(world.folder.parent / "moved")
    write(world.folder, {"zz/new.txt": "new"})

    def interrupt(path: Path) -> None:
        if path.name == "new.txt":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.index(world.folder, on_file=interrupt)
    assert sum(path.startswith(f"{world.folder.as_posix()}/") for path in Held(world.db).files) >= 70 - 32


def test_a_file_is_stored_before_its_last_chunk_is_told(world):
    write(world.folder, {"a.txt": "one", "b.txt": "two"})

    def interrupt(n_bytes: int, n_chunks: int, n_tokens: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.index(progress=interrupt)
    assert len(Held(world.db).files) == 1


def test_a_run_with_nothing_to_do_writes_nothing(world):
    write(world.folder, {"a.txt": "a"})
    os.utime(world.folder / "a.txt", ns=(10**18, 10**18))
    world.index()
    with Database.open(world.db) as database:
        before = database.facts().changed_at
    world.index(load=never)
    with Database.open(world.db) as database:
        assert database.facts().changed_at == before


def test_what_is_no_file_of_the_run_any_more_goes_or_is_told(world):
    write(world.folder, {"a.md": "a", "env/b.txt": "b", "Case.txt": "case"})
    world.index()
    (world.folder / "a.md").unlink()
    write(world.folder, {"a.md/inside.txt": "inside", "env/pyvenv.cfg": ""})
    (world.folder / "Case.txt").rename(world.folder / "case.txt")
    tally = world.index()
    # Those that were a.md and Case.txt are gone; env/b.txt stays, and is told.
    assert (counts(tally), tally.n_left_out) == ((2, 0, 0, 2), 1)
    assert world.names == ["b.txt", "case.txt", "inside.txt"]


def test_a_name_of_other_case_that_is_the_same_file_goes(world):
    """As on a disk that does not tell case apart; a hard link is one file with two names everywhere."""
    write(world.folder, {"Notes/a.txt": "a"})
    world.index(world.folder / "Notes")
    (world.folder / "notes").mkdir(exist_ok=True)
    if not (world.folder / "notes" / "a.txt").exists():
        os.link(world.folder / "Notes" / "a.txt", world.folder / "notes" / "a.txt")
    world.index(world.folder / "notes")
    assert [Path(path).parent.name for path in Held(world.db).files] == ["notes"]


def test_a_folder_that_is_closed_loses_nothing(world, monkeypatch):
    write(world.folder, {"a.txt": "a"})
    world.index()

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    tally = world.index(load=never)
    assert [(one.path, one.reason) for one in tally.skipped] == [
        (world.folder, "cannot be read: Permission denied")
    ]  # fmt: skip
    assert (world.names, tally.n_left_out) == (["a.txt"], 1)


def test_an_index_in_a_closed_folder_is_told(tmp_path, monkeypatch):
    def refuse(path: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(IndexFileError, match=r"a\.q3e cannot be read: Permission denied"):
        existing(tmp_path / "a.q3e")


def test_an_index_whose_budget_is_none_is_told(world):
    write(world.folder, {"a.txt": "a"})
    world.index()
    with apsw.Connection(str(world.db)) as connection:
        connection.execute("UPDATE meta SET value = 'many' WHERE key = 'chunk_tokens'")
    with pytest.raises(IndexFileError, match="is damaged: its chunk_tokens are 'many'"):
        world.index()


@pytest.mark.parametrize("year", [1700, 2350])
def test_a_file_of_another_century(world, year):
    write(world.folder, {"a.txt": "a"})
    seconds = (year - 1970) * 31_556_952
    os.utime(world.folder / "a.txt", (seconds, seconds))
    assert counts(world.index()) == (1, 0, 0, 0)
    assert counts(world.index(load=never)) == (0, 0, 1, 0)


def test_of_several_folders_one_that_is_missing_stops_no_other(world, tmp_path):
    write(world.folder, {"a.txt": "a"})
    tally = world.index(tmp_path / "nowhere", world.folder)
    assert counts(tally) == (1, 0, 0, 0)
    assert tally.missing == [f"there is no folder or file {tmp_path / 'nowhere'}"]


# What stops a run, and several at once.


def many(folder: Path, n_files: int = 60) -> None:
    choose = random.Random(1)
    words = [f"word{n}" for n in range(400)]
    text = {f"d{n % 7}/{n:03}.txt": " ".join(choose.choices(words, k=150)) + "." for n in range(n_files)}
    write(folder, text)


@pytest.mark.parametrize("n_before", [1, 5, 16])
def test_an_interrupted_run_goes_on(world, n_before):
    many(world.folder, 20)

    def interrupt(n_bytes: int, n_chunks: int, n_tokens: int) -> None:
        if n_chunks >= n_before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.index(progress=interrupt, chunk_tokens=900)
    n_kept = len(Held(world.db).files)
    assert n_kept <= n_before
    tally = world.index(chunk_tokens=900)
    assert counts(tally) == (20 - n_kept, 0, n_kept, 0)
    continued = Held(world.db)
    world.db.unlink()
    world.index(chunk_tokens=900)
    assert continued == Held(world.db)


def command(folder: Path, db: Path) -> list[str]:
    return [*PROGRAM, "index", str(folder), "--db", str(db), "-m", "demo", "-d", "32", "--threads", "1", "--no-cache"]


def n_files(db: Path) -> int:
    """How many there are so far, while another process writes; and it can be searched."""
    try:
        with VectorIndex(db) as index:
            index.search("word7", mode="words")
            return index.facts().n_files
    except (IndexFileError, OptionError):  # not begun, or being made
        return 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)


@pytest.fixture
def in_one_go(tmp_path: Path) -> tuple[Path, Held]:
    """A folder, and what an index of it holds that nothing stopped."""
    folder = tmp_path / "many"
    many(folder)
    with q3e_local.load("demo", n_threads=1) as embedder:
        space = space_of(embedder, 32)
        index_folders(tmp_path / "whole.q3e", [folder], lambda index: (embedder, space), Tally())
    return folder, Held(tmp_path / "whole.q3e")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_any_point_it_goes_on(in_one_go, tmp_path):
    folder, whole = in_one_go
    db = tmp_path / "killed.q3e"
    for n_least in (1, 20, 40):
        process = subprocess.Popen(command(folder, db), stderr=subprocess.DEVNULL)
        wait_until(lambda least=n_least, process=process: n_files(db) >= least or process.poll() is not None)
        process.kill()
        process.wait()
    assert 40 <= n_files(db) <= 60
    subprocess.run(command(folder, db), check=True, stderr=subprocess.DEVNULL)
    assert Held(db) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_keeps_what_is_done(in_one_go, tmp_path):
    folder, whole = in_one_go
    db = tmp_path / "stopped.q3e"
    process = subprocess.Popen(command(folder, db), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: n_files(db) >= 10)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    n_kept = n_files(db)
    again = " ".join(["q3e-local", *command(folder, db)[3:]])
    assert said == f"Interrupted: {n_kept} files are done and kept; go on with the others by: {again}\n"
    subprocess.run(command(folder, db), check=True, stderr=subprocess.DEVNULL)
    assert Held(db) == whole


def test_the_second_of_two_runs_waits_and_says_so(in_one_go, tmp_path):
    folder, whole = in_one_go
    db = tmp_path / "both.q3e"
    with alone(db):
        process = subprocess.Popen(command(folder, db), stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert process.stderr.readline() == f"another run is at work on {db}; waiting for it to end\n"
        assert not db.exists()
    second = subprocess.Popen(command(folder, db), stderr=subprocess.DEVNULL)
    assert (process.wait(60), second.wait(60)) == (0, 0)
    process.stderr.close()
    assert Held(db) == whole
