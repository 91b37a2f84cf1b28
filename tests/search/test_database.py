"""An index gives back what was stored last, after any changes."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import numpy as np
import pytest
from made_indexes import (
    SPACE,
    answers,
    chunks,
    everything,
    record,
    space,
    stored_codes,
    texts_of,
    vectors,
    vectors_by_row,
)

from q3e_local.errors import InvalidTextError, OptionError
from q3e_local.search.database import Database
from q3e_local.search.database.pages import page_bytes, stored_bytes
from q3e_local.search.database.records import Chunk


def change_at_random(
    database: Database, seed: int, n: int = 60
) -> dict[str, tuple[list[Chunk], np.ndarray, str | None]]:
    """Store, change and remove files and texts. Returns what must be in the index in the end."""
    choose, expected, made = random.Random(seed), {}, 0
    for step in range(n):
        name = f"notes/{choose.randrange(8)}.md"
        text_id = f"id-{choose.randrange(12)}"
        n_new = choose.randrange(0, 5)
        made += n_new
        new = chunks(*(texts_of(made + each) for each in range(n_new)))
        match choose.choice(["file", "file", "texts", "remove", "delete"]):
            case "file":
                database.replace_file(record(name, step), new, vectors(n_new, 1000 + step))
                expected[name] = (new, vectors(n_new, 1000 + step), name)
            case "texts":
                database.put([text_id], chunks(texts_of(made)), vectors(1, 5000 + step))
                expected[text_id] = (chunks(texts_of(made)), vectors(1, 5000 + step), None)
            case "remove":
                assert database.remove_files([name]) == (expected.pop(name, None) is not None)
            case "delete":
                assert database.delete([text_id, "never"]) == (expected.pop(text_id, None) is not None)
    return expected


@pytest.mark.parametrize("seed", range(3))
def test_an_index_that_changed_a_lot_equals_one_built_anew(tmp_path: Path, seed: int) -> None:
    with Database(tmp_path / "old.q3e", SPACE) as old, Database(tmp_path / "new.q3e", SPACE) as new:
        expected = change_at_random(old, seed)
        times = {path: each.mtime_ns / 1e9 for path, each in old.files().items()}
        for name, (texts, of_texts, path) in expected.items():
            if path is None:
                new.put([name], texts, of_texts)
            else:
                new.replace_file(record(path, times[path]), texts, of_texts)
        assert everything(old) == everything(new)
        assert answers(old) == answers(new)
        assert {path: each.n_chunks for path, each in old.files().items()} == {
            name: len(texts) for name, (texts, _, path) in expected.items() if path
        }
        rounded = {row: np.rint(vector * 127).astype(np.int8) for row, vector in vectors_by_row(old).items()}
    assert stored_codes(tmp_path / "old.q3e") == {row: numbers.tobytes() for row, numbers in rounded.items()}


def test_codes_are_the_signs_of_the_first_numbers_and_go_with_their_rows(path: Path) -> None:
    with Database.create(path, space(1100)) as database:
        for first in range(0, 900, 90):  # blocks have 256 rows
            names = [str(n) for n in range(first, first + 90)]
            database.put(names, chunks(*names), vectors(90, first, 1100))
        database.delete([str(n) for n in [*range(200, 600), *range(3, 900, 7)]])
        signs = {row: np.packbits(vector[:1024] > 0) for row, vector in vectors_by_row(database).items()}
    assert len(signs) == 900 - len({*range(200, 600), *range(3, 900, 7)})
    assert stored_codes(path) == {row: bits.tobytes() for row, bits in signs.items()}


def test_what_cannot_be_stored_is_refused_and_nothing_changes(database: Database) -> None:
    database.replace_file(record("f.md"), chunks("alpha"), vectors(1))
    before = everything(database)
    unit = vectors(1)
    for wrong in (vectors(2), vectors(1, dim=16), unit.astype(np.float64), unit * 2, unit * np.nan):
        with pytest.raises(OptionError, match="vectors must"):
            database.put(["a"], chunks("beta"), wrong)
    for change in (lambda: database.put(["f.md#0"], chunks("x"), unit), lambda: database.delete(["f.md#0"])):
        with pytest.raises(OptionError, match=r"'f\.md#0' is a chunk of a file"):
            change()
    with pytest.raises(InvalidTextError, match=r"text 0: character 1 is the lone surrogate '\\udc80'"):
        database.put(["a"], chunks("x\udc80"), unit)
    assert everything(database) == before


def test_a_file_that_stays_is_touched_and_gives_back_its_chunks(database: Database) -> None:
    name = "文/f \"'.md"
    database.put(["own"], chunks("x"), vectors(1, 1))
    database.replace_file(record(name, 5), chunks("alpha", "beta"), vectors(2))
    database.replace_file(record("empty.md", 5), [], vectors(0))
    window = database.of_file(name)
    assert [entry.chunk for entry in window.entries] == chunks("alpha", "beta")
    assert np.array_equal(window.vectors, vectors(2))
    assert not database.of_file("nowhere").entries
    database.touch_file(record(name, 9))
    files = {path: (file.mtime_ns, file.n_chunks) for path, file in database.files().items()}
    assert files == {name: (9 * 10**9, 2), "empty.md": (5 * 10**9, 0)}
    facts = database.facts()
    assert (facts.n_files, facts.n_chunks, facts.n_tokens) == (2, 3, 14)
    assert database.remove_files([name, "empty.md", "nowhere"]) == 2
    assert sorted(everything(database)) == ["own"]


def test_new_ids_pass_over_ids_that_are_taken(database: Database) -> None:
    database.put(["3", "b"], chunks("x", "y"), vectors(2))
    assert database.put(None, chunks("p", "q"), vectors(2, 1)) == ["4", "5"]
    assert database.put(["7"], chunks("r"), vectors(1, 2)) == ["7"]
    assert database.put(None, chunks("s", "t", "u"), vectors(3, 3)) == ["6", "8", "9"]


@pytest.mark.parametrize("dim", [256, 512, 768, 1024, 2560, 4096])
def test_a_vector_takes_little_more_than_its_numbers(path: Path, dim: int) -> None:
    with Database.create(path, space(dim)) as database:
        database.put(None, chunks(*["x"] * 500), vectors(500, dim=dim))
    taken = apsw.Connection(str(path)).execute("SELECT sum(pgsize) FROM dbstat WHERE name = 'vectors'").get / 500
    assert taken == pytest.approx(stored_bytes(4 * dim, page_bytes(dim)), rel=0.06)
    assert taken < 1.22 * 4 * dim
