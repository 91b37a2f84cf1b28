"""Old office documents: what LibreOffice makes of them is read, and whatever goes wrong with it is said."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import made_files
import psutil
import pytest
from command import run

from q3e_local.errors import InputError
from q3e_local.reading import FoundFile, Skipped, office, read, walk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for LibreOffice is a script with a #! line")

StandIn = Callable[..., Path]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """`stand_in(body)` puts a program `soffice` on the PATH. Its body knows `document`, `form` and `output`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def made(body: str) -> Path:
        program = folder / "soffice"
        program.write_text(
            f"#!{sys.executable}\n"
            "import os, pathlib, shutil, subprocess, sys, time\n"
            "arguments, document = sys.argv[1:-1], pathlib.Path(sys.argv[-1])\n"
            "form = arguments[arguments.index('--convert-to') + 1]\n"
            "output = pathlib.Path(arguments[arguments.index('--outdir') + 1])\n" + textwrap.dedent(body)
        )
        program.chmod(0o755)
        return program

    return made


def made(folder: Path, name: str, data: bytes = b"\xd0\xcf\x11\xe0 of old") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("names", "kind", "newer", "words"),
    [
        ("a.doc a.WPS", "doc", "minutes.docx", "The board met in Rotterdam"),
        ("a.ppt a.odp", "ppt", "launch.pptx", "Beta opens in March"),
        ("a.xls a.et", "xls", "costs.xlsx", "部门: 市场部; euros: 1200"),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_what_libreoffice_makes_of_a_document_is_read(tmp_path, stand_in, names, which, kind, newer, words):
    name, form = names.split()[which], Path(newer).suffix[1:]
    converted = made(tmp_path, newer, made_files.FILES[newer]())
    stand_in(f"""
        assert document.read_bytes() == {b"old " + name.encode()!r} and form == {form!r}
        output.mkdir()
        shutil.copy({str(converted)!r}, output / f"{{document.stem}}.{{form}}")
    """)
    old = made(tmp_path, name, b"old " + name.encode())
    assert [type(found) for found in walk([old])] == [FoundFile]
    document = read(old)
    assert words in document.text
    assert document.kind == kind
    assert document.sections == read(converted).sections


def test_without_libreoffice_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = made(tmp_path, "old.xls")
    why = "no reader for .xls: install LibreOffice, which converts it, or save it as .xlsx"
    assert list(walk([tmp_path])) == [Skipped(path, why)]
    with pytest.raises(InputError, match=why):
        read(path)


def test_a_command_names_what_it_left_out_for_want_of_libreoffice(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    folder = tmp_path / "notes"
    folder.mkdir()
    made(folder, "old.doc")
    made(folder, "new.rtf", made_files.RICH_TEXT)
    result = run("index", folder, "-m", "demo", "--db", tmp_path / "notes.q3e", "--no-cache")
    assert result.exit_code == 3
    assert "old.doc" in result.stderr
    assert "install LibreOffice" in result.stderr
    assert "1 new" in result.stderr


def test_a_document_that_libreoffice_cannot_load_is_refused_with_its_error(tmp_path, stand_in):
    stand_in("print('Error: source file could not be loaded', file=sys.stderr)")
    said = r"LibreOffice \(Error: source file could not be loaded\); it may be damaged"
    with pytest.raises(InputError, match=said):
        read(made(tmp_path, "a.doc"))


def test_a_program_that_does_not_start_is_an_error(tmp_path, stand_in):
    stand_in("").write_text("#!/no/such/interpreter\n")
    with pytest.raises(InputError, match=r"soffice does not start: No such file"):
        read(made(tmp_path, "a.doc"))


def is_dead(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_ZOMBIE


def test_a_hanging_conversion_ends_with_all_that_it_started(tmp_path, stand_in, monkeypatch):
    """soffice starts another program that computes: both are gone when reading gives up."""
    numbers = tmp_path / "pids"
    stand_in(f"""
        inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path({str(numbers)!r}).write_text(f"{{os.getpid()}} {{inner.pid}}")
        time.sleep(600)
    """)
    waits = office.subprocess.Popen.communicate

    def until_started(process, input=None, timeout=None):
        while timeout is not None and not (numbers.exists() and " " in numbers.read_text()):
            time.sleep(0.01)  # a busy machine starts Python late
        return waits(process, input, None if timeout is None else 0.01)

    monkeypatch.setattr(office.subprocess.Popen, "communicate", until_started)
    with pytest.raises(InputError, match="was not converted by LibreOffice within 180 s"):
        read(made(tmp_path, "a.doc"))
    left = [psutil.Process(int(pid)) for pid in numbers.read_text().split() if psutil.pid_exists(int(pid))]
    _, alive = psutil.wait_procs([process for process in left if not is_dead(process)], timeout=60)
    assert all(map(is_dead, alive))


@pytest.mark.skipif(office.program() is None, reason="LibreOffice is not installed")
def test_the_real_libreoffice_converts(tmp_path):
    """From .odt to .doc by LibreOffice itself, then read: the words survive both ways."""
    program = office.program()
    source = made(tmp_path, "ferry.odt", made_files.opendocument())
    profile = (tmp_path / "profile").as_uri()
    command = [program, f"-env:UserInstallation={profile}", "--headless", "--convert-to", "doc", "--outdir", tmp_path]
    office.subprocess.run([*command, source], check=True, capture_output=True, timeout=300)
    document = read(tmp_path / "ferry.doc")
    assert "成人票十二元。" in document.text
    assert "Harbour | Minutes\nTexel | 20" in document.text
    assert shutil.which("soffice") or program.is_file()
