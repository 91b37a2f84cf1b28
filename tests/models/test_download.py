"""A pinned file from a source on loopback: whole or not at all, continued at any byte, never trusted unchecked."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from downloads import (
    CONTENT,
    FILE,
    NAME,
    OTHER,
    REPO,
    REVISION,
    everything_below,
    partial,
    put_partial,
    ranges,
    start_fetch,
)
from hub import Fault
from waiting import until

from q3e_local.errors import (
    CardError,
    ChecksumError,
    DownloadError,
    HubUnreachableError,
    ModelNotHereError,
    NotEnoughDiskError,
)
from q3e_local.files import state_folder
from q3e_local.models import download
from q3e_local.models.download import http, origins

pytestmark = pytest.mark.usefixtures("network")


def test_a_first_download_is_whole_reported_and_found(server, source, transfers):
    assert download.find(FILE) is None
    path = download.fetch(FILE, source=source, progress=transfers.add)
    assert path.read_bytes() == CONTENT
    assert path.name == NAME
    assert download.find(FILE) == path
    assert not partial(source).exists()
    host = server.url.removeprefix("http://")
    for verb in ("downloading", "checking"):
        counts = transfers.of(verb)
        assert counts == sorted(counts)
        assert counts[-1] == len(CONTENT)
    assert {what for what, _, _ in transfers} == {f"downloading from {host} {NAME}", f"checking {NAME}"}
    assert ranges(server) == [None]


def test_a_file_that_is_here_is_hashed_once_and_no_server_is_asked(server, source, transfers):
    path = download.fetch(FILE, source=source)
    server.requests.clear()
    for any_source in ("auto", "hub", "modelscope"):
        assert download.fetch(FILE, source=any_source, progress=transfers.add) == path
    assert server.requests == []
    assert transfers == []
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert download.fetch(FILE, source=source, progress=transfers.add) == path
    assert {what for what, _, _ in transfers} == {f"checking {NAME}"}
    assert transfers.of("checking")[-1] == len(CONTENT)
    transfers.clear()
    download.fetch(FILE, source=source, progress=transfers.add)
    assert transfers == []


def test_a_note_of_a_check_that_cannot_be_read_or_written_is_no_error(hub, transfers):
    state_folder().parent.mkdir(parents=True)
    state_folder().write_text("a file where the folder should be")
    path = download.fetch(FILE)
    assert download.fetch(FILE, progress=transfers.add) == path
    assert transfers


@pytest.mark.parametrize("variable", [None, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_no_server_is_asked(hub, modelscope, variable, monkeypatch):
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelNotHereError, match=r"--offline|HF_HUB_OFFLINE"):
        download.fetch(FILE, offline=variable is None)
    assert hub.requests == modelscope.requests == []
    monkeypatch.delenv(variable or "HF_HUB_OFFLINE", raising=False)
    path = download.fetch(FILE)
    shutil.rmtree(state_folder())  # so that it is hashed again
    hub.requests.clear()
    assert download.fetch(FILE, offline=True) == path
    assert hub.requests == modelscope.requests == []


def test_the_token_goes_to_the_hub_only(hub, modelscope, monkeypatch):
    download.fetch(FILE, source="hub")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    origins.delete(download.fetch(FILE))
    download.fetch(FILE, source="hub")
    assert [request.authorization for request in hub.requests] == [None, "Bearer hf_secret"]
    origins.delete(download.fetch(FILE))
    download.fetch(FILE, source="modelscope")
    assert [request.authorization for request in modelscope.requests] == [None]
    assert "hf_secret" not in repr(origins.origins(origins.pin(FILE), "hub"))


@pytest.mark.parametrize("missing", ["repo", "revision", "sha256"])
def test_a_file_without_a_pin_is_not_downloaded(missing):
    with pytest.raises(CardError, match="it cannot be downloaded"):
        download.fetch(replace(FILE, **{missing: None}))


# Continuing


def test_a_download_that_is_cut_off_continues_where_it_was(server, source, transfers):
    server.faults += [Fault(cut_after=100_000), Fault(cut_after=50_000)]
    assert download.fetch(FILE, source=source, progress=transfers.add).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]
    counts = transfers.of("downloading")
    assert counts == sorted(counts)


def test_a_later_call_continues_where_an_earlier_call_gave_up(server, source, monkeypatch, transfers):
    monkeypatch.setattr(http, "PAUSES_S", ())
    server.faults.append(Fault(cut_after=123_456))
    with pytest.raises(HubUnreachableError):
        download.fetch(FILE, source=source)
    assert download.find(FILE) is None
    assert partial(source).read_bytes() == CONTENT[:123_456]
    assert download.fetch(FILE, source=source, progress=transfers.add).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=123456-"]
    assert transfers.of("downloading")[0] > 123_456


def test_the_cdn_is_asked_for_the_rest_too(hub):
    hub.redirects = True
    hub.faults.append(Fault(cut_after=100_000))
    assert download.fetch(FILE).read_bytes() == CONTENT
    assert [r.range for r in hub.requests if r.path.startswith("/cdn")] == [None, "bytes=100000-"]


def test_a_server_that_ignores_ranges_starts_from_zero(server, source):
    server.faults += [Fault(cut_after=100_000), Fault(ignores_range=True)]
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-"]


def test_a_server_that_ignores_ranges_and_always_breaks_off_is_given_up(hub):
    hub.always = Fault(cut_after=100_000, ignores_range=True)
    with pytest.raises(HubUnreachableError):
        download.fetch(FILE, source="hub")
    assert len(hub.contents_asked()) == 1 + len(http.PAUSES_S)


def test_a_partial_larger_than_the_file_is_thrown_away(server, source):
    put_partial(source, CONTENT + b"and more")
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert ranges(server) == [None]


def test_a_whole_partial_is_checked_and_taken(server, source):
    put_partial(source, CONTENT)
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_download_is_continued_and_nothing_half_is_taken(server, source):
    gate = threading.Event()
    server.faults.append(Fault(gate=gate))
    process = start_fetch(source)
    until(lambda: partial(source).exists() and partial(source).stat().st_size > 0)
    process.kill()
    process.communicate()
    gate.set()
    assert download.find(FILE) is None
    n_have = partial(source).stat().st_size
    assert 0 < n_have < len(CONTENT)
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={n_have}-"]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_request_that_failed_on_the_server_is_sent_again(server, source, status):
    server.faults += [Fault(status=status), Fault(status=status)]
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert len(server.contents_asked()) == 3


def test_a_server_says_how_long_to_wait(hub, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    hub.faults += [
        Fault(status=503, headers={"Retry-After": "7"}),
        Fault(status=429, headers={"Retry-After": "9999"}),
    ]
    download.fetch(FILE, source="hub")
    assert waits == [7.0, 60.0]


# The disk


def test_a_disk_without_room_is_said_before(server, source, monkeypatch, tmp_path):
    needed = len(CONTENT) + (64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(NotEnoughDiskError, match=r"0\.07 GB more in .*0\.07 GB free"):
        download.fetch(FILE, source=source)
    assert server.requests == []
    partial(source).write_bytes(CONTENT[:1])  # one byte less is needed
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT


def test_a_disk_that_fills_up_leaves_what_was_written(hub, monkeypatch):
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(http, "sync", full)
    with pytest.raises(NotEnoughDiskError, match="No space left"):
        download.fetch(FILE)
    assert partial("hub").exists()


def test_a_folder_that_cannot_be_written_is_named(hub, tmp_path):
    (tmp_path / "hub").write_text("a file where the cache should be")
    with pytest.raises(DownloadError, match="HF_HOME"):
        download.fetch(FILE)


def test_a_file_that_cannot_be_read_is_named(hub, monkeypatch):
    path = download.fetch(FILE)
    shutil.rmtree(state_folder())

    def refuse(*args: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(download, "sha256", refuse)
    with pytest.raises(DownloadError, match=f"cannot check {path}"):
        download.fetch(FILE)
    assert path.exists()


# Another file than the card says


def test_wrong_bytes_are_deleted_and_the_next_call_starts_afresh(server, source, tmp_path):
    server.faults.append(Fault(content=OTHER))
    with pytest.raises(ChecksumError) as caught:
        download.fetch(FILE, source=source)
    assert all(
        part in str(caught.value)
        for part in (NAME, str(FILE.sha256), hashlib.sha256(OTHER).hexdigest(), "Pull it again", server.url[7:])
    )
    assert everything_below(tmp_path) == []
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_a_damaged_partial_is_found_out(server, source, tmp_path):
    put_partial(source, OTHER[:1000])
    with pytest.raises(ChecksumError):
        download.fetch(FILE, source=source)
    assert everything_below(tmp_path) == []
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x"], ids=["shorter", "longer"])
@pytest.mark.parametrize("n_have", [0, 1000, len(CONTENT) - 1])
def test_a_file_of_another_size_is_refused_before_it_is_downloaded(
    server, source, content, n_have, tmp_path, transfers
):
    server.always = Fault(content=content)
    if n_have:
        put_partial(source, CONTENT[:n_have])
    with pytest.raises(ChecksumError, match=f"{len(content):,} bytes, the card says {len(CONTENT):,}"):
        download.fetch(FILE, source=source, progress=transfers.add)
    assert transfers == []
    assert everything_below(tmp_path) == []


def test_the_hub_says_before_that_its_file_is_another(hub, transfers):
    hub.add(REPO, REVISION, NAME, OTHER)
    hub.redirects = True
    with pytest.raises(ChecksumError, match=hashlib.sha256(OTHER).hexdigest()):
        download.fetch(FILE, progress=transfers.add)
    assert transfers == []


def test_a_mirror_without_the_hubs_own_headers_will_do(hub):
    hub.has_linked_headers = False
    assert download.fetch(FILE).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_deleted_with_its_link(hub, tmp_path):
    path = download.fetch(FILE)
    path.resolve().write_bytes(OTHER)  # the same size
    with pytest.raises(ChecksumError, match="damaged"):
        download.fetch(FILE)
    assert everything_below(tmp_path / "hub") == []
    assert download.fetch(FILE).read_bytes() == CONTENT


def test_a_file_of_another_size_in_the_cache_is_none(hub):
    path = download.fetch(FILE)
    path.resolve().write_bytes(CONTENT[:1000])
    assert download.find(FILE) is None
    assert download.fetch(FILE).read_bytes() == CONTENT


def test_delete_does_not_follow_a_link_out_of_the_cache(hub, tmp_path):
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(OTHER)
    place = next(origins.places(origins.pin(FILE)))
    place.parent.mkdir(parents=True)
    place.symlink_to(mine)
    with pytest.raises(ChecksumError):
        download.fetch(FILE)
    assert mine.read_bytes() == OTHER
    assert not place.is_symlink()
