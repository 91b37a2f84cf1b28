"""Which source is asked: the hub, a mirror or ModelScope; and what is told of one that refuses or is silent."""

from __future__ import annotations

import logging
import queue
import threading
import time
from types import SimpleNamespace

import pytest
from downloads import CONTENT, FILE, NAME, REPO, REVISION
from hub import REFUSED, Fault

from q3e_local.errors import ChecksumError, DownloadError, HubUnreachableError
from q3e_local.files import data_folder
from q3e_local.models import download
from q3e_local.models.download import http, origins, silence

pytestmark = pytest.mark.usefixtures("network")


def test_addresses_when_no_variable_is_set(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.delenv("Q3E_MODELSCOPE_ENDPOINT")
    assert [origin.url for origin in origins.origins(origins.pin(FILE), "auto")] == [
        f"https://huggingface.co/{REPO}/resolve/{REVISION}/{NAME}",
        f"https://www.modelscope.cn/models/{REPO}/resolve/master/{NAME}",
    ]


def test_a_hub_that_sends_us_to_its_cdn(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.redirects = True
    assert download.fetch(FILE).read_bytes() == CONTENT
    by_port = {f"http://127.0.0.1:{request.port}": request.authorization for request in hub.requests}
    assert by_port == {hub.url: "Bearer hf_secret", hub.cdn_url: None}


def test_a_cdn_that_cannot_be_reached_is_named(hub):
    hub.redirects = True
    hub.cdn_url = REFUSED
    with pytest.raises(HubUnreachableError, match=r"it sends us to 127\.0\.0\.1:9: .*refused"):
        download.fetch(FILE, source="hub")


@pytest.mark.parametrize(
    ("status", "says"), [(404, "does not have the file"), (401, "HF_TOKEN"), (403, "HF_TOKEN"), (418, "418")]
)
def test_a_refusal_is_said_at_once_and_no_other_source_is_tried(hub, modelscope, status, says):
    hub.faults.append(Fault(status=status, headers={"X-Error-Message": "because"}))
    with pytest.raises(DownloadError, match=says) as caught:
        download.fetch(FILE)
    assert not isinstance(caught.value, (HubUnreachableError, ChecksumError))
    assert "(because)" in str(caught.value)
    assert len(hub.requests) == 1
    assert modelscope.requests == []


@pytest.mark.parametrize("trouble", ["refused", "500", "silent", "no handshake", "login page", "unknown host"])
def test_a_hub_that_cannot_be_reached_is_followed_by_modelscope(
    hub, modelscope, trouble, monkeypatch, caplog, silent_host
):
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
            monkeypatch.setenv("HF_ENDPOINT", f"https://{silent_host}")
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


def test_both_unreachable_is_one_error_with_the_ways_out(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/mirror")
    monkeypatch.setenv("Q3E_MODELSCOPE_ENDPOINT", "http://localhost:9")
    waits: list[float] = []  # a server that refuses is not asked again
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    with pytest.raises(HubUnreachableError) as caught:
        download.fetch(FILE)
    advice = (
        "unset HF_ENDPOINT, which is 'http://127.0.0.1:9/mirror', or set it to another mirror, such as https://hf-m"
    )
    for part in (
        NAME,
        "127.0.0.1:9",
        "localhost:9",
        "refused",
        advice,
        "pull NAME --to FOLDER",
        "demo makes vectors",
    ):
        assert part in str(caught.value)
    assert waits == []
    for source, other in (("hub", "modelscope"), ("modelscope", "hub")):
        with pytest.raises(HubUnreachableError, match=f"--source {other}"):
            download.fetch(FILE, source=source)


# The address of a mirror


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://127.0.0.1", "http://[", "http://127.0.0.1:port", "127.0.0.1:port", ":/mirror", "a mirror", "http://"],
)
def test_an_endpoint_that_is_no_address(endpoint, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(DownloadError, match="HF_ENDPOINT") as caught:
        download.fetch(FILE)
    assert not isinstance(caught.value, HubUnreachableError)


def test_a_password_in_the_endpoint_is_not_shown(hub, monkeypatch):
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
def test_an_endpoint_may_be_a_host_alone(endpoint, address, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    (origin,) = origins.origins(origins.pin(FILE), "hub")
    assert origin.url == f"{address}/{REPO}/resolve/{REVISION}/{NAME}"


def test_a_mirror_without_the_file_is_named_and_the_hub_itself_is_not(hub, monkeypatch):
    hub.always = Fault(status=404)
    with pytest.raises(DownloadError, match=f"Unset HF_ENDPOINT, which is '{hub.url}', or set it to another"):
        download.fetch(FILE)
    (origin,) = origins.origins(origins.pin(FILE), "hub")
    monkeypatch.delenv("HF_ENDPOINT")
    assert origins.advice_on(origin) == ""
    assert origins.mirror_advice() == "set HF_ENDPOINT to a mirror of the hub, such as https://hf-mirror.com"


# A server that is silent


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is told after a twentieth of a second."""
    assert silence.FIRST_S <= 3
    monkeypatch.setattr(silence, "FIRST_S", 0.05)
    monkeypatch.setattr(silence, "AGAIN_S", 0.1)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.usefixtures("impatient")
def test_a_server_that_accepts_and_is_silent_is_told(modelscope, scheme, monkeypatch, silent_host, transfers):
    """Over https it is the handshake that is never answered."""
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(http, "CONNECT_TIMEOUT_S", 0.5)
    monkeypatch.setenv("HF_ENDPOINT", f"{scheme}://{silent_host}")
    assert download.fetch(FILE, progress=transfers.add).read_bytes() == CONTENT
    waits = transfers.of("waiting")
    assert len(waits) >= 2
    then = modelscope.url.removeprefix("http://")
    said = f"waiting for {silent_host}: no answer for 0 s, at most 0 s; then {then} is asked"
    assert transfers[0] == (said, 0, True)
    assert not any(is_waiting for _, _, is_waiting in transfers[len(waits) :])
    assert {what.split()[0] for what, _, _ in transfers[len(waits) :]} == {"downloading", "checking"}


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stalls_in_the_middle_is_told_and_goes_on(hub, transfers):
    gate = threading.Event()
    hub.faults.append(Fault(gate=gate))

    def progress(what: str, n_bytes: int, is_waiting: bool) -> None:
        transfers.add(what, n_bytes, is_waiting)
        if is_waiting and n_bytes:
            gate.set()

    assert download.fetch(FILE, progress=progress, source="hub").read_bytes() == CONTENT
    # A busy machine may be silent for that long before the first byte already.
    what, n_bytes = next((what, n_bytes) for what, n_bytes, is_waiting in transfers if is_waiting and n_bytes)
    host = hub.url.removeprefix("http://")
    limit = f"at most {http.READ_TIMEOUT_S:.0f} s"
    assert what == f"waiting for {host}: nothing more for 0 s, {limit}; then {host} is asked again"
    assert 0 < n_bytes < len(CONTENT)


def test_a_pause_that_a_busy_server_asks_for_is_told(hub, monkeypatch, transfers):
    monkeypatch.setattr(silence, "FIRST_S", 0.001)
    hub.faults.append(Fault(status=503))
    assert download.fetch(FILE, progress=transfers.add, source="hub").read_bytes() == CONTENT
    host = hub.url.removeprefix("http://")
    said = f"waiting for {host}: status 503, at most 0 s; then {host} is asked again"
    assert said in [what for what, _, _ in transfers]


@pytest.mark.usefixtures("impatient")
def test_silence_counts_from_what_came_last():
    reported: queue.Queue[float] = queue.Queue()
    with silence.Silence(reported.put) as quiet:
        first, second = reported.get(timeout=20), reported.get(timeout=20)
        assert 0.05 <= first < second
        begin = time.monotonic()
        quiet.heard()
        while (later := reported.get(timeout=20)) > time.monotonic() - begin:  # a report that was on its way
            pass
        assert later >= 0.05
