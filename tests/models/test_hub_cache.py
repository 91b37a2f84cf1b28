"""The cache that we share with other programs: its layout, its locks, and what is deleted from it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from downloads import (
    CONTENT,
    FILE,
    HF_DOWNLOAD,
    NAME,
    REPO,
    REVISION,
    everything_below,
    partial,
    ranges,
    run_python,
    start_fetch,
)
from hub import Fault
from waiting import until

from q3e_local.models import download
from q3e_local.models.card import ModelFile
from q3e_local.models.download import origins

pytestmark = pytest.mark.usefixtures("network")


def test_the_hub_cache_is_as_other_programs_write_it(hub, tmp_path):
    path = download.fetch(FILE)
    repo = tmp_path / "hub" / "models--Qwen--Tiny-GGUF"
    assert path == repo / "snapshots" / REVISION / NAME
    assert path.readlink() == Path(f"../../blobs/{FILE.sha256}")
    script = (
        "import huggingface_hub as h, json, sys; repo, revision, file = sys.argv[1:]\n"
        "path = h.hf_hub_download(repo, file, revision=revision)\n"
        "local = h.hf_hub_download(repo, file, revision=revision, local_files_only=True)\n"
        "scan = h.scan_cache_dir()\n"
        "print(json.dumps([path, local, h.try_to_load_from_cache(repo, file, revision=revision),"
        " len(scan.warnings), [r.repo_id for r in scan.repos]]))"
    )
    hub.requests.clear()
    answer = json.loads(run_python(script, REPO, REVISION, NAME).stdout)
    assert answer == [str(path), str(path), str(path), 0, [REPO]]
    assert hub.requests == []


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HF_HOME": "$HOME/somewhere"},
        {"HF_HOME": "~/home", "HF_HUB_CACHE": "~/cache"},
        {"HUGGINGFACE_HUB_CACHE": "~/older"},
        {"XDG_CACHE_HOME": "~/xdg"},
    ],
)
def test_the_hub_cache_is_where_huggingface_hub_has_it(variables, monkeypatch):
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    theirs = run_python("from huggingface_hub import constants; print(constants.HF_HUB_CACHE)").stdout.strip()
    assert origins.hub_cache() == Path(theirs)


def test_what_huggingface_hub_downloaded_is_taken_after_checking(hub, transfers):
    hub.redirects = True
    stored = Path(run_python(HF_DOWNLOAD, REPO, REVISION, NAME).stdout.strip())
    assert {request.method for request in hub.requests if "/resolve/" in request.path} == {"HEAD", "GET"}
    assert download.find(FILE) == stored
    hub.requests.clear()
    assert download.fetch(FILE, progress=transfers.add) == stored
    assert {what for what, _, _ in transfers} == {f"checking {NAME}"}
    assert hub.requests == []


def test_a_blob_that_came_with_another_revision_is_linked_not_downloaded(hub):
    path = download.fetch(FILE)
    later = ModelFile("q4_k_m", NAME, REPO, "f" * 40, FILE.size_bytes, FILE.sha256)
    hub.requests.clear()
    linked = download.fetch(later)
    assert linked != path
    assert linked.resolve() == path.resolve()
    assert hub.requests == []


def test_without_symlinks_the_snapshot_holds_the_file(hub, monkeypatch):
    def refuse(*args: Any) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = download.fetch(FILE)
    assert not path.is_symlink()
    assert path.read_bytes() == CONTENT
    assert download.fetch(FILE) == path
    assert len(hub.contents_asked()) == 1
    origins.delete(path)
    assert download.find(FILE) is None


# Other processes


def test_two_processes_at_once_download_once(server, source):
    gate = threading.Event()
    server.faults.append(Fault(gate=gate))
    first = start_fetch(source)
    until(partial(source).exists)
    second = start_fetch(source)
    assert second.stderr is not None
    assert "another process is downloading" in second.stderr.readline()
    gate.set()
    answers = [process.communicate(timeout=30) for process in (first, second)]
    assert [(process.returncode, err) for process, (_, err) in zip((first, second), answers, strict=True)] == [
        (0, "")
    ] * 2
    (path,) = {out.strip() for out, _ in answers}
    assert Path(path).read_bytes() == CONTENT
    assert ranges(server) == [None]


def test_huggingface_hub_waits_for_us(hub):
    gate = threading.Event()
    hub.faults.append(Fault(gate=gate))
    ours = start_fetch("hub")
    until(partial("hub").exists)
    threading.Timer(1.5, gate.set).start()  # by then they wait for the lock
    theirs = run_python(HF_DOWNLOAD, REPO, REVISION, NAME)
    out, err = ours.communicate(timeout=30)
    assert ours.returncode == 0, err
    assert out.strip() == theirs.stdout.strip()
    assert ranges(hub) == [None]


# Deleting


@pytest.mark.parametrize("kept", [True, False], ids=["with another link", "alone"])
def test_delete_leaves_a_blob_that_another_snapshot_links_to(hub, kept, tmp_path):
    path = download.fetch(FILE)
    other = path.parent.parent / ("f" * 40) / NAME
    if kept:
        other.parent.mkdir()
        other.symlink_to(path.readlink())
    origins.delete(path)
    assert download.find(FILE) is None
    assert other.exists() == kept
    assert kept or everything_below(tmp_path / "hub") == []


def test_delete_of_our_own_leaves_no_folder(modelscope):
    path = download.fetch(FILE, source="modelscope")
    origins.delete(path)
    assert not path.parent.exists()
