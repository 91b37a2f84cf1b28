"""Threads and processes share an index: readers see one state, and a writer that is killed leaves whole files."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from made_indexes import SPACE, answers, chunks, everything, n_chunks, record, stored_codes, texts_of, vectors
from paths import TESTS

from q3e_local.search.ask import Question, ask
from q3e_local.search.database import Database, chunk_table, file_table
from q3e_local.search.database.records import Filters, Ranked
from q3e_local.search.database.snapshot import Snapshot
from q3e_local.search.passages import from_id, held_file


def test_readers_see_one_state_while_another_process_writes(database: Database) -> None:
    database.put(None, chunks("alpha", "beta"), vectors(2))
    before, state = answers(database), everything(database)
    writer = apsw.Connection(str(database.path))
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
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database.open(database.path) as other:

        def store() -> None:
            other.replace_file(record("a.md"), chunks(*map(texts_of, range(6))), vectors(6))

        def nearest_and_store(*args: object) -> Ranked:
            ranked = nearest_alone(*args)
            store()
            return ranked

        store()
        nearest_alone = Snapshot.nearest
        monkeypatch.setattr(Snapshot, "nearest", nearest_and_store)
        with database.snapshot() as state:
            found = ask(state, Question("alpha", vectors(6)[2], 3, "vectors", False, Filters()))
    assert len(found) == 3
    assert found.hits[0].id == "a.md#2"
    with database.snapshot() as state:
        rows = [entry.row for entry in state.entries_of(range(100))]
    assert rows == [7, 8, 9, 10, 11, 12]  # of the file that was stored meanwhile


def test_a_part_of_a_file_is_of_one_state_whatever_is_stored_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def then(read: Callable[..., Any], store: Callable[[], None]) -> Callable[..., Any]:
        def both(*args: Any) -> Any:
            found = read(*args)
            store()
            return found

        return both

    def store(digest: str, *texts: str) -> None:
        other.replace_file(replace(record("a.md"), digest=digest), chunks(*texts), vectors(len(texts)))

    with Database.open(database.path) as other:
        store("old", "old 0", "old 1", "old 2")
        with monkeypatch.context() as patch:
            patch.setattr(chunk_table, "entries", then(chunk_table.entries, lambda: store("new", "new 0", "new 1")))
            part = from_id(database, "a.md#1", 3)
        assert [piece.text for piece in part.pieces] == ["old 1", "old 2"]
        store("old", "old 0", "old 1", "old 2")
        with monkeypatch.context() as patch:
            patch.setattr(file_table, "one", then(file_table.one, lambda: store("new", "new 0", "new 1")))
            held = held_file(database, "a.md")
        assert (held.record.digest, [entry.chunk.text for entry in held.passages]) == (
            "old", ["old 0", "old 1", "old 2"],
        )  # fmt: skip
        assert [entry.chunk.text for entry in held_file(database, "a.md").passages] == ["new 0", "new 1"]


def test_threads_that_make_an_index_at_once_share_it(path: Path) -> None:
    def work(number: int) -> None:
        with Database.create(path, SPACE) as database:
            database.put([str(number)], chunks("x"), vectors(1, number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    with Database.open(path) as database:
        assert sorted(everything(database)) == ["0", "1", "2", "3", "4", "5"]


_WRITER = """
import sys
sys.path.insert(0, {tests!r})
from made_indexes import *
with Database.create(sys.argv[1], SPACE) as database:
    print("ready", flush=True)
    for turn in range(100_000):
        n = 1 + turn % 30
        database.replace_file(record(f"{{turn % 20}}.md", turn), chunks(*map(texts_of, range(n))), vectors(n, turn))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("delay_s", [0.05, 0.31])
def test_a_writer_that_is_killed_leaves_whole_files(path: Path, delay_s: float) -> None:
    script = _WRITER.format(tests=str(TESTS))
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
    with Database.open(path) as database:
        found = everything(database)
        assert len(stored_codes(path)) == n_chunks(database) == len(found)
        for name, file in database.files().items():
            turn = file.mtime_ns // 10**9
            assert file.n_chunks == 1 + turn % 30
            expected = vectors(file.n_chunks, turn)
            assert [found.pop(f"{name}#{n}")[3] for n in range(file.n_chunks)] == [v.tobytes() for v in expected]
        assert not found
        database.replace_file(record("after.md"), chunks("alpha"), vectors(1))
    assert apsw.Connection(str(path)).execute("PRAGMA integrity_check").get == "ok"
