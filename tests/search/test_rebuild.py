"""An index gets vectors of another space: all of them at once, cut or embedded anew, and room is given back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from alike import assert_alike
from command import demo, expected
from fake import FakeEngine
from made_indexes import answers, by_numpy, chunks, ids, nearest, stored_codes, texts_of, vectors

from q3e_local import Embedder, VectorIndex
from q3e_local.errors import NotEnoughDiskError, SpaceMismatchError
from q3e_local.search import database as databases
from q3e_local.search.database import Database
from q3e_local.search.database.records import IndexSpace, Window
from q3e_local.search.indexing.rebuild import rebuild
from q3e_local.vectors import finish


def test_vectors_are_replaced_all_at_once_and_an_interruption_costs_nothing(path: Path, database: Database) -> None:
    larger = IndexSpace("other", "cd" * 32, 48)
    new = dict(zip([*map(str, range(50)), "new"], vectors(51, 8, 48), strict=True))
    with Database.open(path) as bystander:
        database.put([str(n) for n in range(50)], chunks(*map(texts_of, range(50))), vectors(50))
        before, seen = answers(database), []

        def vectors_of(window: Window) -> np.ndarray:
            seen.extend(entry.id for entry in window.entries)
            return np.stack([new[entry.id] for entry in window.entries])

        def interrupted(window: Window) -> np.ndarray:
            assert answers(bystander) == before
            assert np.array_equal(window.vectors, vectors(50)[[int(entry.id) for entry in window.entries]])
            if len(seen) == 10:
                bystander.delete(["0", "30"])
                bystander.put(["new"], chunks("alpha"), vectors(1, 77))
                raise KeyboardInterrupt
            return vectors_of(window)

        with pytest.raises(KeyboardInterrupt):
            database.replace_vectors(larger, interrupted, lambda n_vectors: None, n_window=10)
        assert answers(database) == answers(bystander) != before
        told: list[int] = []
        database.replace_vectors(larger, vectors_of, told.append, n_window=10)
        assert seen[:20] == [str(n) for n in range(20)]  # the second ten in the second call
        assert (seen[-1], told[:2], told[-1]) == ("new", [9, 19], 49)  # first what the first call stored
        assert database.facts().space == larger
        with pytest.raises(SpaceMismatchError, match="was rebuilt: it holds 48-dim vectors of other now"):
            nearest(bystander, vectors(1)[0], 1)
        with pytest.raises(SpaceMismatchError):
            bystander.put(["x"], chunks("x"), vectors(1))
        names = [name for name in new if name not in ("0", "30")]
        stored = np.stack([new[name] for name in names])
        query = vectors(1, 5, 48)[0]
        assert ids(database, nearest(database, query, 7)) == by_numpy(names, stored, query, 7)[0]
        database.compact()
        assert len(stored_codes(path)) == 49
        assert ids(database, nearest(database, query, 7)) == by_numpy(names, stored, query, 7)[0]


def test_a_smaller_dim_is_cut_and_another_model_embeds_anew(path: Path) -> None:
    texts = [f"text {number} 预算" for number in range(700)]
    with VectorIndex(path, demo(), 128) as index:
        index.add(texts)
        size = index.facts().size_bytes
    done = rebuild(path, demo(), 32)
    assert (done.n_chunks, done.was_cut, done.is_compact) == (700, True, True)
    with VectorIndex(path, demo()) as index:
        vectors = np.concatenate([window.vectors for window in index.entries()])
        assert_alike(vectors, finish(expected(texts, dim=128).vectors, 32))
        assert index.search("预算", 1).hits
        assert index.facts().size_bytes < size
    told: list[tuple[int, int]] = []
    fake = Embedder(FakeEngine(), "fake")
    done = rebuild(path, fake, progress=lambda n, n_all: told.append((n, n_all)))
    assert (done.was_cut, told[-1]) == (False, (700, 700))
    with VectorIndex(path, fake) as index:
        vectors = np.concatenate([window.vectors for window in index.entries()])
        assert np.array_equal(vectors, fake.embed_documents(texts).vectors)
    assert rebuild(path, fake).n_chunks == 0  # nothing to do


def test_room_that_is_not_free_yet_is_told_with_the_reason(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_COMPACT_MS", 1)
    with VectorIndex(path, demo(), 128) as index:
        index.add([f"text {number}" for number in range(1500)])
        size = index.facts().size_bytes
        reader = index.entries(1)
        next(reader)
        done = rebuild(path, demo(), 32)
        assert not done.is_compact
        assert "another process reads" in done.why_not
        reader.close()

    def full(database: Database) -> None:
        raise NotEnoughDiskError("no space")

    assert rebuild(path, demo(), 32).is_compact
    with monkeypatch.context() as patched:
        patched.setattr(Database, "compact", full)
        done = rebuild(path, demo(), 64)
    assert (done.is_compact, done.n_chunks) == (False, 1500)
    assert "GB on the disk for a while; make room and rebuild it again" in done.why_not
    assert path.stat().st_size > size / 2
    before = path.stat().st_size
    done = rebuild(path, demo(), 64)  # the same again
    assert (done.is_compact, done.n_chunks) == (True, 0)
    assert path.stat().st_size < before
