"""`pull --to DIR` here, `import DIR` there: what arrives is what left, or nothing does."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command import failed, listing, records, run
from world import Q4_K_M, Q8_0, World, digest, flip_bit, origins, rows

from q3e_local.models import bundle
from q3e_local.models.catalog import models_folder


@pytest.fixture
def stick(world: World, tmp_path: Path) -> Path:
    """A folder that `pull --to` wrote."""
    folder = tmp_path / "a stick"
    assert run("pull", "tiny:1b-q8_0", "--to", folder).exit_code == 0
    return folder


@pytest.fixture
def over_there(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Path]:
    """Call it to be on another machine, without a network. Answers its Q3E_HOME."""

    def go() -> Path:
        monkeypatch.setenv("Q3E_HOME", str(tmp_path / "there"))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no cache"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        world.hub.requests.clear()
        return tmp_path / "there"

    return go


def test_a_folder_has_model_card_and_checksums(world, tmp_path):
    result = run("pull", "tiny:1b-q8_0", "--to", tmp_path / "new" / "stick")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"copied to {tmp_path / 'new' / 'stick' / Q8_0}, with SHA256SUMS"
    files = listing(tmp_path / "new" / "stick")
    assert files == {
        Q8_0: world.q8_0.read_bytes(),
        "tiny.toml": world.card.read_bytes(),
        "SHA256SUMS": f"{digest(world.q8_0)}  {Q8_0}\n{digest(world.card)}  tiny.toml\n".encode(),
    }


@pytest.mark.parametrize("name", ["tiny:1b-q8_0", "tiny:1b"])
def test_over_there_it_is_the_same_model_under_the_same_name(world, tmp_path, over_there, name):
    folder = tmp_path / "stick"
    run("pull", name, "--to", folder)
    embed = ("embed", "-m", name, "--text", "a force", "--as", "query", "-q")
    expected = records(run(*embed).stdout)[0]["embedding"]
    home = over_there()
    result = run("import", folder)
    assert result.exit_code == 0
    assert result.stderr == f"Use it with -m {name}; check it with: q3e-local verify {name}\n"
    assert origins() == {name: "pulled"}
    path = Path(rows()[name]["path"])
    assert result.stdout == f"{name} is at {path}\n"
    assert home in path.parents
    assert path.name == (Q4_K_M if name == "tiny:1b" else Q8_0)
    shutil.rmtree(folder)  # the stick is pulled out
    got = run(*embed)
    assert got.exit_code == 0, got.stderr
    np.testing.assert_array_equal(records(got.stdout)[0]["embedding"], expected)
    assert run("verify", name).exit_code == 0
    assert world.hub.requests == []
    assert run("rm", "-y", name).exit_code == 0
    assert not path.parent.exists()


def test_two_models_travel_in_one_folder(world, stick, over_there):
    assert run("pull", "tiny:1b-f16", "--to", stick).exit_code == 0
    assert run("pull", "demo", "--to", stick).exit_code == 0
    over_there()
    result = run("import", stick)
    assert result.exit_code == 0, result.stderr
    assert origins() == {"tiny:1b-f16": "pulled", "tiny:1b-q8_0": "pulled"}
    # The demo is everywhere: it needs no second copy, and no second name.
    assert f"demo is at {models_folder() / 'demo.gguf'}\n" in result.stdout


def test_nothing_is_replaced_in_the_folder(stick):
    before = listing(stick)
    stderr = failed("pull", "tiny:1b-q8_0", "--to", stick)
    assert f"{stick / Q8_0} exists; remove it, or choose another folder" in stderr
    assert listing(stick) == before


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: flip_bit(folder / Q8_0), "has SHA-256 .*, not .*: it is damaged"),
        (lambda folder: flip_bit(folder / "tiny.toml"), r"tiny\.toml is not what SHA256SUMS says"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "has no SHA256SUMS; .* q3e-local pull NAME --to DIR"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff\xfe"), "SHA256SUMS is damaged"),
        (
            lambda folder: (folder / "SHA256SUMS").write_text("abc  x.gguf\n"),
            "SHA256SUMS is damaged: .*'abc  x.gguf'",
        ),
        (lambda folder: (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../x\n"), "SHA256SUMS is damaged"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), f"SHA256SUMS has no checksum of {Q8_0}"),
        (lambda folder: (folder / Q8_0).unlink(), f"lacks {Q8_0}, which SHA256SUMS lists"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "has no SHA256SUMS"),
        (lambda folder: shutil.copyfile(folder / Q8_0, folder / "other.gguf"), "has no checksum of other.gguf"),
    ],
)
def test_what_is_damaged_or_missing_is_refused_and_nothing_is_taken(stick, over_there, harm, says):
    harm(stick)
    home = over_there()
    stderr = failed("import", stick)
    assert re.search(says, stderr), stderr
    assert stderr.count("Error: ") == stderr.count("\n") == 1
    assert [name for name in listing(home) if not name.endswith(".toml")] == []


def test_sums_of_windows_and_files_of_macos_are_no_hindrance(stick, over_there):
    sums = stick / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes().replace(b"\n", b"\r\n").replace(b"  ", b" *"))
    (stick / f"._{Q8_0}").write_bytes(b"resource fork")
    over_there()
    assert run("import", stick).exit_code == 0
    assert origins() == {"tiny:1b-q8_0": "pulled"}


def test_a_folder_brings_its_names_along(stick, over_there):
    over_there()
    assert "--name and --as are for a file" in failed("import", stick, "--name", "mine", code=2)
    assert "--name and --as are for a file" in failed("import", stick, "--as", "reranker", code=2)


def test_a_card_that_takes_anothers_name_is_not_taken(world, tmp_path, over_there):
    run("pull", "tiny:1b-q8_0", "--to", tmp_path / "stick")
    home = over_there()
    card = home / "config" / "models" / "mine.toml"
    card.parent.mkdir(parents=True)
    card.write_text(world.card.read_text().replace('name = "tiny:1b"', 'name = "other:1b"'))
    assert "both have the name" in failed("import", tmp_path / "stick")
    assert listing(home) == {"config/models/mine.toml": card.read_bytes()}
    assert run("list").exit_code == 0


def test_a_card_that_is_known_stays_as_it_is(stick, world):
    before = world.card.read_bytes()
    assert run("import", stick).exit_code == 0
    assert world.card.read_bytes() == before


@pytest.mark.parametrize("command", [["pull", "tiny:1b-q8_0", "--to"], ["import"]])
def test_no_room_is_said_before_copying(stick, monkeypatch, tmp_path, command):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert "which has 0.00 GB free" in failed(*command, stick if command == ["import"] else tmp_path / "small")
    assert not (tmp_path / "small" / Q8_0).exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of .* is full"),
        (OSError(errno.EFBIG, "File too large"), "FAT32"),
        (OSError(errno.EIO, "Input/output error"), "cannot write to .*: Input/output error; choose another folder"),
    ],
)
def test_a_disk_that_fails_leaves_nothing(stick, monkeypatch, tmp_path, error, says):
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    stderr = failed("pull", "tiny:1b-q8_0", "--to", tmp_path / "other")
    assert re.search(says, stderr), stderr
    assert listing(tmp_path / "other") == {}


def test_a_folder_that_is_a_file_is_a_sentence(world, tmp_path):
    (tmp_path / "file").write_text("")
    assert "Error: cannot write to" in failed("pull", "tiny:1b-q8_0", "--to", tmp_path / "file")


def test_a_file_that_changed_since_it_was_checked_does_not_travel(world, tmp_path):
    run("pull", "tiny:1b-q8_0")
    flip_bit(Path(rows()["tiny:1b-q8_0"]["path"]).resolve())
    assert "it is damaged; pull it or copy it again" in failed("pull", "tiny:1b-q8_0", "--to", tmp_path / "stick")
    assert bundle.SUMS not in listing(tmp_path / "stick")
