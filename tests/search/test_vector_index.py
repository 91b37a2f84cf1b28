"""`VectorIndex` as a program uses it, on the demo model; expected scores come from the embedder and NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from alike import assert_alike
from command import demo, expected
from fake import FakeEngine

from q3e_local import Embedder, VectorIndex
from q3e_local.errors import IndexFileError, OptionError, SpaceMismatchError, TextTooLongError
from q3e_local.search.database import Database
from q3e_local.search.database.records import Chunk, FileRecord

TEXTS = {
    "a": "第三季度预算复盘：支出超标",
    "b": "the budget of PRJ-2041 was cut in March",
    "c": "roses are cut in March too",
    "d": "",
}


@pytest.fixture
def index(path: Path) -> Iterator[VectorIndex]:
    with VectorIndex(path, demo(), dim=64) as index:
        index.add(list(TEXTS.values()), list(TEXTS))
        yield index


@pytest.fixture(scope="module")
def fake() -> Embedder:
    """A model that is not the one of `index`."""
    return Embedder(FakeEngine(), "fake")


def test_a_search_gives_what_numpy_gives(index: VectorIndex) -> None:
    stored = expected(TEXTS.values(), dim=64).vectors
    query = expected(["what was cut in March?"], kind="query", dim=64).vectors[0]
    order = np.argsort(-(stored @ query), kind="stable")
    for exact in (False, True):
        found = index.search("what was cut in March?", 3, mode="vectors", exact=exact)
        assert [hit.id for hit in found] == [list(TEXTS)[place] for place in order[:3]]
        assert np.allclose([hit.score for hit in found], (stored @ query)[order[:3]], atol=1e-6)
        assert [hit.text for hit in found] == [TEXTS[hit.id] for hit in found]
        assert_alike(found.vector, query)
        assert found.mode == "vectors"
    assert [hit.id for hit in index.search_vector(stored[2] * 5, 1)] == ["c"]
    assert index.search_vector(stored[2], 1).hits[0].score == pytest.approx(1)


def test_a_query_has_its_own_instruction(index: VectorIndex) -> None:
    for options in ({"task": "sts"}, {"instruction": "Find roses"}):
        query = expected(["March"], kind="query", dim=64, **options).vectors[0]
        assert_alike(index.search("March", **options).vector, query)


def test_texts_are_added_replaced_and_deleted(index: VectorIndex) -> None:
    assert len(index) == 4
    assert index.add(["PRJ-7777 replaced"], ["b"]) == ["b"]
    assert index.search("PRJ-7777", 1).hits[0].text == "PRJ-7777 replaced"
    assert [hit.id for hit in index.search("budget PRJ-2041", mode="words")] == []  # of the text that was replaced
    assert index.delete(["a", "b", "nobody"]) == 2
    assert index.delete("c") == 1
    assert [hit.id for hit in index.search("第三季度", mode="hybrid")] == ["d"]
    assert len({"d", *index.add(["x", "y"])}) == len(index) == 3
    assert index.add([]) == []


def test_many_texts_are_stored_as_they_are_done(path: Path) -> None:
    texts = [f"text {number}" for number in range(1100)]
    told: list[tuple[int, int]] = []
    with VectorIndex(path, demo(), 32) as index:
        names = index.add(texts, progress=lambda n_texts, n_tokens: told.append((n_texts, n_tokens)))
        assert told[-1][0] == 1100
        stored = {entry.id: entry.chunk.text for window in index.entries(100) for entry in window.entries}
        assert stored == dict(zip(names, texts, strict=True))
        vectors = np.concatenate([window.vectors for window in index.entries(333)])
        assert_alike(vectors, expected(texts, dim=32).vectors)
        assert index.facts().n_chunks == len(index) == 1100


def test_a_text_that_cannot_be_embedded_is_named_and_the_texts_before_it_are_kept(path: Path, fake: Embedder) -> None:
    ids = [str(number) for number in range(601)]
    texts = [*ids[:600], "x" * 2000]
    with VectorIndex(path, fake) as index:
        with pytest.raises(TextTooLongError, match="text 600: has 2001 tokens"):
            index.add(texts, ids)
        assert len(index) == 600
        index.add(texts, ids, truncate=True)
        assert len(index) == 601
        found = index.search("y" * 3000, 1)
        assert found.explained[0] == "the query was cut to 1000 tokens"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search("  "), "the query is empty"),
        (lambda index: index.search(None), "the query must be a str, got NoneType"),
        (lambda index: index.search("x", 0), "k must be between 1 and 10000, got 0"),
        (lambda index: index.search("x", True), "k must be between 1 and 10000, got True"),
        (lambda index: index.search("x", mode="fuzzy"), "mode must be one of auto, .*, words, got 'fuzzy'"),
        (lambda index: index.search("x", task="nothing"), "unknown task 'nothing'"),
        (lambda index: index.search("x", since="2024-01-01"), "since must be a date, a datetime or seconds"),
        (lambda index: index.search("x", since=math.nan), "since must be a date, a datetime or seconds .* got nan"),
        (lambda index: index.search("x", path=Path("a.md")), "path must be a glob in a str, .* got .*Path"),
        (lambda index: index.search("x", path=""), "the path '' names nothing"),
        (lambda index: index.search("x", path="[z-a]"), "has a range that ends before it begins"),
        (lambda index: index.add("one text"), "must be lists, got one str"),
        (lambda index: index.add(["x", "y"], ["a"]), "there are 1 ids for 2 texts"),
        (lambda index: index.add(["x"] * 600, [*map(str, range(599)), "0"]), "the id '0' is given twice"),
        (lambda index: index.add_vectors(["x"], np.ones((1, 32))), r"must have shape \(1, 64\), got \(1, 32\)"),
        (lambda index: index.add_vectors(["x"], np.zeros((1, 64))), "is all zeros"),
        (lambda index: index.search_vector(np.full(64, np.nan)), "is all zeros, or holds what is no number"),
        (lambda index: index.search_vector(np.ones(32)), "a vector of 32 numbers cannot be searched"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(index: VectorIndex, call, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call(index)
    assert len(index) == 4


def test_an_index_knows_its_space(path: Path, fake: Embedder) -> None:
    with VectorIndex(path, demo(), 64, task="sts") as index:
        index.add(["hello"])
        stored = next(index.entries()).vectors
        assert_alike(stored, expected(["hello"], dim=64, kind="document", task="sts").vectors)
    with VectorIndex(path, demo(), task="sts") as index:
        assert (index.dim, index.space.name) == (64, expected(["x"], dim=64, kind="document", task="sts").space)
    with VectorIndex(path, demo()) as index:  # a search needs no instruction, whichever its texts have
        assert index.search("hello", 1, mode="vectors").hits[0].text == "hello"
        with pytest.raises(SpaceMismatchError, match=r"with the instruction .*, and would get 64-dim vectors"):
            index.add(["more"])
        assert len(index) == 1
    by_hand = rf"rebuild\.rebuild\('{path}', embedder, {{}}, task=task, instruction=instruction\)"
    for embedder, dim, task, wanted, advised in [
        (demo(), 64, "retrieval", "64-dim vectors of demo;", f"q3e-local index rebuild --db {path} -m demo"),
        (demo(), 32, "sts", "32-dim", by_hand.format(32)),
        (fake, None, "sts", "64-dim vectors of fake", by_hand.format(64)),
    ]:
        said = f"holds 64-dim vectors of demo with the instruction .*, not {wanted}.*{advised}$"
        with pytest.raises(SpaceMismatchError, match=said):
            VectorIndex(path, embedder, dim, task=task)
    with pytest.raises(OptionError, match="holds 64-dim vectors of demo"):
        VectorIndex(path, None, 32)


def test_without_a_model_words_are_searched_and_vectors_of_the_caller(index: VectorIndex) -> None:
    with VectorIndex(index.path) as other:
        found = other.search("预算")
        assert [(hit.id, math.isnan(hit.score)) for hit in found] == [("a", True)]
        assert found.explained[0] == "auto: words alone, since there is no model"
        assert [hit.id for hit in other.search_vector(expected([TEXTS["c"]], dim=64).vectors[0], 1)] == ["c"]
        for wrong in (lambda: other.search("x", mode="hybrid"), lambda: other.add(["x"])):
            with pytest.raises(OptionError, match="embedder"):
                wrong()


def test_an_open_database_can_stand_in_place_of_the_path(index: VectorIndex, fake: Embedder) -> None:
    with Database.open(index.path) as database:
        for wrong in ({"embedder": fake}, {"dim": 32}):
            with pytest.raises((SpaceMismatchError, OptionError), match="holds 64-dim vectors of demo, not"):
                VectorIndex(database, **wrong)
        other = VectorIndex(database, demo())  # an error has not closed it
        assert (other.path, len(other)) == (index.path, 4)
        assert [hit.id for hit in other.search("roses", 1)] == ["c"]
        other.close()
        other.close()  # twice is fine
        for use in (database.files, database.facts, lambda: database.delete(["a"]), lambda: other.search("x")):
            with pytest.raises(IndexFileError, match="is closed"):
                use()


def test_vectors_of_ones_own_need_no_model_at_all(path: Path, fake: Embedder) -> None:
    with pytest.raises(OptionError, match="give a model, or the dim"):
        VectorIndex(path)
    for dim in (0, -1, "12", True, 10**9):
        with pytest.raises(OptionError, match=f"dim must be between 1 and 65536, got {dim!r}"):
            VectorIndex(path, dim=dim)
    with pytest.raises(IndexFileError, match="there is no folder"):
        VectorIndex(path / "missing" / "a.q3e", dim=3)
    with VectorIndex(path, dim=3) as index:
        index.add_vectors(["x", "y"], np.array([[2.0, 0, 0], [0, 3, 0]]), ["x", "y"])
        hits = index.search_vector(np.array([0.1, 0, 0]), 2)
        assert [(hit.id, hit.score) for hit in hits] == [("x", 1.0), ("y", 0.0)]
    with pytest.raises(SpaceMismatchError, match="holds 3-dim vectors of your own, not 64-dim vectors of fake"):
        VectorIndex(path, fake)


def test_files_and_ones_own_texts_are_filtered_by_path_and_time(index: VectorIndex) -> None:
    now = datetime.now()
    old = FileRecord("/notes/old.md", 1, round((now - timedelta(days=30)).timestamp() * 1e9), "x")
    chunk = Chunk("roses in the old note", 4, 25, ("Garden", "Roses"), 2, 7, 9)
    index.database.replace_file(old, [chunk], expected([chunk.embedded], dim=64).vectors)
    found = index.search("roses", 10, path="*.md")
    (hit,) = found
    assert (hit.id, hit.file, hit.start, hit.end) == ("/notes/old.md#0", "/notes/old.md", 4, 25)
    assert (hit.headings, hit.page, hit.line, hit.last_line) == (("Garden", "Roses"), 2, 7, 9)
    assert hit.mtime == pytest.approx(old.mtime_ns / 1e9)
    stored = expected(["Garden > Roses\nroses in the old note"], dim=64).vectors[0]
    assert hit.score == pytest.approx(float(stored @ found.vector), abs=1e-6)
    yesterday, last_year = now - timedelta(days=1), now - timedelta(days=365)
    for since in (yesterday, yesterday.date(), yesterday.timestamp(), now.astimezone() - timedelta(days=1)):
        assert {hit.file for hit in index.search("roses", 10, since=since)} == {None}
    assert "/notes/old.md" in {hit.file for hit in index.search("roses", 10, since=date(last_year.year, 1, 1))}
    assert not index.search("roses", since=now + timedelta(days=1)).hits
    found = index.search("roses", since=datetime(2024, 2, 29, 7, 30).timestamp())
    assert found.explained[0].startswith("filters: since 2024-02-29 07:30:00")
    found = index.search("roses", path="*.txt")
    assert (found.hits, found.explained[0]) == ((), "filters: path *.txt")


def test_headings_are_found_by_words(index: VectorIndex) -> None:
    chunk = Chunk("nothing else", 0, 12, ("Kündigungsfristen",))
    index.database.replace_file(FileRecord("/a.md", 1, 1, "x"), [chunk], expected([chunk.embedded], dim=64).vectors)
    assert [hit.file for hit in index.search("kundigungsfristen", mode="words")] == ["/a.md"]


def test_threads_share_one_index(index: VectorIndex) -> None:
    def work(number: int) -> None:
        for turn in range(5):
            name = f"thread{number}turn{turn}"
            index.add([name], [name])
            assert index.search(name, 1, mode="hybrid").hits[0].id == name

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(index) == 24


def test_what_is_found_renders_as_a_table(index: VectorIndex) -> None:
    index.add(["<script>alert(1)</script>"], ["<b>"])
    shown = index.search("script", 5, mode="words")._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert "<b>" not in shown
