"""Which files are found below folders: each real file once, in order, without what nobody wants searched."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import made_files
import pytest
from command import write

from q3e_local.errors import InputError
from q3e_local.reading import FoundFile, Skipped, walk


def found(folder: Path, *globs: str, paths: list[str] | None = None) -> list[str]:
    """Names below the folder of what was found, in order."""
    named = [folder] if paths is None else [folder / path for path in paths]
    files = (entry for entry in walk(named, globs) if isinstance(entry, FoundFile))
    return [file.path.relative_to(folder).as_posix() for file in files]


def skipped(folder: Path) -> dict[str, tuple[str, bool]]:
    entries = (entry for entry in walk([folder]) if isinstance(entry, Skipped))
    return {entry.path.name: (entry.reason, entry.is_expected) for entry in entries}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Not tmp_path itself: the tests' home is in that."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_files_come_sorted_with_size_and_time(folder):
    write(folder, {"b.md": "two", "a.txt": "one", "c/d/e.py": "x", "c/a.txt": "y", "Z.rst": "z", "文/记.md": "记"})
    assert found(folder) == ["Z.rst", "a.txt", "b.md", "c/a.txt", "c/d/e.py", "文/记.md"]
    first = next(iter(walk([folder])))
    assert isinstance(first, FoundFile)
    assert (first.size_bytes, first.mtime_ns) == (1, (folder / "Z.rst").stat().st_mtime_ns)


def test_every_kind_of_file_is_found(folder):
    assert sorted(found(made_files.folder(folder))) == sorted(made_files.FILES)


def test_hidden_files_and_folders_of_programs_are_not_found(folder):
    hidden = [".env", ".git/a.txt", "x/.venv/a.txt", "node_modules/a.js", "x/__pycache__/a.txt", "~$report.docx",
              "env/pyvenv.cfg", "env/a.py", "conda/conda-meta/history", "conda/a.py", ".DS_Store"]  # fmt: skip
    write(folder, dict.fromkeys([*hidden, "a.txt", "x/b.txt"], "text"))
    assert [entry.path.name for entry in walk([folder])] == ["a.txt", "b.txt"]
    assert found(folder, paths=[".env", ".git"]) == [".env", ".git/a.txt"]


def test_binaries_are_expected_and_documents_without_a_reader_are_not(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no LibreOffice
    write(folder, {
        "a.ZIP": b"", "b.png": b"", "c.mp4": b"", "d.gguf": b"", "e.so": b"", "f.sqlite": b"", "g.min.js": b"",
        "h.tar.gz": b"",
        "i.pages": b"", "j.doc": b"", "program": b"\x7fELF\x02\x01\x01" + bytes(99), "README": b"text", "k.js": b"",
        "l.unknown": "会议记录".encode("gb18030"),
    })  # fmt: skip
    assert found(folder) == ["README", "k.js", "l.unknown"]
    assert skipped(folder) == {
        "a.ZIP": ("archive", True), "b.png": ("picture", True), "c.mp4": ("audio or video", True),
        "d.gguf": ("model or data", True), "e.so": ("program", True), "f.sqlite": ("database", True),
        "g.min.js": ("generated code", True), "h.tar.gz": ("archive", True), "program": ("not text", True),
        "i.pages": ("no reader for .pages", False),
        "j.doc": ("no reader for .doc: install LibreOffice, which converts it, or save it as .docx", False),
    }  # fmt: skip
    # Whoever names a file expects it to be read.
    assert list(walk([folder / "a.ZIP"])) == [Skipped(folder / "a.ZIP", "archive")]


# Patterns, and what they find among the files below.
GLOBS = {
    ("*.md",): ["a.md", "B.MD", "x/c.md", "x/y/d.md"],
    ("*.MD", "*.py"): ["B.MD", "a.md", "e.py", "x/c.md", "x/y/d.md", "x/y/f.py"],
    ("x/**/*.md",): ["x/c.md", "x/y/d.md"],
    ("[!a-d].*",): ["e.py", "x/y/f.py"],
    ("*.csv",): [],
}


@pytest.mark.parametrize("globs", GLOBS)
def test_globs(folder, globs):
    write(folder, dict.fromkeys(["a.md", "B.MD", "e.py", "x/c.md", "x/y/d.md", "x/y/f.py"], "text"))
    assert sorted(found(folder, *globs)) == sorted(GLOBS[globs])


def test_a_file_named_twice_or_in_two_folders_comes_once(folder):
    write(folder, {"a.txt": "a", "x/b.txt": "b", "x/.c.txt": "c"})
    assert found(folder, paths=["x", ".", "x/b.txt", "a.txt", "x/../x"]) == ["x/b.txt", "a.txt"]
    assert found(folder, "*.md", paths=["x/.c.txt", "x"]) == ["x/.c.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a right there")
def test_links_are_followed_once_within_what_is_named_and_loops_end(folder):
    write(folder, {"in/b.txt": "b", "in/deep/c.txt": "c", "out/d.txt": "d", "out/e.txt": "e"})
    links = {
        "in/a.txt": "b.txt", "in/loop": "../in", "in/deep/up": "..", "in/other": "../out",
        "in/one.txt": "../out/d.txt", "in/picture.png": "../out/e.txt",
        "in/nothing.txt": "gone.txt", "in/self": "self",
    }  # fmt: skip
    for name, target in links.items():
        (folder / name).symlink_to(target)
    # b.txt is found by its real path, though a link to it sorts first; d.txt by the first link that leads to it.
    assert found(folder) == ["in/b.txt", "in/deep/c.txt", "out/d.txt", "out/e.txt"]
    assert found(folder, paths=["in", "out/d.txt"]) == ["in/b.txt", "in/deep/c.txt", "out/d.txt"]
    outside = ("link out of the folder; name its target too, if it is to be read", False)
    assert skipped(folder / "in") == {
        "nothing.txt": ("link to nothing", False), "self": ("link to nothing", False),
        "one.txt": outside, "other": outside,
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="POSIX permissions and names")
def test_what_cannot_be_read_or_named_is_skipped_with_a_reason(folder):
    write(folder, {"a.txt": "a", "closed/b.txt": "b", "secret": "c"})
    os.mkfifo(folder / "pipe.txt")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("x", encoding="utf-8")
    (folder / "closed").chmod(0)
    (folder / "secret").chmod(0)
    try:
        reasons = {ascii(name): reason for name, reason in skipped(folder).items()}
        assert reasons.pop(ascii("caf\udce9.txt")) == ("its name is not UTF-8; rename it", False)
        assert reasons.pop("'pipe.txt'") == ("no regular file", True)
        if os.geteuid() != 0:  # root may read everything
            denied = ("cannot be read: Permission denied", False)
            assert reasons == {"'closed'": denied, "'secret'": denied}
            assert found(folder) == ["a.txt"]
    finally:
        (folder / "closed").chmod(stat.S_IRWXU)


def test_a_name_that_does_not_exist_is_an_error_at_once(folder):
    with pytest.raises(InputError, match=r"^there is no file or folder .*nothing"):
        walk([folder, folder / "nothing"])


def test_paths_to_leave_out_are_left_out(folder):
    write(folder, {"a.txt": "a", "out.jsonl": "{}"})
    assert [entry.path.name for entry in walk([folder], leave_out=[folder / "out.jsonl", folder / "none"])] == [
        "a.txt"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="paths of 260 characters")
def test_folders_may_be_deep(folder):
    path = folder
    for _ in range(400):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "a.txt").write_text("a", encoding="utf-8")
    assert len(found(folder)) == 1
