"""Folders into an index: a run embeds the texts that changed, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import write
from fake import FakeEngine, seen
from indexed_folder import Held, counts, many, never

from q3e_local.errors import OptionError, SpaceMismatchError
from q3e_local.search.database import Database


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


def test_a_chunk_is_embedded_below_its_headings(world):
    write(world.folder, {"b.md": "# Head\n\nsecond", "empty.txt": ""})
    world.index()
    with Database.open(world.db) as database:
        (window,) = database.entries()
        assert [seen(vector) for vector in window.vectors] == [(256, len("Head\nsecond") + 1)]
        n_tokens = {Path(path).name: record.n_tokens for path, record in database.files().items()}
    assert n_tokens == {"b.md": 12, "empty.txt": 0}


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


def test_files_are_cut_anew_to_another_budget_which_is_remembered(world):
    write(world.folder, {"a.txt": "\n\n".join(f"paragraph {n} " * 4 for n in range(4))})
    assert world.index().n_chunks == 1
    assert counts(world.index(chunk_tokens=64)) == (0, 1, 0, 0)
    assert len(Held(world.db).chunks) == 4
    assert counts(world.index(load=never)) == (0, 0, 1, 0)
    # The index has a budget for all of its files, whichever file comes first.
    write(world.folder, {"0.txt": "first by name"})
    tally = world.index(chunk_tokens=128)
    assert tally.notes == [
        "chunks have at most 128 tokens from now on, not 64: other files of the index are cut anew when they are "
        "indexed next"
    ]
    assert counts(world.index(load=never)) == (0, 0, 2, 0)
    with pytest.raises(OptionError, match="a chunk has at most 1000 tokens with fake, got 1001"):
        world.index(chunk_tokens=1001)


def test_another_file_of_a_model_is_refused_with_both_named(world):
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


def test_files_that_need_no_model_are_stored_at_once(world):
    """When a run over a moved folder is interrupted, the files that need no model are in the index.

    A run reads up to 32 files ahead, so that a server counts the tokens of several files at once. An interruption may
    lose these files.
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


def test_a_file_is_stored_before_progress_counts_its_last_chunk(world):
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
