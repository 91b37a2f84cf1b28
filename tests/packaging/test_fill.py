"""The formula and the manifests name the files of a release as they are, and lack nothing."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

ARCHIVE, WINDOWS = "q3e_local-1.2.3.tar.gz", "q3e-local-1.2.3-windows-x64.zip"
HOME = "https://example.org/somebody/q3e-local"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / ARCHIVE).write_bytes(b"the source")
    (folder / WINDOWS).write_bytes(b"the program")
    (folder / "q3e_local-1.2.3-py3-none-any.whl").write_bytes(b"a wheel, which neither of them names")
    return folder


def fill(release: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "packaging" / "fill.py", "--home", f"{HOME}/", "--dist", release, "--out", out]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_file_has_its_address_and_digest(release, tmp_path):
    assert fill(release, tmp_path / "out").returncode == 0
    formula = (tmp_path / "out/homebrew/q3e-local.rb").read_text()
    assert f'url "{HOME}/releases/download/v1.2.3/{ARCHIVE}"' in formula
    assert f'sha256 "{hashlib.sha256(b"the source").hexdigest()}"' in formula
    manifest = (tmp_path / "out/winget/Q3eLocal.Q3eLocal.installer.yaml").read_text()
    assert f"InstallerUrl: {HOME}/releases/download/v1.2.3/{WINDOWS}" in manifest
    assert f"InstallerSha256: {hashlib.sha256(b'the program').hexdigest().upper()}" in manifest


def test_no_field_is_left_and_all_manifests_are_of_one_version(release, tmp_path):
    fill(release, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == len([path for path in (ROOT / "packaging").glob("*/*") if path.is_file()])
    texts = {path: path.read_text() for path in files}
    assert not [path for path, text in texts.items() if re.search(r"@\w+@", text)]
    manifests = [text for path, text in texts.items() if path.suffix == ".yaml"]
    assert len(manifests) == 3
    assert all("\nPackageVersion: 1.2.3\n" in text for text in manifests)
    assert {re.search(r"^ManifestType: (\w+)$", text, re.MULTILINE)[1] for text in manifests} == {
        "version", "installer", "defaultLocale",
    }  # fmt: skip


@pytest.mark.parametrize("missing", [ARCHIVE, WINDOWS])
def test_a_file_that_is_missing_is_named_and_nothing_is_written(release, tmp_path, missing):
    (release / missing).unlink()
    done = fill(release, tmp_path / "out")
    assert done.returncode == 1
    assert f"{release} must have one file" in done.stderr
    assert missing.partition("1.2.3")[2] in done.stderr
    assert not (tmp_path / "out").exists()
