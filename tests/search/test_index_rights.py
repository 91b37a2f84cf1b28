"""Who may read and write an index: its owner, and readers whom the rights of the file let in."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from made_indexes import SPACE, chunks, vectors
from paths import TESTS

from q3e_local.search import places as locate
from q3e_local.search.database import Database


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


# The beginning of a program that opens an index as a user who may only read it.
_AS_A_READER = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from made_indexes import *
from q3e_local.errors import IndexFileError
query = vectors(1)[0]
if os.getuid() == 0:  # whom rights do not bind
    os.setuid(65534)
with Database.open(sys.argv[1]) as database:"""


@pytest.mark.skipif(sys.platform == "win32", reason="rights are others there")
def test_who_may_only_read_sees_what_the_owner_wrote_since() -> None:
    script = f"""
{_AS_A_READER}
    for _ in range(3):
        print(ids(database, nearest(database, query, 5)), n_chunks(database), flush=True)
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
{_AS_A_READER}
    print(ids(database, nearest(database, query, 1)))
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
