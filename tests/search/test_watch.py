"""`q3e-local index --watch` indexes the files that change, and no others, until Ctrl-C."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from command import PROGRAM, run, write

if sys.platform == "win32":
    pytest.skip("Windows sends Ctrl-C to no single process", allow_module_level=True)


class Watching:
    """The command in a process, whose stderr a thread reads line by line."""

    def __init__(self, *arguments: str) -> None:
        command = [*PROGRAM, "index", *arguments, "-m", "demo", "-d", "32", "--threads", "1"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def says(self, beginning: str) -> str:
        """The next line that begins so; lines before it are passed over."""
        while True:
            line = self._lines.get(timeout=60)
            if line.startswith(beginning):
                return line

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(line)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "notes", {"a.txt": "zebra", "b.txt": "walrus", ".hidden/c.txt": "no"})
    write(tmp_path / "disk", {"z.txt": "penguin"})
    return tmp_path / "notes"


def texts(word: str) -> int:
    """How many texts of the index have a word."""
    return len(run("search", word, "--words-only", "--db", "notes/n.q3e").stdout.splitlines())


def test_what_changes_is_indexed_and_ctrl_c_ends(folder):
    watching = Watching("notes", "disk", "--db", "notes/n.q3e", "--watch")
    try:
        assert watching.says("files:") == "files: 3 new\n"
        watching.says("watching for changes; Ctrl-C ends")

        write(folder, {"a.txt": "giraffe", "sub/d.txt": "giraffe too", ".e.txt": "hidden"})
        assert watching.says("files:") == "files: 1 new, 1 changed, 2 unchanged\n"
        watching.says("chunks: 2")
        assert (texts("giraffe"), texts("zebra")) == (2, 0)

        # A search, a hidden file and the files beside the index are no changes: the next line is about b.txt.
        write(folder, {".f.txt": "hidden"})
        (folder / "b.txt").unlink()
        assert watching.says("files:") == "files: 3 unchanged, 1 removed\n"

        # A file that cannot be read is reported in the first run that finds it, and not again.
        write(folder, {"broken.pdf": b"%PDF-1.4 nothing"})
        assert "notes/broken.pdf" in watching.says("skipped 1:")
        write(folder, {"a.txt": "giraffe again"})
        assert watching.says("files:") == "files: 1 changed, 2 unchanged\n"
        assert watching.says("").startswith("chunks: 1")
        assert watching.says("").startswith("notes/n.q3e holds")

        # A folder that is gone does not end the command, and its texts stay in the index.
        Path("disk").rename("away")
        assert "disk, and the index has 1 file of it" in watching.says("Error:")
        assert texts("penguin") == 1
    finally:
        assert watching.stop() == 0


def test_a_named_file_that_an_editor_saves_is_seen_each_time(folder):
    """An editor may save a file by renaming another file to its name. A folder is watched at the same time."""
    watching = Watching("notes/a.txt", "disk", "--db", "n.q3e", "--watch")
    try:
        watching.says("watching for changes; Ctrl-C ends")
        for text in ("giraffe", "giraffe once more", "and once more"):
            write(folder, {".a.txt.swap": text, "b.txt": text})
            (folder / ".a.txt.swap").rename(folder / "a.txt")
            assert watching.says("files:") == "files: 1 changed, 1 unchanged\n"
        write(Path("disk"), {"z.txt": "seal"})
        assert watching.says("files:") == "files: 1 changed, 1 unchanged\n"
    finally:
        assert watching.stop() == 0
