"""Without the extra `documents`: files that need it are named with the install line, all others are read."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import made_files
import pytest
from command import run
from paths import ROOT

from q3e_local.errors import MissingPackageError
from q3e_local.reading import FoundFile, Skipped, extras, office, read, walk
from q3e_local.reading.kinds import SUFFIXES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INSTALL = "; install it with: pip install 'q3e-local[documents]'"

# Each kind, the module that is hidden from its reader, and what is said then.
WITHOUT = {
    "bees.rst": ("docutils", "reading reStructuredText needs docutils"),
    "bread.html": ("lxml", "reading HTML pages needs lxml"),
    "report.pdf": ("pypdf", "reading PDF files needs pypdf"),
    "minutes.docx": ("docx", "reading Word documents needs python-docx"),
    "launch.pptx": ("pptx", "reading PowerPoint presentations needs python-pptx"),
    "costs.xlsx": ("openpyxl", "reading Excel workbooks needs openpyxl"),
    "ferry.odt": ("odfdo", "reading OpenDocument texts needs odfdo"),
    "orchard.rtf": ("striprtf", "reading Rich Text Format needs striprtf"),
    "quarry.eml": ("lxml", "reading mails needs lxml"),
    "novel.epub": ("lxml", "reading EPUB books needs lxml"),
}
BASE = sorted(set(made_files.FILES) - set(WITHOUT))
# What the packages of the extras are imported as, where that is another name.
MODULES = {
    "python-docx": "docx", "python-pptx": "pptx", "scikit-learn": "sklearn", "pytrec-eval-terrier": "pytrec_eval",
}  # fmt: skip


def names_of(requirements: list[str]) -> set[str]:
    """The names of the packages in requirements: no versions, no extras."""
    return {re.split(r"[\[<>=; ]", requirement)[0] for requirement in requirements}


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_missing_package_is_one_sentence_with_the_install_line(name, tmp_path, monkeypatch):
    path = tmp_path / name
    path.write_bytes(made_files.FILES[name]())
    module, said = WITHOUT[name]
    hide(monkeypatch, module)
    with pytest.raises(MissingPackageError) as raised:
        read(path)
    assert str(raised.value) == said + INSTALL
    assert list(walk([path])) == [Skipped(path, said + INSTALL)]


def test_old_documents_need_the_package_of_what_they_are_converted_to(tmp_path, monkeypatch):
    path = tmp_path / "letter.doc"
    path.write_bytes(b"\xd0\xcf\x11\xe0")
    module = sys.modules["q3e_local.reading.walk"]  # the name in the package is the function
    monkeypatch.setattr(module, "program", lambda: Path("soffice"))
    assert [type(found) for found in walk([path])] == [FoundFile]
    hide(monkeypatch, "docx")
    assert list(walk([path])) == [Skipped(path, "reading Word documents needs python-docx" + INSTALL)]


def test_index_skips_such_files_with_the_sentence_and_keeps_what_it_has_of_them(tmp_path, monkeypatch):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("letter.txt", "report.pdf"):
        (folder / name).write_bytes(made_files.FILES[name]())
    db = tmp_path / "notes.q3e"
    assert run("index", folder, "-m", "demo", "--db", db).exit_code == 0
    hide(monkeypatch, "pypdf")
    (folder / "new.pdf").write_bytes(made_files.pdf(["About zebras."]))
    again = run("index", folder, "--db", db)
    assert again.exit_code == 3
    assert f"skipped 2: reading PDF files needs pypdf{INSTALL}: " in again.stderr
    # What was indexed while the package was there is still found.
    found = run("search", "--db", db, "--words-only", "turbine")
    assert "report.pdf" in found.stdout
    assert run("search", "--db", db, "--words-only", "zebras").stdout == ""


def test_a_column_of_a_workbook_says_it_too(tmp_path, monkeypatch):
    path = tmp_path / "costs.xlsx"
    path.write_bytes(made_files.FILES["costs.xlsx"]())
    hide(monkeypatch, "openpyxl")
    result = run("embed", "-m", "demo", "--csv", "euros", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"Error: reading Excel workbooks needs openpyxl{INSTALL}\n" in result.stderr


def test_the_table_of_packages_is_that_of_the_project():
    extra = names_of(PROJECT["optional-dependencies"][extras.EXTRA])
    assert {package for _, _, package in extras._NEEDED.values()} == extra  # the names are in no other place
    assert not extra & names_of(PROJECT["dependencies"])
    assert not extras.KINDS - set(SUFFIXES)
    assert not extras.KINDS & set(office.CONVERTED)


# Who has such a store or such a card takes its extra by name.
NOT_FOR_ALL = {"chroma", "cuda", "lancedb", "milvus", "pgvector", "qdrant", "sqlite-vec"}


def test_all_is_every_extra_for_those_who_use_the_program():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    named = set(everything.partition("[")[2].rstrip("]").split(","))
    assert named == set(PROJECT["optional-dependencies"]) - {"all", "bench", "dev"} - NOT_FOR_ALL


def test_the_base_embeds_indexes_searches_and_has_a_server(tmp_path):
    """In a process that has never seen the packages of the extras, as a base installation has not.

    `index` would exit with 3, had it skipped one of the files that need no extra.
    """
    extra = PROJECT["optional-dependencies"]
    packages = names_of(
        [each for name in ("documents", "analysis", "eval", "parquet", "redis") for each in extra[name]]
    )
    hidden = sorted(MODULES.get(name, name) for name in packages)
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in BASE:
        (notes / name).write_bytes(made_files.FILES[name]())
    script = f"""
import sys
sys.modules.update(dict.fromkeys({hidden!r}))
from q3e_local.cli import main
from q3e_local.server import app, run

for arguments in (
    ["index", {str(notes)!r}, "-m", "demo", "--db", "notes.q3e"],
    ["search", "when does the pilot boat leave?", "--db", "notes.q3e", "-k", "1"],
    ["embed", {str(notes / "harbour.md")!r}, "-m", "demo", "-o", "one.npy"],
    ["serve", "--help"],
):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0, (arguments, end.code)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "harbour.md" in done.stdout
