"""Files that were deleted, moved, left out or are out of reach: which leave the index, and which stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from closed import closed
from command import write
from indexed_folder import Held, counts, never, reasons

from q3e_local.errors import IndexFileError, InputError
from q3e_local.search.places import existing


def test_only_a_file_below_the_folders_of_a_run_leaves_the_index(world, tmp_path):
    other = tmp_path / "notes2"
    write(world.folder, {"a.txt": "a", "keep.txt": "k"})
    write(other, {"b.txt": "b"})
    world.index(world.folder, other)
    (world.folder / "a.txt").unlink()
    (other / "b.txt").unlink()
    write(other, {"c.txt": "c"})
    assert counts(world.index()) == (0, 0, 1, 1)
    assert world.names == ["b.txt", "keep.txt"]


def test_a_file_that_is_still_there_stays_whatever_the_glob(world):
    write(world.folder, {"a.txt": "a", "b.md": "b", "c.txt": "c"})
    world.index()
    (world.folder / "c.txt").unlink()
    assert counts(world.index(globs=["*.md"])) == (0, 0, 1, 1)
    assert world.names == ["a.txt", "b.md"]


def test_a_file_that_became_binary_leaves_and_a_hidden_file_that_was_named_stays(world):
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


def test_a_missing_folder_makes_no_index(world, tmp_path):
    with pytest.raises(InputError, match=r"there is no folder or file .*nowhere$"):
        world.index(tmp_path / "nowhere", load=never)
    assert not world.db.exists()


def test_a_file_that_the_run_does_not_look_at_leaves_or_is_counted(world):
    write(world.folder, {"a.md": "a", "env/b.txt": "b", "Case.txt": "case"})
    world.index()
    (world.folder / "a.md").unlink()
    write(world.folder, {"a.md/inside.txt": "inside", "env/pyvenv.cfg": ""})
    (world.folder / "Case.txt").rename(world.folder / "case.txt")
    tally = world.index()
    # a.md and Case.txt have left; env/b.txt stays, because a virtual environment is passed over, and is counted.
    assert (counts(tally), tally.n_left_out) == ((2, 0, 0, 2), 1)
    assert world.names == ["b.txt", "case.txt", "inside.txt"]


def test_a_path_in_another_case_to_the_same_file_leaves(world):
    """On a disk that tells cases apart, a hard link stands in for a disk that does not: one file with two names."""
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
    monkeypatch.setattr(Path, "iterdir", closed)
    monkeypatch.setattr(os, "scandir", closed)
    tally = world.index(load=never)
    assert reasons(tally) == {"notes": "cannot be read: Permission denied"}
    assert (world.names, tally.n_left_out) == (["a.txt"], 1)


def test_an_index_in_a_closed_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(IndexFileError, match=r"a\.q3e cannot be read: Permission denied"):
        existing(tmp_path / "a.q3e")
