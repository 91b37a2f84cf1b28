"""The index file: what goes in is what is found, whatever happened between, and no file is ever guessed at.

Expected answers come from NumPy over the vectors that were put in.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import TESTS

from q3e_local.errors import IndexFileError, InvalidTextError, OptionError, SpaceMismatchError
from q3e_local.reading.globs import pattern
from q3e_local.search.ask import Question, ask
from q3e_local.search.chunk import Chunk
from q3e_local.search.database import Database
from q3e_local.search.database import places as locate
from q3e_local.search.database.connection import load_sqlite_vec
from q3e_local.search.database.pages import page_bytes, stored_bytes
from q3e_local.search.database.query_words import terms_of
from q3e_local.search.database.records import FileRecord, Filters, IndexSpace, Ranked
from q3e_local.vectors import finish

DIM = 32
SPACE = IndexSpace("demo", "ab" * 32, DIM)


def no_extension(connection: apsw.Connection) -> None:
    raise apsw.ExtensionLoadingError("not here")


def vectors(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return finish(np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32))


def record(path: str, mtime: float = 0) -> FileRecord:
    return FileRecord(path, 10, round(mtime * 1e9), "digest", 7, "markdown")


def chunks(*texts: str) -> list[Chunk]:
    return [Chunk(text, 0, len(text)) for text in texts]


def ids(database: Database, ranked: Ranked) -> list[str]:
    return [entry.id for entry in database.entries_of(ranked.rows)]


def by_numpy(names: list[str], stored: np.ndarray, query: np.ndarray, k: int) -> tuple[list[str], np.ndarray]:
    """Names and scores of the k best, equal ones by name."""
    scores = (stored.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    order = sorted(range(len(names)), key=lambda place: (-scores[place], names[place]))[:k]
    return [names[place] for place in order], scores[order]


def everything(database: Database) -> dict[str, object]:
    """All that is in it, without the numbers of rows."""
    found: dict[str, object] = {}
    for window in database.entries(7):
        for entry, vector in zip(window.entries, window.vectors, strict=True):
            found[entry.id] = (entry.chunk, entry.file, entry.mtime if entry.file else None, vector.tobytes())
    return found


def answers(database: Database) -> list[object]:
    """What it says to some questions by code, by full vectors and by words."""
    found: list[object] = []
    for vector in vectors(5, 99):
        for search in (database.exact, database.nearest):
            ranked = search(vector, 6)
            found.append((ids(database, ranked), ranked.scores.round(6).tolist()))
    for query in ("alpha", "beta 预算", "gamma-7", "复"):
        counted = database.counted(terms_of(query)).found
        found.append(
            ({term.match: n for term, n in counted.items()}, sorted(ids(database, database.words(counted, 50))))
        )
    return found


def stored_codes(path: Path) -> dict[int, bytes]:
    """The codes as sqlite-vec itself gives them."""
    import sqlite_vec

    connection = apsw.Connection(str(path))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    with connection:
        return dict(connection.execute("SELECT rowid, code FROM codes"))


def texts_of(number: int) -> str:
    return f"{('alpha', 'beta', 'gamma-7', '第三季度预算复盘')[number % 4]} text {number}"


# What is stored is what is found.


def change_at_random(
    database: Database, seed: int, n: int = 60
) -> dict[str, tuple[list[Chunk], np.ndarray, str | None]]:
    """Files and texts come, change and go; the answer is what should be there in the end."""
    choose, expected, made = random.Random(seed), {}, 0
    for step in range(n):
        name = f"notes/{choose.randrange(8)}.md"
        text_id = f"id-{choose.randrange(12)}"
        some = choose.randrange(0, 5)
        made += some
        new = chunks(*(texts_of(made + each) for each in range(some)))
        match choose.choice(["file", "file", "texts", "remove", "delete"]):
            case "file":
                database.replace_file(record(name, step), new, vectors(some, 1000 + step))
                expected[name] = (new, vectors(some, 1000 + step), name)
            case "texts":
                database.put([text_id], chunks(texts_of(made)), vectors(1, 5000 + step))
                expected[text_id] = (chunks(texts_of(made)), vectors(1, 5000 + step), None)
            case "remove":
                assert database.remove_files([name]) == (expected.pop(name, None) is not None)
            case "delete":
                assert database.delete([text_id, "never"]) == (expected.pop(text_id, None) is not None)
    return expected


@pytest.mark.parametrize("loader", [None, no_extension], ids=["sqlite-vec", "without"])
@pytest.mark.parametrize("seed", range(3))
def test_an_index_that_changed_a_lot_equals_one_built_anew(
    tmp_path: Path, seed: int, loader: Callable | None
) -> None:
    options = {} if loader is None else {"loader": loader}
    with Database(tmp_path / "old.q3e", SPACE, **options) as old, Database(tmp_path / "new.q3e", SPACE) as new:
        expected = change_at_random(old, seed)
        times = {path: each.mtime_ns / 1e9 for path, each in old.files().items()}
        for name, (some, of_chunks, path) in expected.items():
            if path is None:
                new.put([name], some, of_chunks)
            else:
                new.replace_file(record(path, times[path]), some, of_chunks)
        assert everything(old) == everything(new)
        assert answers(old) == answers(new)
        assert {path: each.n_chunks for path, each in old.files().items()} == {
            name: len(some) for name, (some, _, path) in expected.items() if path
        }
    if loader is None:
        with Database.open(tmp_path / "old.q3e") as database:
            rows = {e.row: v for w in database.entries() for e, v in zip(w.entries, w.vectors, strict=True)}
        codes = stored_codes(tmp_path / "old.q3e")
        assert codes == {row: np.rint(vector * 127).astype(np.int8).tobytes() for row, vector in rows.items()}


def test_exact_search_equals_numpy_and_equal_scores_come_by_id(tmp_path: Path) -> None:
    stored = np.concatenate([vectors(60), vectors(40), vectors(20, 3)])  # forty are there twice
    names = [f"{number * 37 % 120:03}" for number in range(120)]
    with Database.create(tmp_path / "a.q3e", SPACE) as database:
        database.put(names, chunks(*names), stored)
        for query in [*vectors(5, 7), stored[3]]:
            for k in (1, 2, 7, 119, 200):
                expected, scores = by_numpy(names, stored, query, k)
                for ranked in (database.exact(query, k), database.nearest(query, k)):
                    assert ids(database, ranked) == expected
                    assert np.allclose(ranked.scores, scores, atol=1e-6, rtol=0)


def test_two_stages_find_what_exact_search_finds_and_say_how(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    centres = random.standard_normal((60, 1024)).astype(np.float32)
    stored = finish(np.repeat(centres, 100, axis=0) + random.standard_normal((6000, 1024)).astype(np.float32) * 2)
    with Database.create(tmp_path / "a.q3e", IndexSpace("demo", "ab" * 32, 1024)) as database:
        database.put(None, chunks(*map(str, range(6000))), stored)
        hits = 0
        for query in finish(centres[:20] + random.standard_normal((20, 1024)).astype(np.float32) * 2):
            exact, quick = database.exact(query, 10), database.nearest(query, 10)
            hits += len(set(exact.rows.tolist()) & set(quick.rows.tolist()))
            scores = dict(zip(exact.rows.tolist(), exact.scores.tolist(), strict=True))
            for row, score in zip(quick.rows.tolist(), quick.scores.tolist(), strict=True):
                assert scores.get(row, score) == score
        assert hits >= 0.98 * 200
        assert re.fullmatch(
            r"first stage: scanned 1024-bit codes of 6,000 chunks \(of all 1024 numbers\) for the 8\d\d nearest",
            quick.explained[0],
        )
        assert quick.explained[1:] == ("second stage: ordered those by their full vectors of 1024 numbers",)
        assert exact.explained == ("exact: compared the full vectors of 6,000 chunks",)


@pytest.mark.parametrize("dim", [32, 64, 128, 256])
def test_of_small_vectors_a_shortlist_has_the_nearest_too(tmp_path: Path, dim: int) -> None:
    """Of these 20,000, a shortlist by signs has 0.73 to 0.78 of the first ten."""
    stored = vectors(20_000, 4, dim)
    with Database.create(tmp_path / "a.q3e", IndexSpace("demo", "ab" * 32, dim)) as database:
        database.put(None, chunks(*["x"] * len(stored)), stored)
        hits = 0
        for query in vectors(20, 5, dim):
            ranked = database.nearest(query, 10)
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
    tmp_path: Path, dim: int, spread: float, is_told: bool
) -> None:
    random = np.random.default_rng(9)
    stored, queries = (
        finish((1 - spread + spread * random.random((n, dim))).astype(np.float32)) for n in (12_000, 10)
    )
    with Database.create(tmp_path / "a.q3e", IndexSpace("", "", dim)) as database:
        database.put(None, chunks(*["x"] * len(stored)), stored)
        for query in queries:
            ranked = database.nearest(query, 10)
            assert ranked.rows.tolist() == database.exact(query, 10).rows.tolist()
            assert ("in vain: too many are equally near" in ranked.explained[0]) is is_told


@dataclass(repr=False)
class Filed:
    """An index and what was put in: for each chunk its id, path and time, and its vector."""

    database: Database
    places: list[tuple[str, str | None, float]]
    stored: np.ndarray


@pytest.fixture(scope="module")
def filed(tmp_path_factory: pytest.TempPathFactory) -> Filed:
    """4,000 chunks in 40 files and 200 texts of one's own."""
    database = Database.create(tmp_path_factory.mktemp("filed") / "a.q3e", SPACE)
    stored, places = vectors(4200, 11), []
    for number in range(40):
        path = f"/home/me/{'notes' if number % 4 else 'papers'}/{number}.{'md' if number % 3 else 'txt'}"
        some = stored[number * 100 : number * 100 + 100]
        database.replace_file(record(path, 1000 + number), chunks(*map(str, range(100))), some)
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
    assert ids(database, database.exact(query, k, filters)) == expected
    found = ids(database, database.nearest(query, k, filters))
    assert set(found) <= {places[place][0] for place in kept}
    assert len(found) == len(expected)
    if len(kept) <= 3200:
        assert found == expected
    by_words = ids(database, database.words(database.counted(terms_of("17")).found, 4200, filters))
    assert sorted(by_words) == sorted(places[place][0] for place in kept if place % 100 == 17)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("*.md", ["/a/b.md", "b.md"], ["/a/b.mdx", "/a/b.txt"]),
        ("notes/**", ["/me/notes/a/b.md", "notes/a"], ["/me/notebooks/a", "/me/notes.md"]),
        ("notes", ["/me/notes/a/b.md"], ["/me/note/a"]),
        ("notes/", ["/me/notes/a/b.md"], ["/me/mynotes/a"]),
        ("notes/*.md", ["/me/notes/a.md"], ["/me/notes/a/b.md"]),
        ("notes/**/x.md", ["/notes/x.md", "/notes/a/b/x.md"], ["/notes/ax.md"]),
        ("/me/*.md", ["/me/a.md"], ["/x/me/a.md", "/me/b/a.md"]),
        ("C:\\me\\*.md", ["C:/me/a.md"], ["D:/me/a.md"]),
        ("[ab]?.md", ["/a1.md", "b2.md"], ["c1.md", "a.md", "a/.md"]),
        ("[!ab].md", ["c.md"], ["a.md"]),
        ("[a-c-]&[]x].md", ["b&].md", "-&x.md"], ["d&x.md"]),
        ("报告*.md", ["/文/报告 (1).md"], ["/文/报.md"]),
        ("a[.md", ["/x/a[.md"], ["/x/a.md"]),
        ("a.(md|txt)+$", ["a.(md|txt)+$"], ["a.md"]),
        ("*a*b", ["xaxb", "b/aab"], ["ba", "a/b"]),
        ("a/**/b/*.md", ["a/b/x.md", "/a/b/c/b/x.md"], ["a/c/b/d/x.md"]),
        ("**", ["a", "/a/b"], []),
        ("[a--b&&[c]", ["a", "&", "["], ["d", "-", "/"]),
        # Tried one way after the other, these would take longer than the world is old.
        ("*a" * 40 + "b", ["a" * 255 + "b"], ["a" * 255]),
        ("**/" * 40 + "x", ["a/" * 200 + "x"], ["a/" * 200 + "b"]),
    ],
)
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes + no if pattern(glob).fullmatch(path)] == yes


@given(st.text("ab/*?[]!^-&|~.\\(", max_size=12))
def test_any_glob_is_read_or_refused(glob: str) -> None:
    try:
        found = pattern(glob)
    except OptionError as error:
        assert repr(glob) in str(error)  # noqa: PT017
    else:
        assert set(glob) & set("*?[") or not found.fullmatch("xyz")


# Codes where sqlite-vec is and where it is not.


def test_without_sqlite_vec_answers_are_the_same_and_codes_are_made_up_for(tmp_path: Path) -> None:
    path = tmp_path / "a.q3e"
    many = vectors(4000, 2)
    with Database(path, SPACE) as with_it:
        with_it.put([str(n) for n in range(4000)], chunks(*map(texts_of, range(4000))), many)
    with Database(path, loader=no_extension) as without:
        assert without.facts().has_codes  # read from the tables below sqlite-vec's
        before = answers(without)
        without.delete([str(n) for n in range(0, 4000, 7)])
        without.put(["new"], chunks("alpha new"), vectors(1, 99))
        assert not without.facts().has_codes
        after = answers(without)
        assert before != after
        with Database.open(path) as other:
            assert answers(other) == after
            assert not other.facts().has_codes  # who reads does not write
            other.put(["newer"], chunks("beta"), vectors(1, 98))
            assert other.facts().has_codes
            assert len(stored_codes(path)) == other.n_chunks() == without.n_chunks()


# Several at once.


def test_readers_see_one_state_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.q3e"
    with Database.create(path, SPACE) as database:
        database.put(None, chunks("alpha", "beta"), vectors(2))
        before, state = answers(database), everything(database)
        writer = apsw.Connection(str(path))
        writer.execute("BEGIN IMMEDIATE; DELETE FROM chunks; DELETE FROM vectors")
        assert answers(database) == before
        assert everything(database) == state
        writer.execute("ROLLBACK")
        windows = database.entries(1)
        first = next(windows)
        database.delete(["1", "2"])
        assert [entry.id for window in [first, *windows] for entry in window.entries] == ["1", "2"]
        assert everything(database) == {}


def test_a_question_is_answered_of_one_state_whatever_is_stored_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database.create(tmp_path / "a.q3e", SPACE) as database, Database.open(tmp_path / "a.q3e") as other:

        def store() -> None:
            other.replace_file(record("a.md"), chunks(*map(texts_of, range(6))), vectors(6))

        def nearest(*args: object) -> Ranked:
            ranked = Database.nearest(database, *args)
            store()
            return ranked

        store()
        monkeypatch.setattr(database, "nearest", nearest)
        found = ask(database, Question("alpha", vectors(6)[2], 3, "vectors", False, Filters()))
        assert len(found) == 3
        assert found.hits[0].id == "a.md#2"
        assert len(database.entries_of(range(100))) == 6
        assert min(entry.row for entry in database.entries_of(range(100))) == 7  # they are others now


def test_a_connection_takes_no_extension_once_it_is_open() -> None:
    class Refusing(apsw.Connection):
        def load_extension(self, filename: str, entrypoint: str | None = None) -> None:
            raise apsw.ExtensionLoadingError("not here")

    connection = Refusing(":memory:")
    with pytest.raises(apsw.ExtensionLoadingError):
        load_sqlite_vec(connection)
    with pytest.raises(apsw.SQLError, match="not authorized"):
        connection.execute("SELECT load_extension('x')")


def test_threads_write_and_read_one_index(tmp_path: Path) -> None:
    with Database.create(tmp_path / "a.q3e", SPACE) as database:

        def work(number: int) -> None:
            for turn in range(8):
                name = f"{number}-{turn}"
                database.put([name], chunks(name), vectors(1, number * 100 + turn))
                assert ids(database, database.nearest(vectors(1, number * 100 + turn)[0], 1)) == [name]

        failed: list[BaseException] = []
        threads = [threading.Thread(target=_caught(work, failed), args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert database.n_chunks() == 32


def test_those_who_make_one_index_at_once_share_it(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        with Database.create(tmp_path / "a.q3e", SPACE) as database:
            database.put([str(number)], chunks("x"), vectors(1, number))

    threads = [threading.Thread(target=_caught(work, failed), args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with Database.open(tmp_path / "a.q3e") as database:
        assert sorted(everything(database)) == ["0", "1", "2", "3", "4", "5"]


def _caught(work: Callable[[int], None], failed: list[BaseException]) -> Callable[[int], None]:
    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    return run


_WRITER = """
import sys
sys.path.insert(0, {tests!r})
from search.test_database import *
with Database.create(sys.argv[1], SPACE) as database:
    print("ready", flush=True)
    for turn in range(100_000):
        n = 1 + turn % 30
        database.replace_file(record(f"{{turn % 20}}.md", turn), chunks(*map(texts_of, range(n))), vectors(n, turn))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("delay_s", [0.05, 0.31])
def test_a_writer_that_is_killed_leaves_whole_files(tmp_path: Path, delay_s: float) -> None:
    path = tmp_path / "a.q3e"
    script = _WRITER.format(tests=str(TESTS))
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        threading.Event().wait(delay_s)
        writer.send_signal(signal.SIGKILL)
    with Database.open(path) as database:
        found = everything(database)
        for name, each in database.files().items():
            turn = each.mtime_ns // 10**9
            assert each.n_chunks == 1 + turn % 30
            expected = vectors(each.n_chunks, turn)
            assert [found.pop(f"{name}#{n}")[3] for n in range(each.n_chunks)] == [v.tobytes() for v in expected]
        assert not found
        assert (
            len(stored_codes(path)) == database.n_chunks() == sum(each.n_chunks for each in database.files().values())
        )
        database.replace_file(record("after.md"), chunks("alpha"), vectors(1))
    assert apsw.Connection(str(path)).execute("PRAGMA integrity_check").get == "ok"


# Files that are not what they should be.


def sqlite_of_another(path: Path) -> None:
    apsw.Connection(str(path)).execute("CREATE TABLE theirs (x)")


def newer(path: Path) -> None:
    Database.create(path, SPACE).close()
    apsw.Connection(str(path)).execute("PRAGMA user_version = 99")


def torn(path: Path) -> None:
    with Database.create(path, SPACE) as database:
        database.put(None, chunks(*(texts_of(n) * 50 for n in range(500))), vectors(500))
    content = bytearray(path.read_bytes())
    for place in range(32768 * 2, len(content)):
        content[place] ^= 0x5A
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no index"),
        (lambda path: path.mkdir(), "is a folder, not an index"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"no database at all" * 100), "is damaged or not an index"),
        (sqlite_of_another, "of another program"),
        (newer, "has schema 99, this version of q3e-local knows up to 1"),
        (torn, "is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "a.q3e"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(IndexFileError, match=message) as told, Database.open(path) as database:
        everything(database)
    assert str(path) in str(told.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    if before:
        with pytest.raises(IndexFileError), Database.create(path, SPACE) as database:
            everything(database)


@pytest.mark.parametrize(
    ("dim", "damage"),
    [
        (DIM, "UPDATE meta SET value = 'x' WHERE key = 'dim'"),
        (DIM, "UPDATE meta SET value = 0 WHERE key = 'dim'"),
        (DIM, "UPDATE meta SET value = -5 WHERE key = 'dim'"),
        (DIM, "DELETE FROM meta WHERE key = 'digest'"),
        (DIM, "DELETE FROM meta WHERE key = 'created_at'"),
        (DIM, "UPDATE chunks SET headings = '['"),
        (DIM, "UPDATE chunks SET headings = '3'"),
        (DIM, "UPDATE codes_vector_chunks00 SET vectors = x'00'"),
        (DIM, "UPDATE codes_chunks SET validity = x'ff'"),
        (320, "UPDATE codes_vector_chunks00 SET vectors = x'0000000000'"),
        (320, "UPDATE codes_chunks SET rowids = x'00'"),
        (DIM, "UPDATE vectors SET vector = x'00'"),
    ],
)
def test_whatever_is_damaged_is_told_as_damage(tmp_path: Path, dim: int, damage: str) -> None:
    path = tmp_path / "a.q3e"
    with Database.create(path, IndexSpace("demo", "ab" * 32, dim)) as database:
        database.put(None, chunks(*["x"] * 5000), vectors(5000, dim=dim))
    apsw.Connection(str(path)).execute(damage)

    def read() -> None:
        with Database.open(path) as database:
            database.facts()
            everything(database)
            database.nearest(vectors(1, dim=dim)[0], 10)

    with pytest.raises(IndexFileError, match="is damaged or not an index"):
        read()


@pytest.mark.skipif(sys.platform == "win32", reason="rights are others there")
def test_an_index_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "indexes_folder", lambda: tmp_path / "indexes")
    with locate.alone(tmp_path / "indexes" / "a.q3e"):
        modes = {each.name: oct(each.stat().st_mode & 0o777) for each in tmp_path.rglob("*")}
    assert modes == {"indexes": "0o700", "a.q3e.lock": "0o600"}
    tmp_path /= "indexes"
    (tmp_path / "a.q3e.lock").unlink(missing_ok=True)
    with Database.create(tmp_path / "a.q3e", SPACE) as database:
        database.put(["a"], chunks("alpha"), vectors(1))
        assert {each.name: oct(each.stat().st_mode & 0o777) for each in tmp_path.iterdir()} == dict.fromkeys(
            ("a.q3e", "a.q3e-wal", "a.q3e-shm"), "0o600"
        )


@pytest.mark.skipif(sys.platform == "win32", reason="rights are others there")
def test_who_may_only_read_sees_what_the_owner_wrote_since() -> None:
    script = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from search.test_database import *
import sqlite_vec
query = vectors(1)[0]
if os.getuid() == 0:  # whom rights do not bind
    os.setuid(65534)
with Database.open(sys.argv[1]) as database:
    for _ in range(3):
        print(ids(database, database.nearest(query, 5)), database.n_chunks(), flush=True)
        sys.stdin.readline()
"""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "a.q3e"
        with Database.create(path, SPACE) as database:
            database.put(["a"], chunks("alpha"), vectors(1))
        path.chmod(0o644)
        folder.chmod(0o755)
        command = [sys.executable, "-c", script, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "['a'] 1\n"
            for name, expected in (("b", "['a', 'b'] 2\n"), ("c", "['a', 'b', 'c'] 3\n")):
                owner = Database.open(path)
                owner.put([name], chunks("beta"), vectors(1))
                if name == "b":
                    owner.close()  # and nothing is beside the file
                reader.stdin.write("\n")
                reader.stdin.flush()
                assert reader.stdout.readline() == expected
            owner.close()
            reader.stdin.close()


@pytest.mark.skipif(sys.platform == "win32", reason="rights are others there")
def test_a_read_only_index_can_be_searched_and_says_so_when_written() -> None:
    script = f"""
import os, sys, urllib.parse
sys.path.insert(0, {str(TESTS)!r})
from search.test_database import *
import sqlite_vec
query = vectors(1)[0]
if os.getuid() == 0:  # whom rights do not bind
    os.setuid(65534)
with Database.open(sys.argv[1]) as database:
    print(ids(database, database.nearest(query, 1)))
    try:
        database.delete(["a"])
    except IndexFileError as error:
        print(error)
"""
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to others
        folder = Path(name)
        with Database.create(folder / "a.q3e", SPACE) as database:
            database.put(["a"], chunks("alpha"), vectors(1))
        (folder / "a.q3e").chmod(0o444)
        folder.chmod(0o555)
        answer = subprocess.run([sys.executable, "-c", script, str(folder / "a.q3e")], capture_output=True, text=True)
        folder.chmod(0o755)
    assert answer.stdout.splitlines()[:1] == ["['a']"], answer.stderr
    assert "cannot be written" in answer.stdout


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (IndexSpace("qwen3-embedding:4b", "cd" * 32, DIM), "32-dim vectors of demo, not 32-dim vectors of qwen3-emb"),
        (IndexSpace("demo", "ab" * 32, 64), "32-dim vectors of demo, not 64-dim vectors of demo"),
        (IndexSpace("demo", "ab" * 32, DIM, "Instruct: x"), "not 32-dim vectors of demo with the instruction 'Instr"),
        (
            IndexSpace("demo", "cd" * 32, DIM),
            r"of demo \(file abababab\), not 32-dim vectors of demo \(file cdcdcdcd",
        ),
    ],
)
def test_another_space_is_refused_with_both_named(tmp_path: Path, other: IndexSpace, named: str) -> None:
    Database.create(tmp_path / "a.q3e", SPACE).close()
    with pytest.raises(SpaceMismatchError, match=named):
        Database.create(tmp_path / "a.q3e", other)
    Database.create(tmp_path / "a.q3e", IndexSpace("another name", "ab" * 32, DIM)).close()


def test_an_older_schema_is_brought_up_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.q3e"
    with Database.create(path, SPACE) as database:
        database.put(["a"], chunks("alpha"), vectors(1))
        before = everything(database)

    def add(connection: apsw.Connection) -> None:
        connection.execute("ALTER TABLE files ADD COLUMN colour TEXT")

    def fail(connection: apsw.Connection) -> None:
        connection.execute("DROP TABLE chunks; SELECT nonsense FROM nowhere")

    with pytest.raises(IndexFileError):
        Database(path, migrations=[add, fail])
    with Database.open(path) as database:
        assert database.facts().schema == 1
    with Database(path, migrations=[add]) as database:
        assert (database.facts().schema, everything(database)) == (2, before)
    with pytest.raises(IndexFileError, match="schema 2"):
        Database.open(path)
    with Database(tmp_path / "new.q3e", SPACE, migrations=[add]) as database:
        assert database.facts().schema == 2


def test_what_cannot_be_stored_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    with Database.create(tmp_path / "a.q3e", SPACE) as database:
        database.replace_file(record("f.md"), chunks("alpha"), vectors(1))
        before = everything(database)
        for wrong in (
            vectors(2),
            vectors(1, dim=16),
            vectors(1).astype(np.float64),
            vectors(1) * 2,
            vectors(1) * np.nan,
        ):
            with pytest.raises(OptionError, match="vectors must"):
                database.put(["a"], chunks("beta"), wrong)
        with pytest.raises(OptionError, match="'a' is given twice"):
            database.put(["a", "a"], chunks("x", "y"), vectors(2))
        with pytest.raises(OptionError, match=r"'f\.md#0' is a chunk of a file"):
            database.put(["f.md#0"], chunks("x"), vectors(1))
        with pytest.raises(OptionError, match=r"'f\.md#0' is a chunk of a file"):
            database.delete(["f.md#0"])
        with pytest.raises(InvalidTextError, match="text 0: character 1 is a lone surrogate"):
            database.put(["a"], chunks("x\udc80"), vectors(1))
        with pytest.raises(OptionError, match="a vector of 16 numbers cannot be searched"):
            database.nearest(vectors(1, dim=16)[0], 1)
        assert everything(database) == before


def test_a_file_that_stays_is_touched_and_gives_back_its_chunks(tmp_path: Path) -> None:
    with Database.create(tmp_path / "a.q3e", SPACE) as database:
        database.put(["own"], chunks("x"), vectors(1, 1))
        database.replace_file(record("文/f \"'.md", 5), chunks("alpha", "beta"), vectors(2))
        database.replace_file(record("empty.md", 5), [], vectors(0))
        window = database.of_file("文/f \"'.md")
        assert [entry.chunk for entry in window.entries] == chunks("alpha", "beta")
        assert np.array_equal(window.vectors, vectors(2))
        assert not database.of_file("nowhere").entries
        database.touch_file(record("文/f \"'.md", 9))
        files = database.files()
        assert [(path, each.mtime_ns, each.n_chunks) for path, each in files.items()] == [
            ("文/f \"'.md", 9 * 10**9, 2),
            ("empty.md", 5 * 10**9, 0),
        ]
        facts = database.facts()
        assert (facts.n_files, facts.n_chunks, facts.n_tokens) == (2, 3, 14)
        assert database.remove_files(["文/f \"'.md", "empty.md", "nowhere"]) == 2
        assert sorted(everything(database)) == ["own"]


def test_new_ids_pass_over_those_that_are_taken(tmp_path: Path) -> None:
    with Database.create(tmp_path / "a.q3e", SPACE) as database:
        database.put(["3", "b"], chunks("x", "y"), vectors(2))
        assert database.put(None, chunks("p", "q"), vectors(2, 1)) == ["4", "5"]
        assert database.put(["7"], chunks("r"), vectors(1, 2)) == ["7"]
        assert database.put(None, chunks("s", "t", "u"), vectors(3, 3)) == ["6", "8", "9"]


# Another space in the same file.


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
            bystander.nearest(vectors(1)[0], 1)
        with pytest.raises(SpaceMismatchError):
            bystander.put(["x"], chunks("x"), vectors(1))
        names = [str(n) for n in range(50) if n not in (0, 30)] + ["new"]
        stored = np.stack([new[name] if name in new else vectors(1, 9, 48)[0] for name in names])
        query = vectors(1, 5, 48)[0]
        assert ids(database, database.nearest(query, 7)) == by_numpy(names, stored, query, 7)[0]
        database.compact()
        assert len(stored_codes(path)) == 49
        assert ids(database, database.nearest(query, 7)) == by_numpy(names, stored, query, 7)[0]


@pytest.mark.parametrize("dim", [256, 512, 768, 1024, 2560, 4096])
def test_a_vector_takes_little_more_than_its_numbers(tmp_path: Path, dim: int) -> None:
    with Database.create(tmp_path / "a.q3e", IndexSpace("demo", "ab" * 32, dim)) as database:
        database.put(None, chunks(*["x"] * 500), vectors(500, dim=dim))
    connection = apsw.Connection(str(tmp_path / "a.q3e"))
    taken = connection.execute("SELECT sum(pgsize) FROM dbstat WHERE name = 'vectors'").get / 500
    assert taken == pytest.approx(stored_bytes(4 * dim, page_bytes(dim)), rel=0.06)
    assert taken < 1.22 * 4 * dim


def test_a_closed_index_says_so(tmp_path: Path) -> None:
    database = Database.create(tmp_path / "a.q3e", SPACE)
    database.close()
    database.close()
    for use in (database.files, database.facts, database.n_chunks, lambda: database.delete(["a"])):
        with pytest.raises(IndexFileError, match="is closed"):
            use()
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
