"""Files that cannot be read, or change while a run reads them: each is named, and all others are indexed."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path

import apsw
import made_files
import pytest
from closed import closed
from command import write
from fake import FakeEngine
from indexed_folder import Held, counts, never, reasons

from q3e_local.errors import IndexFileError
from q3e_local.reading import Limits
from q3e_local.search.database import Database


def test_a_chunk_without_a_vector_costs_its_file_alone(world):
    write(world.folder, {"a.txt": "fine", "b.md": "# B\n\nfine\n\n# C\n\nhas poison in it", "c.txt": "fine too"})
    tally = world.index(engine=FakeEngine(bad="poison"))
    assert world.names == ["a.txt", "c.txt"]
    assert tally.n_faults == 1
    assert reasons(tally) == {"b.md": "line 7: the fake has no vector for this text"}


def test_broken_files_of_every_kind_are_named_and_the_others_stay(world):
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
    expected = {skipped.path.name for skipped in tally.skipped if skipped.is_expected}
    assert expected == {"picture.png", "things.zip", "binary.dat"}
    faults = reasons(tally).keys() - expected
    assert {"secret.pdf", "scan.pdf"} < faults
    assert all(name.startswith("half-") for name in faults - {"secret.pdf", "scan.pdf"})
    assert all(reasons(tally).values())


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_disk_without_flock_holds_an_index_too(world, monkeypatch):
    import fcntl

    def missing(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    write(world.folder, {"a.txt": "a"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # filelock warns of the lock that it takes instead
        assert counts(world.index()) == (1, 0, 0, 0)


def test_a_part_that_cannot_be_read_is_reported_and_the_rest_is_indexed(world):
    write(world.folder, {"log.txt": "第一行没有问题。\n".encode() * 40 + b"\xff\n"})
    tally = world.index()
    assert world.names == ["log.txt"]
    assert tally.n_faults == 1
    assert "byte" in reasons(tally)["log.txt"]


def test_the_old_text_of_a_file_that_cannot_be_read_now_is_forgotten(world):
    write(world.folder, {"a.pdf": made_files.pdf(["text of the page"]), "b.txt": "b"})
    world.index()
    write(world.folder, {"a.pdf": made_files.encrypted_pdf("text", "password")})
    tally = world.index()
    assert (world.names, tally.n_faults, tally.n_removed) == (["b.txt"], 1, 1)


def test_the_old_text_of_a_file_that_cannot_be_opened_now_is_kept(world, monkeypatch):
    write(world.folder, {"a.txt": "a"})
    world.index()
    write(world.folder, {"a.txt": "changed"})
    monkeypatch.setattr(Path, "read_bytes", closed)
    tally = world.index()
    assert (world.names, reasons(tally)) == (["a.txt"], {"a.txt": "cannot be read: Permission denied"})


def test_files_that_could_not_be_read_need_no_model_until_they_change(world):
    write(world.folder, {"a.txt": "a", "scan.pdf": made_files.scanned_pdf(), "gone.pdf": b"%PDF-1.4 nothing"})
    first = world.index()
    again = world.index(load=never)
    assert again.skipped == first.skipped
    assert (counts(again), again.n_faults, world.names) == ((0, 0, 1, 0), 2, ["a.txt"])
    with Database.open(world.db) as database:
        assert database.facts().n_files == 1

    (world.folder / "gone.pdf").unlink()
    write(world.folder, {"scan.pdf": made_files.pdf(["text of the page"])})
    tally = world.index()
    assert (counts(tally), tally.n_faults, world.names) == ((1, 0, 1, 0), 0, ["a.txt", "scan.pdf"])


def test_files_that_are_too_large_or_closed_need_no_model(world, monkeypatch):
    write(world.folder, {"a.txt": "a", "b.txt": "b"})
    world.index()
    write(world.folder, {"b.txt": "b" * 2000, "new.txt": "n" * 2000, "closed.txt": "closed"})
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *mode: (closed if path.name == "closed.txt" else real)(path, *mode)
    )
    tally = world.index(load=never, limits=Limits(size_bytes=1000))
    assert (counts(tally), world.names) == ((0, 0, 1, 1), ["a.txt"])
    problems = {name: reason.split(":")[0] for name, reason in reasons(tally).items()}
    assert problems == {"b.txt": "is too large", "closed.txt": "cannot be read", "new.txt": "is too large"}


def test_a_file_that_changes_after_it_was_read_is_read_again_by_the_next_run(world, monkeypatch):
    """Digest and text are of the same reading: the next run then sees the change."""
    write(world.folder, {"a.txt": "first"})
    real = Path.read_bytes

    def read_and_change(path: Path) -> bytes:
        data = real(path)
        path.write_bytes(b"other")
        return data

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_and_change)
        world.index()
    assert world.embedded == ["first"]
    world.index()
    assert world.embedded == ["other"]


def test_a_second_edit_of_equal_size_at_the_same_tick_is_seen(world):
    write(world.folder, {"a.txt": "first"})
    status = (world.folder / "a.txt").stat()
    world.index()
    write(world.folder, {"a.txt": "later"})
    os.utime(world.folder / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert counts(world.index()) == (0, 1, 0, 0)
    assert world.embedded == ["later"]


def test_a_damaged_budget_of_chunks_is_damage(world):
    write(world.folder, {"a.txt": "a"})
    world.index()
    with apsw.Connection(str(world.db)) as connection:
        connection.execute("UPDATE meta SET value = 'many' WHERE key = 'chunk_tokens'")
    with pytest.raises(IndexFileError, match="is damaged: its chunk_tokens are 'many'"):
        world.index()


@pytest.mark.parametrize("year", [1700, 2350])
def test_a_file_of_another_century_is_indexed_once(world, year):
    write(world.folder, {"a.txt": "a"})
    seconds = (year - 1970) * 31_556_952
    os.utime(world.folder / "a.txt", (seconds, seconds))
    assert counts(world.index()) == (1, 0, 0, 0)
    assert counts(world.index(load=never)) == (0, 0, 1, 0)
