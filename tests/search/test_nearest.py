"""The nearest vectors, by comparing all vectors or by a shortlist, with and without filters. NumPy is the oracle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_indexes import SPACE, by_numpy, by_words, chunks, exact, ids, nearest, record, space, vectors

from q3e_local.search.database import Database
from q3e_local.search.database.records import Filters
from q3e_local.vectors import finish


def test_exact_search_equals_numpy_and_equal_scores_come_by_id(database: Database) -> None:
    stored = np.concatenate([vectors(60), vectors(40), vectors(20, 3)])  # forty are there twice
    names = [f"{number * 37 % 120:03}" for number in range(120)]
    database.put(names, chunks(*names), stored)
    for query in [*vectors(5, 7), stored[3]]:
        for k in (1, 2, 7, 119, 200):
            expected, scores = by_numpy(names, stored, query, k)
            for ranked in (exact(database, query, k), nearest(database, query, k)):
                assert ids(database, ranked) == expected
                assert np.allclose(ranked.scores, scores, atol=1e-6, rtol=0)


def test_two_stages_find_what_exact_search_finds_and_say_how(path: Path) -> None:
    random = np.random.default_rng(5)
    centres = random.standard_normal((60, 1024)).astype(np.float32)
    stored = finish(np.repeat(centres, 100, axis=0) + random.standard_normal((6000, 1024)).astype(np.float32) * 2)
    with Database.create(path, space(1024)) as database:
        database.put(None, chunks(*map(str, range(6000))), stored)
        hits = 0
        for query in finish(centres[:20] + random.standard_normal((20, 1024)).astype(np.float32) * 2):
            full, quick = exact(database, query, 10), nearest(database, query, 10)
            hits += len(set(full.rows.tolist()) & set(quick.rows.tolist()))
            scores = dict(zip(full.rows.tolist(), full.scores.tolist(), strict=True))
            for row, score in zip(quick.rows.tolist(), quick.scores.tolist(), strict=True):
                assert scores.get(row, score) == score
        assert hits >= 0.98 * 200
        assert re.fullmatch(
            r"first stage: scanned 1024-bit codes of 6,000 chunks \(of all 1024 numbers\) for the 8\d\d nearest",
            quick.explained[0],
        )
        assert quick.explained[1:] == ("second stage: ordered those by their full vectors of 1024 numbers",)
        assert full.explained == ("exact: compared the full vectors of 6,000 chunks",)


@pytest.mark.parametrize("dim", [32, 64, 128, 256])
def test_of_small_vectors_a_shortlist_has_the_nearest_too(path: Path, dim: int) -> None:
    """A shortlist by signs would have 0.73 to 0.78 of the first ten of these 20,000 vectors."""
    stored = vectors(20_000, 4, dim)
    with Database.create(path, space(dim)) as database:
        database.put(None, chunks(*["x"] * len(stored)), stored)
        hits = 0
        for query in vectors(20, 5, dim):
            ranked = nearest(database, query, 10)
            expected = np.argsort(-(stored @ query))[:10] + 1
            hits += len(set(ranked.rows.tolist()) & set(expected.tolist()))
        assert hits >= 0.98 * 200
        said = (
            r"first stage: scanned the vectors of 20,000 chunks, rounded to 8 bits a number, for the [\d,]+ nearest"
        )
        assert re.fullmatch(said, ranked.explained[0])


@pytest.mark.parametrize(
    ("dim", "spread", "is_told"), [(2, 1.0, False), (8, 1.0, False), (700, 1.0, True), (64, 0.01, True)]
)
def test_vectors_that_are_all_positive_or_almost_alike_are_told_apart(
    path: Path, dim: int, spread: float, is_told: bool
) -> None:
    random = np.random.default_rng(9)
    stored, queries = (
        finish((1 - spread + spread * random.random((n, dim))).astype(np.float32)) for n in (12_000, 10)
    )
    with Database.create(path, space(dim)) as database:
        database.put(None, chunks(*["x"] * len(stored)), stored)
        for query in queries:
            ranked = nearest(database, query, 10)
            assert ranked.rows.tolist() == exact(database, query, 10).rows.tolist()
            assert ("in vain: too many are equally near" in ranked.explained[0]) is is_told


@dataclass(repr=False)
class Filed:
    """An index, and what was stored in it: id, path and time of each chunk, and the chunk's vector."""

    database: Database
    places: list[tuple[str, str | None, float]]
    stored: np.ndarray


@pytest.fixture(scope="module")
def filed(tmp_path_factory: pytest.TempPathFactory) -> Filed:
    """4,000 chunks in 40 files, and 200 texts without a file."""
    database = Database.create(tmp_path_factory.mktemp("filed") / "a.q3e", SPACE)
    stored, places = vectors(4200, 11), []
    for number in range(40):
        path = f"/home/me/{'notes' if number % 4 else 'papers'}/{number}.{'md' if number % 3 else 'txt'}"
        of_file = stored[number * 100 : number * 100 + 100]
        database.replace_file(record(path, 1000 + number), chunks(*map(str, range(100))), of_file)
        places += [(f"{path}#{each}", path, 1000.0 + number) for each in range(100)]
    own = database.put(None, chunks(*(str(each % 100) for each in range(200))), stored[4000:])
    places += [(name, None, 9e12) for name in own]
    return Filed(database, places, stored)


@given(
    path=st.sampled_from([None, "*.md", "notes/**", "papers/*.txt", "/home/me/notes/7.md", "nowhere/*"]),
    since=st.sampled_from([None, 0.0, 1010.0, 1035.5, 5000.0]),
    k=st.integers(1, 30),
    seed=st.integers(0, 20),
)
def test_filters_leave_what_numpy_leaves(filed: Filed, path, since, k, seed) -> None:
    database, places, stored = filed.database, filed.places, filed.stored
    suffixes = {"*.md": r".*\.md", "notes/**": r".*/notes/.*", "papers/*.txt": r".*/papers/[^/]*\.txt"}
    kept = [
        place
        for place, (name, file, mtime) in enumerate(places)
        if (path is None or (file is not None and re.fullmatch(suffixes.get(path, re.escape(path)), file)))
        and (since is None or (1e12 if file is None else mtime) >= since)
    ]
    query = vectors(1, 100 + seed)[0]
    filters = Filters(path, since)
    expected, _ = by_numpy([places[place][0] for place in kept], stored[kept], query, k)
    assert ids(database, exact(database, query, k, filters)) == expected
    found = ids(database, nearest(database, query, k, filters))
    assert set(found) <= {places[place][0] for place in kept}
    assert len(found) == len(expected)
    if len(kept) <= 3200:
        assert found == expected
    with_word = ids(database, by_words(database, "17", 4200, filters))
    assert sorted(with_word) == sorted(places[place][0] for place in kept if place % 100 == 17)
