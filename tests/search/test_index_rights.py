"""The rights of an index: its owner may write it, and other users may read it where its file lets them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from made_indexes import SPACE, chunks, reader, said_by_a_reader, vectors

from q3e_local.search import places
from q3e_local.search.database import Database

if sys.platform == "win32":
    pytest.skip("Windows has no permission bits of POSIX", allow_module_level=True)


def make(path: Path) -> None:
    with Database.create(path, SPACE) as database:
        database.put(["a"], chunks("alpha"), vectors(1))


def modes(folder: Path) -> dict[str, str]:
    return {file.name: oct(file.stat().st_mode & 0o777) for file in folder.rglob("*")}


def test_an_index_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "indexes"
    monkeypatch.setattr(places, "indexes_folder", lambda: folder)
    with places.alone(folder / "a.q3e"):
        assert modes(tmp_path) == {"indexes": "0o700", "a.q3e.lock": "0o600"}
    make(folder / "a.q3e")
    with Database.open(folder / "a.q3e"):
        assert modes(folder) == dict.fromkeys(("a.q3e", "a.q3e-wal", "a.q3e-shm"), "0o600")


def test_a_user_who_may_only_read_sees_what_the_owner_wrote_since() -> None:
    block = """
for _ in range(3):
    print(ids(database, nearest(database, vectors(1)[0], 5)), n_chunks(database), flush=True)
    sys.stdin.readline()
"""
    with tempfile.TemporaryDirectory() as name:  # the folders of pytest are closed to others
        folder, path = Path(name), Path(name) / "a.q3e"
        make(path)
        path.chmod(0o644)
        folder.chmod(0o755)
        with reader(path, block) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "['a'] 1\n"
            for name, expected in (("b", "['a', 'b'] 2\n"), ("c", "['a', 'b', 'c'] 3\n")):
                owner = Database.open(path)
                owner.put([name], chunks("beta"), vectors(1))
                if name == "b":
                    owner.close()  # SQLite then deletes what it keeps beside the file
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == expected
            owner.close()
            process.stdin.close()


def test_a_read_only_index_can_be_searched_and_says_so_when_written() -> None:
    found, error = said_by_a_reader(make, "print(ids(database, nearest(database, vectors(1)[0], 1)))")
    assert (found, "cannot be written" in error) == ("['a']", True)
