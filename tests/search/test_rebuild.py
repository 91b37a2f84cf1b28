"""Another space in the same file: vectors are replaced all at once, and an interruption costs nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_indexes import SPACE, answers, by_numpy, chunks, ids, nearest, stored_codes, texts_of, vectors

from q3e_local.errors import SpaceMismatchError
from q3e_local.search.database import Database
from q3e_local.search.database.records import IndexSpace


def test_vectors_are_replaced_all_at_once_and_an_interruption_costs_nothing(tmp_path: Path) -> None:
    path, larger = tmp_path / "a.q3e", IndexSpace("other", "cd" * 32, 48)
    new = {str(n): vector for n, vector in enumerate(vectors(50, 8, 48))}
    with Database.create(path, SPACE) as database, Database.open(path) as bystander:
        database.put([str(n) for n in range(50)], chunks(*map(texts_of, range(50))), vectors(50))
        before, seen = answers(database), []

        def vectors_of(window: object) -> np.ndarray:
            assert answers(bystander) == before
            assert np.array_equal(window.vectors, vectors(50)[[int(e.id) for e in window.entries]])
            seen.extend(entry.id for entry in window.entries)
            if len(seen) == 20:
                bystander.delete(["0", "30"])
                bystander.put(["new"], chunks("alpha"), vectors(1, 77))
                raise KeyboardInterrupt
            return np.stack([new[entry.id] if entry.id in new else vectors(1, 9, 48)[0] for entry in window.entries])

        with pytest.raises(KeyboardInterrupt):
            database.replace_vectors(larger, vectors_of, n_window=10)
        assert answers(database) == answers(bystander) != before

        def rest_of(window: object) -> np.ndarray:
            seen.extend(entry.id for entry in window.entries)
            return np.stack([new[entry.id] if entry.id in new else vectors(1, 9, 48)[0] for entry in window.entries])

        told: list[int] = []
        database.replace_vectors(larger, rest_of, told.append, n_window=10)
        assert seen[20:30] == [str(n) for n in range(10, 20)]  # those of the batch that was lost
        assert (seen[-1], told[:2], told[-1]) == ("new", [9, 19], 49)  # first what the run before stored
        assert database.facts().space == larger
        with pytest.raises(SpaceMismatchError, match="was rebuilt: it holds 48-dim vectors of other now"):
            nearest(bystander, vectors(1)[0], 1)
        with pytest.raises(SpaceMismatchError):
            bystander.put(["x"], chunks("x"), vectors(1))
        names = [str(n) for n in range(50) if n not in (0, 30)] + ["new"]
        stored = np.stack([new[name] if name in new else vectors(1, 9, 48)[0] for name in names])
        query = vectors(1, 5, 48)[0]
        assert ids(database, nearest(database, query, 7)) == by_numpy(names, stored, query, 7)[0]
        database.compact()
        assert len(stored_codes(path)) == 49
        assert ids(database, nearest(database, query, 7)) == by_numpy(names, stored, query, 7)[0]
