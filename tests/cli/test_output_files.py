"""Files that `q3e-local embed` writes: kept, replaced, left whole or as they were, on full disks and behind links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import PROGRAM, embed, expected, listing, records, run, write

from q3e_local.cli.writing.formats import FORMATS, SUFFIXES, About
from q3e_local.cli.writing.outputs import open_output

LAYOUT = ["--lines", "文,a.txt"]


@pytest.fixture(autouse=True)
def _three_lines(tmp_path):
    write(tmp_path, {"文,a.txt": "What did we decide?\n第三季度预算\nshort"})


WHOLE = ["json", "csv", "b64", "parquet"]
GROWING = ["jsonl", "npy"]


@pytest.mark.parametrize("suffix", [*WHOLE, *GROWING, "npy.rows.jsonl"])
def test_a_file_that_exists_is_kept(suffix, tmp_path):
    write(tmp_path, {f"out.{suffix}": "of value"})
    before = listing(tmp_path)
    result = embed(*LAYOUT, "-o", f"out.{suffix.removesuffix('.rows.jsonl')}")
    assert result.exit_code == 1
    way = "replace it with --force" if suffix in WHOLE else "continue it with --resume, or replace it with --force"
    assert result.stderr == f"Error: out.{suffix} exists; {way}\n"
    assert listing(tmp_path) == before


@pytest.mark.parametrize("suffix", WHOLE + GROWING)
def test_force_replaces(suffix, tmp_path):
    name = f"out.{suffix}"
    write(tmp_path, {name: "of no value" * 10_000, "out.npy.rows.jsonl": "of no value\n" * 1000})
    assert embed(*LAYOUT, "-o", name, "--force").exit_code == 0
    assert embed(*LAYOUT, "-o", f"new.{suffix}").exit_code == 0
    assert (tmp_path / name).read_bytes() == (tmp_path / f"new.{suffix}").read_bytes()
    if suffix == "npy":
        rows = [(tmp_path / f"{stem}.npy.rows.jsonl").read_bytes() for stem in ("out", "new")]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("old", [None, "of value"])
@pytest.mark.parametrize("suffix", WHOLE)
def test_a_run_that_fails_leaves_a_whole_format_as_it_was(suffix, old, tmp_path):
    name = f"out.{suffix}"
    write(tmp_path, {} if old is None else {name: old})
    before = listing(tmp_path)
    # In a pipe, since in a file the broken line would be found before any text is embedded.
    result = embed("--lines", "-o", name, "--force", input="one\ntwo\n\xff\0\n")
    assert result.exit_code == 1
    said = result.stderr.splitlines()
    assert said[0] == "nothing is kept of 2 texts: only .jsonl and .npy outputs can be resumed"
    assert said[1].startswith("Error: stdin:3 is a binary file")
    assert len(said) == 2
    assert listing(tmp_path) == before


@pytest.mark.parametrize("suffix", GROWING)
def test_a_run_that_fails_leaves_what_it_wrote_where_it_can_go_on(suffix, tmp_path):
    name = f"out.{suffix}"
    result = embed("--lines", "-o", name, input="one\ntwo\n\0\n")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"2 texts are in {name}; "
        f"go on with: q3e-local embed -m demo --lines -o {name} --resume, given the same input",
        "Error: stdin:3 is a binary file (NUL at byte 0); go on without it: --skip-errors",
    ]
    got = np.load(name) if suffix == "npy" else [record["embedding"] for record in records(Path(name).read_bytes())]
    np.testing.assert_array_equal(got, expected(["one", "two"]).vectors)


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("suffix", GROWING)
def test_a_run_that_fails_at_its_first_text_leaves_what_was_there(suffix, is_there, tmp_path):
    if is_there:
        assert embed("--text", "of value", "-o", f"out.{suffix}").exit_code == 0
    before = listing(tmp_path)
    assert embed("--lines", "-o", f"out.{suffix}", "--force", input="\0\n").exit_code == 1
    assert listing(tmp_path) == before


@pytest.mark.parametrize("suffix", GROWING)
def test_force_leaves_nothing_old_when_a_run_ends_well_without_a_record(suffix, tmp_path):
    assert embed("--text", "of no value", "-o", f"out.{suffix}").exit_code == 0
    write(tmp_path, {"a": "\0\n"})
    assert embed("--lines", "a", "-o", f"out.{suffix}", "--force", "--skip-errors").exit_code == 3
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.csv", "link.csv"])
@pytest.mark.parametrize("option", [[], ["--force"]])
def test_what_is_no_regular_file_is_left_alone(name, option, tmp_path):
    pipe = tmp_path / f"pipe{Path(name).suffix}"
    os.mkfifo(pipe)
    (tmp_path / "link.csv").symlink_to(pipe)
    result = embed(*LAYOUT, "-o", name, *option)
    assert (result.exit_code, result.stderr) == (
        1, f"Error: {name} is no regular file; pipe the output there instead\n",
    )  # fmt: skip
    assert pipe.is_fifo()
    assert (tmp_path / "link.csv").is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
@pytest.mark.parametrize("suffix", WHOLE + GROWING)
def test_a_link_stays_and_the_output_is_where_it_points(suffix, tmp_path):
    write(tmp_path, {"disk/old": "of no value"})
    for link, option in (f"old.{suffix}", ["--force"]), (f"new.{suffix}", []):
        target = tmp_path / "disk" / Path(link).stem
        (tmp_path / link).symlink_to(target)
        assert embed(*LAYOUT, "-o", link, *option).exit_code == 0
        assert (tmp_path / link).is_symlink()
        assert not target.is_symlink()
    assert (tmp_path / "disk/old").read_bytes() == (tmp_path / "disk/new").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_the_suffix_of_a_link_says_the_format_of_a_report_too(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "report")
    assert run("duplicates", "-m", "demo", *LAYOUT, "-o", "link.csv").exit_code == 0
    assert (tmp_path / "report").read_text().startswith("group,kept,")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_in_a_circle_is_a_sentence(tmp_path):
    (tmp_path / "a.csv").symlink_to("a.csv")
    result = embed(*LAYOUT, "-o", "a.csv", "--force")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot write a.csv: ")


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_an_error_of_the_block_is_not_reported_as_one_of_the_output(name):
    about = About("demo", "space", 32, "float32")
    with pytest.raises(PermissionError), open_output(Path(name), SUFFIXES[Path(name).suffix], about, False):
        raise PermissionError("somebody else's")
    assert not Path(name).exists()


@pytest.mark.parametrize("suffix", WHOLE)
def test_a_whole_file_is_on_the_disk_before_it_gets_its_name(suffix, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((tmp_path / f"out.{suffix}").exists()))
    assert embed(*LAYOUT, "-o", f"out.{suffix}").exit_code == 0
    assert synced == [False]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/out.jsonl", "there is no folder nowhere to write out.jsonl into"),
        ("文,a.txt/out.jsonl", "there is no folder 文,a.txt to write out.jsonl into"),
        ("folder.jsonl", "folder.jsonl is a folder; name a file in it"),
        ("x" * 300 + ".jsonl", f"cannot write {'x' * 300}.jsonl: "),
    ],
)
@pytest.mark.parametrize("option", [[], ["--force"], ["--resume"]])
def test_where_nothing_can_be_written(name, said, option, tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    result = embed(*LAYOUT, "-o", name, *option)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {said}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk to try")
@pytest.mark.parametrize(
    "arguments",
    [*(["embed", "-m", "demo", *LAYOUT, "-q", "--format", form] for form in FORMATS), ["list", "--json"], ["--help"]],
    ids=[*FORMATS, "list", "help"],
)
def test_a_full_disk_is_a_sentence(arguments):
    with Path("/dev/full").open("wb") as full:
        got = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, check=False)
    assert got.returncode == 1
    assert got.stderr.decode() == "Error: cannot write to stdout: No space left on device\n"
