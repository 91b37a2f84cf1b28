"""Downloading against a hub on loopback: whole or not at all, continued at any byte, and never trusted unchecked."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub import Fault, Hub, serve

from q3e_local.errors import (
    CardError,
    ChecksumError,
    DownloadError,
    HubUnreachableError,
    ModelNotHereError,
    NotEnoughDiskError,
)
from q3e_local.files import data_folder, state_folder
from q3e_local.models import download
from q3e_local.models.card import ModelFile
from q3e_local.models.download import Transfer, http, origins, silence

CONTENT = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
REPO, REVISION, NAME = "Qwen/Tiny-GGUF", "0123456789abcdef0123456789abcdef01234567", "tiny-Q4_K_M.gguf"
FILE = ModelFile("q4_k_m", NAME, REPO, REVISION, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())

Progress = list[Transfer]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Online, our folders below the test's, no proxy, no waiting, and no source but those a test names."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    monkeypatch.setenv("HF_ENDPOINT", REFUSED)
    monkeypatch.setenv("Q3E_MODELSCOPE_ENDPOINT", REFUSED)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(http, "PAUSES_S", (0.01, 0.01, 0.01))


REFUSED = "http://127.0.0.1:9"  # discard: nobody listens


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as hub:
        hub.add(REPO, REVISION, NAME, CONTENT)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as hub:
        hub.add(REPO, REVISION, NAME, CONTENT)
        monkeypatch.setenv("Q3E_MODELSCOPE_ENDPOINT", hub.url)
        yield hub


@pytest.fixture(params=["hub", "modelscope"])
def source(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server(source: str, request: pytest.FixtureRequest) -> Hub:
    """The server of the source under test; the other source refuses."""
    return request.getfixturevalue(source)


def partial(source: str) -> Path:
    return origins.origins(origins.pin(FILE), source)[0].partial


def ranges(hub: Hub) -> list[str | None]:
    return [request.range for request in hub.contents_asked()]


def everything_below(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if not path.is_dir() and path.suffix != ".lock"]


# --- getting it ---


def test_fresh_is_whole_reported_and_found(server: Hub, source: Any) -> None:
    told: Progress = []
    assert download.find(FILE) is None
    path = download.fetch(FILE, source=source, progress=told.append)
    assert path.read_bytes() == CONTENT
    assert path.name == NAME
    assert download.find(FILE) == path
    assert not partial(source).exists()
    host = server.url.removeprefix("http://")
    for phase in ("download", "verify"):
        counts = [one.n_bytes for one in told if one.phase == phase]
        assert counts == sorted(counts)
        assert counts[-1] == len(CONTENT)
    assert {(one.source, one.file, one.total_bytes) for one in told} == {(host, NAME, len(CONTENT))}
    assert ranges(server) == [None]


def test_the_hub_cache_is_as_other_programs_write_it(hub: Hub, tmp_path: Path) -> None:
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


def test_what_huggingface_hub_downloaded_is_taken_after_checking(hub: Hub) -> None:
    hub.redirects = True
    stored = Path(run_python(HF_DOWNLOAD, REPO, REVISION, NAME).stdout.strip())
    assert {request.method for request in hub.requests if "/resolve/" in request.path} == {"HEAD", "GET"}
    assert download.find(FILE) == stored
    hub.requests.clear()
    told: Progress = []
    assert download.fetch(FILE, progress=told.append) == stored
    assert {one.phase for one in told} == {"verify"}
    assert hub.requests == []


def test_a_blob_that_came_with_another_revision_is_linked_not_downloaded(hub: Hub) -> None:
    path = download.fetch(FILE)
    later = ModelFile("q4_k_m", NAME, REPO, "f" * 40, FILE.size_bytes, FILE.sha256)
    hub.requests.clear()
    linked = download.fetch(later)
    assert linked != path
    assert linked.resolve() == path.resolve()
    assert hub.requests == []


def test_without_symlinks_the_snapshot_holds_the_file(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = download.fetch(FILE)
    assert not path.is_symlink()
    assert path.read_bytes() == CONTENT
    assert download.fetch(FILE) == path
    assert len(hub.contents_asked()) == 1
    download.delete(path)
    assert download.find(FILE) is None


def test_a_hub_that_sends_us_to_its_cdn(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.redirects = True
    assert download.fetch(FILE).read_bytes() == CONTENT
    by_port = {request.port: request.authorization for request in hub.requests}
    assert by_port == {port(hub.url): "Bearer hf_secret", port(hub.cdn_url): None}


def test_a_cdn_that_cannot_be_reached_is_named(hub: Hub) -> None:
    hub.redirects = True
    hub.cdn_url = REFUSED
    with pytest.raises(HubUnreachableError, match=r"it sends us to 127\.0\.0\.1:9: .*refused"):
        download.fetch(FILE, source="hub")


# --- continuing ---


def test_cut_off_it_goes_on_from_where_it_was(server: Hub, source: Any) -> None:
    server.faults += [Fault(cut_after=100_000), Fault(cut_after=50_000)]
    told: Progress = []
    assert download.fetch(FILE, source=source, progress=told.append).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]
    counts = [one.n_bytes for one in told if one.phase == "download"]
    assert counts == sorted(counts)


def test_a_later_call_goes_on_from_where_this_one_gave_up(
    server: Hub, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PAUSES_S", ())
    server.faults.append(Fault(cut_after=123_456))
    with pytest.raises(HubUnreachableError):
        download.fetch(FILE, source=source)
    assert download.find(FILE) is None
    assert partial(source).read_bytes() == CONTENT[:123_456]
    told: Progress = []
    assert download.fetch(FILE, source=source, progress=told.append).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=123456-"]
    assert told[0].n_bytes > 123_456


def test_the_cdn_is_asked_for_the_rest_too(hub: Hub) -> None:
    hub.redirects = True
    hub.faults.append(Fault(cut_after=100_000))
    assert download.fetch(FILE).read_bytes() == CONTENT
    assert [r.range for r in hub.requests if r.path.startswith("/cdn")] == [None, "bytes=100000-"]


def test_a_server_that_ignores_ranges_starts_from_zero(server: Hub, source: Any) -> None:
    server.faults += [Fault(cut_after=100_000), Fault(ignores_range=True)]
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-"]


def test_a_server_that_ignores_ranges_and_always_breaks_off_is_given_up(hub: Hub) -> None:
    hub.always = Fault(cut_after=100_000, ignores_range=True)
    with pytest.raises(HubUnreachableError):
        download.fetch(FILE, source="hub")
    assert len(hub.contents_asked()) == 1 + len(http.PAUSES_S)


def test_a_partial_larger_than_the_file_is_thrown_away(server: Hub, source: Any) -> None:
    partial(source).parent.mkdir(parents=True)
    partial(source).write_bytes(CONTENT + b"and more")
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert ranges(server) == [None]


def test_a_whole_partial_is_checked_and_taken(server: Hub, source: Any) -> None:
    partial(source).parent.mkdir(parents=True)
    partial(source).write_bytes(CONTENT)
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_it_goes_on_and_nothing_half_is_taken(server: Hub, source: Any) -> None:
    gate = threading.Event()
    server.faults.append(Fault(gate=gate))
    process = start_fetch(source)
    wait_for(lambda: partial(source).exists() and partial(source).stat().st_size > 0)
    process.kill()
    process.communicate()
    gate.set()
    assert download.find(FILE) is None
    n_have = partial(source).stat().st_size
    assert 0 < n_have < len(CONTENT)
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={n_have}-"]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_server_in_trouble_is_asked_again(server: Hub, source: Any, status: int) -> None:
    server.faults += [Fault(status=status), Fault(status=status)]
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT
    assert len(server.contents_asked()) == 3


def test_a_server_says_how_long_to_wait(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    hub.faults += [
        Fault(status=503, headers={"Retry-After": "7"}),
        Fault(status=429, headers={"Retry-After": "9999"}),
    ]
    download.fetch(FILE, source="hub")
    assert waits == [7.0, 60.0]


# --- wrong content ---


def test_wrong_bytes_are_deleted_and_the_next_call_starts_afresh(server: Hub, source: Any, tmp_path: Path) -> None:
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


def test_a_damaged_partial_is_found_out(server: Hub, source: Any, tmp_path: Path) -> None:
    partial(source).parent.mkdir(parents=True)
    partial(source).write_bytes(OTHER[:1000])
    with pytest.raises(ChecksumError):
        download.fetch(FILE, source=source)
    assert everything_below(tmp_path) == []
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x"], ids=["shorter", "longer"])
@pytest.mark.parametrize("n_have", [0, 1000, len(CONTENT) - 1])
def test_a_file_of_another_size_is_refused_before_it_is_downloaded(
    server: Hub, source: Any, content: bytes, n_have: int, tmp_path: Path
) -> None:
    server.always = Fault(content=content)
    if n_have:
        partial(source).parent.mkdir(parents=True)
        partial(source).write_bytes(CONTENT[:n_have])
    told: Progress = []
    with pytest.raises(ChecksumError, match=f"{len(content):,} bytes, the card says {len(CONTENT):,}"):
        download.fetch(FILE, source=source, progress=told.append)
    assert told == []
    assert everything_below(tmp_path) == []


def test_the_hub_says_before_that_its_file_is_another(hub: Hub) -> None:
    hub.add(REPO, REVISION, NAME, OTHER)
    hub.redirects = True
    told: Progress = []
    with pytest.raises(ChecksumError, match=hashlib.sha256(OTHER).hexdigest()):
        download.fetch(FILE, progress=told.append)
    assert told == []


def test_a_mirror_without_the_hubs_own_headers_will_do(hub: Hub) -> None:
    hub.has_linked_headers = False
    assert download.fetch(FILE).read_bytes() == CONTENT


@pytest.mark.parametrize("source", ["hub"])
def test_a_damaged_file_in_the_cache_is_deleted_with_its_link(hub: Hub, source: Any, tmp_path: Path) -> None:
    path = download.fetch(FILE)
    path.resolve().write_bytes(OTHER)  # the same size
    with pytest.raises(ChecksumError, match="damaged"):
        download.fetch(FILE)
    assert everything_below(tmp_path / "hub") == []
    assert download.fetch(FILE).read_bytes() == CONTENT


def test_a_file_of_another_size_in_the_cache_is_none(hub: Hub) -> None:
    path = download.fetch(FILE)
    path.resolve().write_bytes(CONTENT[:1000])
    assert download.find(FILE) is None
    assert download.fetch(FILE).read_bytes() == CONTENT


# --- refused and unreachable ---


@pytest.mark.parametrize(
    ("status", "says"), [(404, "does not have the file"), (401, "HF_TOKEN"), (403, "HF_TOKEN"), (418, "418")]
)
def test_a_refusal_is_said_at_once_and_no_other_source_is_tried(
    hub: Hub, modelscope: Hub, status: int, says: str
) -> None:
    hub.faults.append(Fault(status=status, headers={"X-Error-Message": "because"}))
    with pytest.raises(DownloadError, match=says) as caught:
        download.fetch(FILE)
    assert not isinstance(caught.value, (HubUnreachableError, ChecksumError))
    assert "(because)" in str(caught.value)
    assert len(hub.requests) == 1
    assert modelscope.requests == []


@pytest.mark.parametrize("trouble", ["refused", "500", "silent", "no handshake", "login page", "unknown host"])
def test_a_hub_that_cannot_be_reached_is_followed_by_modelscope(
    hub: Hub,
    modelscope: Hub,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.1)
    monkeypatch.setattr(http, "CONNECT_TIMEOUT_S", 0.1)
    match trouble:
        case "refused":
            monkeypatch.setenv("HF_ENDPOINT", REFUSED)
        case "500":
            hub.always = Fault(status=500)
        case "silent":
            hub.always = Fault(delay_s=0.5)
        case "no handshake":  # what a filtered network does: it lets the connection begin and drops the rest
            listener = socket.create_server(("127.0.0.1", 0))
            request.addfinalizer(listener.close)
            monkeypatch.setenv("HF_ENDPOINT", f"https://127.0.0.1:{listener.getsockname()[1]}")
        case "login page":
            hub.always = Fault(content=b"<html>Welcome to the airport", headers={"Content-Type": "text/html"})
            hub.has_linked_headers = False
        case "unknown host":
            monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    with caplog.at_level(logging.WARNING):
        path = download.fetch(FILE)
    assert path.read_bytes() == CONTENT
    assert data_folder() in path.parents
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("q3e_local")]
    assert "cannot reach" in message
    assert modelscope.url[7:] in message


def test_both_unreachable_is_one_error_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/mirror")
    monkeypatch.setenv("Q3E_MODELSCOPE_ENDPOINT", "http://localhost:9")
    waits: list[float] = []  # who refuses is not asked again
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    with pytest.raises(HubUnreachableError) as caught:
        download.fetch(FILE)
    advice = (
        "unset HF_ENDPOINT, which is 'http://127.0.0.1:9/mirror', or set it to another mirror, such as https://hf-m"
    )
    for part in (NAME, "127.0.0.1:9", "localhost:9", "refused", advice, "q3e-local import", "-m demo"):
        assert part in str(caught.value)
    assert waits == []
    for source, other in (("hub", "modelscope"), ("modelscope", "hub")):
        with pytest.raises(HubUnreachableError, match=f"--source {other}"):
            download.fetch(FILE, source=source)


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://127.0.0.1", "http://[", "http://127.0.0.1:port", "127.0.0.1:port", ":/mirror", "a mirror", "http://"],
)
def test_an_endpoint_that_is_no_address(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(DownloadError, match="HF_ENDPOINT") as caught:
        download.fetch(FILE)
    assert not isinstance(caught.value, HubUnreachableError)


def test_a_password_in_the_endpoint_is_not_shown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("http://", "http://me:secret@"))
    hub.faults.append(Fault(status=403))
    with pytest.raises(DownloadError) as caught:
        download.fetch(FILE)
    assert "secret" not in str(caught.value)
    (origin,) = origins.origins(origins.pin(FILE), "hub")
    assert "secret" not in origin.host


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("hf-mirror.com", "https://hf-mirror.com"),
        (" hf-mirror.com/ ", "https://hf-mirror.com"),
        ("mirror.example:8443/hf", "https://mirror.example:8443/hf"),
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1:8080/hf", "http://127.0.0.1:8080/hf"),
        ("192.168.1.5", "http://192.168.1.5"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("http://hf-mirror.com", "http://hf-mirror.com"),
    ],
)
def test_an_endpoint_may_be_a_host_alone(endpoint: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    (origin,) = origins.origins(origins.pin(FILE), "hub")
    assert origin.url == f"{address}/{REPO}/resolve/{REVISION}/{NAME}"


def test_a_file_comes_from_a_mirror_that_is_given_without_a_scheme(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.removeprefix("http://"))
    assert download.fetch(FILE, source="hub").read_bytes() == CONTENT


def test_a_mirror_without_the_file_is_named_and_the_hub_itself_is_not(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.always = Fault(status=404)
    with pytest.raises(DownloadError, match=f"Unset HF_ENDPOINT, which is '{hub.url}', or set it to another"):
        download.fetch(FILE)
    (origin,) = origins.origins(origins.pin(FILE), "hub")
    monkeypatch.delenv("HF_ENDPOINT")
    assert origins.advice_on(origin) == ""
    assert origins.mirror_advice() == "set HF_ENDPOINT to a mirror of the hub, such as https://hf-mirror.com"


# --- a server that is silent ---


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is told after a twentieth of a second."""
    assert silence.FIRST_S <= 3
    monkeypatch.setattr(silence, "FIRST_S", 0.05)
    monkeypatch.setattr(silence, "AGAIN_S", 0.1)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.usefixtures("impatient")
def test_a_server_that_accepts_and_is_silent_is_told(
    modelscope: Hub, scheme: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Over https it is the handshake that is never answered."""
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(http, "CONNECT_TIMEOUT_S", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    request.addfinalizer(listener.close)
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", f"{scheme}://{host}")
    told: list[Transfer] = []
    assert download.fetch(FILE, progress=told.append).read_bytes() == CONTENT
    waits = [one for one in told if one.phase == "wait"]
    assert len(waits) >= 2
    assert (
        waits[0]
        == told[0]
        == Transfer(
            host, NAME, "wait", 0, len(CONTENT), "no answer for 0 s", 0.5, then=modelscope.url.removeprefix("http://")
        )
    )
    assert {one.phase for one in told[len(waits) :]} == {"download", "verify"}


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stalls_in_the_middle_is_told_and_goes_on(hub: Hub) -> None:
    gate = threading.Event()
    hub.faults.append(Fault(gate=gate))
    told: list[Transfer] = []

    def progress(transfer: Transfer) -> None:
        told.append(transfer)
        if transfer.phase == "wait":
            gate.set()

    assert download.fetch(FILE, progress=progress, source="hub").read_bytes() == CONTENT
    first = next(one for one in told if one.phase == "wait")
    assert (first.why, first.at_most_s, first.then) == ("nothing more for 0 s", http.READ_TIMEOUT_S, first.source)
    assert 0 < first.n_bytes < len(CONTENT)


def test_a_pause_that_a_busy_server_asks_for_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "FIRST_S", 0.001)
    hub.faults.append(Fault(status=503))
    told: list[Transfer] = []
    assert download.fetch(FILE, progress=told.append, source="hub").read_bytes() == CONTENT
    assert ("status 503", 0.01) in [(one.why, one.at_most_s) for one in told if one.phase == "wait"]


@pytest.mark.usefixtures("impatient")
def test_silence_counts_from_what_came_last() -> None:
    reported: queue.Queue[float] = queue.Queue()
    with silence.Silence(reported.put) as quiet:
        first, second = reported.get(timeout=20), reported.get(timeout=20)
        assert 0.05 <= first < second
        begin = time.monotonic()
        quiet.heard()
        while (later := reported.get(timeout=20)) > time.monotonic() - begin:  # one that was on its way
            pass
        assert later >= 0.05


def test_addresses_when_no_variable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.delenv("Q3E_MODELSCOPE_ENDPOINT")
    assert [origin.url for origin in origins.origins(origins.pin(FILE), "auto")] == [
        f"https://huggingface.co/{REPO}/resolve/{REVISION}/{NAME}",
        f"https://www.modelscope.cn/models/{REPO}/resolve/master/{NAME}",
    ]


# --- offline, tokens, what is here ---


@pytest.mark.parametrize("variable", [None, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_asks_nobody(
    hub: Hub, modelscope: Hub, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_the_token_goes_to_the_hub_only(hub: Hub, modelscope: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    download.fetch(FILE, source="hub")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download.delete(download.fetch(FILE))
    download.fetch(FILE, source="hub")
    assert [request.authorization for request in hub.requests] == [None, "Bearer hf_secret"]
    download.delete(download.fetch(FILE))
    download.fetch(FILE, source="modelscope")
    assert [request.authorization for request in modelscope.requests] == [None]
    assert "hf_secret" not in repr(origins.origins(origins.pin(FILE), "hub"))


def test_already_here_asks_nobody_and_hashes_once(server: Hub, source: Any) -> None:
    path = download.fetch(FILE, source=source)
    server.requests.clear()
    told: Progress = []
    for any_source in ("auto", "hub", "modelscope"):
        assert download.fetch(FILE, source=any_source, progress=told.append) == path
    assert server.requests == []
    assert told == []
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert download.fetch(FILE, source=source, progress=told.append) == path
    assert {one.phase for one in told} == {"verify"}
    assert told[-1].n_bytes == len(CONTENT)
    told.clear()
    download.fetch(FILE, source=source, progress=told.append)
    assert told == []


def test_a_note_of_a_check_that_cannot_be_read_or_written_is_no_error(hub: Hub) -> None:
    state_folder().parent.mkdir(parents=True)
    state_folder().write_text("a file where the folder should be")
    path = download.fetch(FILE)
    told: Progress = []
    assert download.fetch(FILE, progress=told.append) == path
    assert told


def test_finding_loads_no_library_that_costs_time() -> None:
    script = (
        "import sys; from q3e_local.models import download; from q3e_local.models.catalog import cards\n"
        "[download.find(file) for card in cards().values() for file in card.files.values()]\n"
        "print(*{'huggingface_hub', 'httpx2', 'filelock'} & set(sys.modules))"
    )
    assert run_python(script).stdout.strip() == ""


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
def test_the_hub_cache_is_where_huggingface_hub_has_it(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    theirs = run_python("from huggingface_hub import constants; print(constants.HF_HUB_CACHE)").stdout.strip()
    assert origins.hub_cache() == Path(theirs)


# --- the disk, and others ---


def test_a_disk_without_room_is_said_before(
    server: Hub, source: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed = len(CONTENT) + (64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(NotEnoughDiskError, match=r"0\.07 GB more in .*0\.07 GB free"):
        download.fetch(FILE, source=source)
    assert server.requests == []
    partial(source).write_bytes(CONTENT[:1])  # one byte less is needed
    assert download.fetch(FILE, source=source).read_bytes() == CONTENT


def test_a_disk_that_fills_up_leaves_what_was_written(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(http, "_sync", full)
    with pytest.raises(NotEnoughDiskError, match="No space left"):
        download.fetch(FILE)
    assert partial("hub").exists()


def test_a_folder_that_cannot_be_written_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file where the cache should be")
    with pytest.raises(DownloadError, match="HF_HOME"):
        download.fetch(FILE)


def test_a_file_that_cannot_be_read_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = download.fetch(FILE)
    shutil.rmtree(state_folder())

    def refuse(*args: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(download, "sha256", refuse)
    with pytest.raises(DownloadError, match=f"cannot check {path}"):
        download.fetch(FILE)
    assert path.exists()


def test_two_processes_at_once_download_once(server: Hub, source: Any) -> None:
    gate = threading.Event()
    server.faults.append(Fault(gate=gate))
    first = start_fetch(source)
    wait_for(partial(source).exists)
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


def test_huggingface_hub_waits_for_us(hub: Hub) -> None:
    gate = threading.Event()
    hub.faults.append(Fault(gate=gate))
    ours = start_fetch("hub")
    wait_for(partial("hub").exists)
    threading.Timer(1.5, gate.set).start()  # by then they wait for the lock
    theirs = run_python(HF_DOWNLOAD, REPO, REVISION, NAME)
    out, err = ours.communicate(timeout=30)
    assert ours.returncode == 0, err
    assert out.strip() == theirs.stdout.strip()
    assert ranges(hub) == [None]


@pytest.mark.parametrize("kept", [True, False], ids=["with another link", "alone"])
def test_delete_leaves_a_blob_that_another_snapshot_links_to(hub: Hub, kept: bool, tmp_path: Path) -> None:
    path = download.fetch(FILE)
    other = path.parent.parent / ("f" * 40) / NAME
    if kept:
        other.parent.mkdir()
        other.symlink_to(path.readlink())
    download.delete(path)
    assert download.find(FILE) is None
    assert other.exists() == kept
    assert kept or everything_below(tmp_path / "hub") == []


def test_delete_does_not_follow_a_link_out_of_the_cache(hub: Hub, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(OTHER)
    place = next(origins.places(origins.pin(FILE)))
    place.parent.mkdir(parents=True)
    place.symlink_to(mine)
    with pytest.raises(ChecksumError):
        download.fetch(FILE)
    assert mine.read_bytes() == OTHER
    assert not place.is_symlink()


def test_delete_of_our_own_leaves_no_folder(modelscope: Hub) -> None:
    path = download.fetch(FILE, source="modelscope")
    download.delete(path)
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"repo": None},
        {"sha256": None},
        {"sha256": "abc"},
        {"size_bytes": 0},
        {"revision": "main"},
        {"file": "../../etc/x"},
        {"file": "/etc/x"},
        {"file": "a\\..\\b"},
        {"repo": "../x"},
    ],
)
def test_a_file_without_a_pin_is_not_downloaded(wrong: dict[str, Any]) -> None:
    fields = {
        name: getattr(FILE, name) for name in ("quantization", "file", "repo", "revision", "size_bytes", "sha256")
    }
    with pytest.raises(CardError):
        download.fetch(ModelFile(**fields | wrong))


# --- other processes ---


FETCH = """
import sys
from q3e_local.models import download
from q3e_local.models.card import ModelFile
repo, revision, file, size, sha256, source = sys.argv[1:]
print(download.fetch(ModelFile("q", file, repo, revision, int(size), sha256), source=source))
"""


HF_DOWNLOAD = """
import sys, huggingface_hub
repo, revision, file = sys.argv[1:]
print(huggingface_hub.hf_hub_download(repo, file, revision=revision))
"""


def start_fetch(source: str) -> subprocess.Popen[str]:
    arguments = [REPO, REVISION, NAME, str(FILE.size_bytes), str(FILE.sha256), source]
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, env=environment
    )


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])
