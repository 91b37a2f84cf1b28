"""One file over HTTP, continued from what is there: ranges, retries, redirects.

Knows HTTP and the partial file; nothing of caches, locks or checksums beyond what a server's headers say.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import NoReturn

import httpx2

from q3e_local.errors import ChecksumError, DownloadError
from q3e_local.files import sync
from q3e_local.models.download import origins, silence
from q3e_local.models.download.origins import NoAnswerError, Origin, Pin
from q3e_local.models.download.silence import Silence

# Waits before the attempts that follow one which brought nothing new.
PAUSES_S: tuple[float, ...] = (1, 2, 4, 8)
# For each address of a host, and a hub has several: a network that drops packets is recognized in a few timeouts.
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_LONGEST_WAIT_S = 60.0  # what a server may ask for with Retry-After
_REPORT_EVERY_S = 0.1

_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


class _InterruptedError(Exception):
    """This attempt ended early, and another may do better."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


OnWait = Callable[[str, float, bool], None]


def download(origin: Origin, pin: Pin, on_bytes: Callable[[int], None], on_wait: OnWait) -> None:
    """Bring the partial file to its full size. `on_bytes` gets the bytes that are there, those from before included.

    While nothing comes, `on_wait` gets the reason, the seconds after which waiting ends, and whether the server is
    asked again then; perhaps in another thread. Raises NoAnswerError at once when the server does not answer, and
    after some attempts when the server stops sending; ChecksumError when its headers say that it has another file;
    DownloadError when it refuses.
    """
    timeout = httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    headers = {"User-Agent": "q3e-local", "Accept-Encoding": "identity", **origin.headers}
    has_answered, n_failures, farthest = False, 0, 0
    try:
        with httpx2.Client(timeout=timeout, headers=headers, follow_redirects=True) as client:
            while (n_have := origin.n_partial) != pin.size_bytes:
                if n_have > pin.size_bytes:
                    origin.partial.unlink()
                    continue
                try:
                    _continue(client, origin, pin, n_have, on_bytes, on_wait, has_answered)
                except httpx2.UnsupportedProtocol:  # the only failure of a connection that no other attempt mends
                    raise
                except httpx2.TransportError as error:
                    n_now, reason, wait_s = origin.n_partial, _reason(error, origin), 0.0
                except _InterruptedError as error:
                    n_now, reason, wait_s, has_answered = origin.n_partial, str(error), error.wait_s, True
                else:
                    continue
                has_answered |= n_now != n_have
                # Since the latest new byte: a server that ignores ranges and breaks off would go on for ever.
                n_failures, farthest = (1, n_now) if n_now > farthest else (n_failures + 1, farthest)
                if not has_answered or n_failures > len(PAUSES_S):
                    raise NoAnswerError(reason)
                _log.info("%s: %s; going on from byte %d", origin.host, reason, n_now)
                pause_s = max(wait_s, PAUSES_S[n_failures - 1])
                if pause_s >= silence.FIRST_S:
                    on_wait(reason, pause_s, True)
                time.sleep(pause_s)
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
        raise DownloadError(f"{origin.host} sends us to an address that cannot be used: {error}") from error
    sync(origin.partial)


def _continue(
    client: httpx2.Client,
    origin: Origin,
    pin: Pin,
    n_have: int,
    on_bytes: Callable[[int], None],
    on_wait: OnWait,
    has_answered: bool,
) -> None:
    headers = {"Range": f"bytes={n_have}-"} if n_have else {}
    missing = "no answer"

    def report(silent_s: float) -> None:
        on_wait(f"{missing} for {silent_s:.0f} s", READ_TIMEOUT_S, has_answered)

    with Silence(report) as quiet, client.stream("GET", origin.url, headers=headers) as response:
        missing = "nothing more"
        quiet.heard()
        _judge(response, origin, pin, n_have)
        with origin.partial.open("ab") as file:
            if response.status_code == 200:  # the whole file, asked for or not: a server may ignore the range
                file.truncate(0)
                n_have = 0
            next_report = 0.0
            for piece in response.iter_raw():
                quiet.heard()
                n_have += len(piece)
                if n_have > pin.size_bytes:
                    raise ChecksumError(_other_size(origin, pin, f"more than {pin.size_bytes:,}"))
                file.write(piece)
                has_answered = True
                if (now := time.monotonic()) >= next_report or n_have == pin.size_bytes:
                    on_bytes(n_have)
                    next_report = now + _REPORT_EVERY_S
    if n_have < pin.size_bytes:
        raise _InterruptedError(f"the connection ended after {n_have:,} of {pin.size_bytes:,} bytes")


def _judge(response: httpx2.Response, origin: Origin, pin: Pin, n_have: int) -> None:
    """Whether the body can be appended at `n_have`, or from zero when the status is 200."""
    status = response.status_code
    if status in _TRY_AGAIN:
        wait = response.headers.get("Retry-After", "")
        raise _InterruptedError(f"status {status}", min(float(wait), _LONGEST_WAIT_S) if wait.isdigit() else 0.0)
    if status not in (200, 206, 416):
        _refused(response, origin, pin)
    # The hub says what the file is before it sends us on to where the bytes are.
    for each in (*response.history, response):
        etag = each.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"').lower()
        if _SHA256.fullmatch(etag) and etag != pin.sha256:
            raise ChecksumError(
                f"{origin.host} has {pin.file} with SHA-256 {etag}, the card says {pin.sha256}; nothing of it was"
                " kept. Update q3e-local, or try the other --source"
            )
    range_ = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    size = range_[2] if range_ else response.headers.get("Content-Length", "") if status == 200 else ""
    if size.isdigit() and int(size) != pin.size_bytes and "Content-Encoding" not in response.headers:
        if status == 200 and "html" in response.headers.get("Content-Type", ""):
            raise NoAnswerError("it answers with a web page, perhaps the network's login or block page")
        raise ChecksumError(_other_size(origin, pin, f"{int(size):,}"))
    if status == 416 or (status == 206 and (range_ is None or range_[1] != str(n_have))):
        raise DownloadError(
            f"{origin.host} answered the range from byte {n_have} with status {status} and"
            f" Content-Range {response.headers.get('Content-Range')!r}; try the other --source"
        )


def _refused(response: httpx2.Response, origin: Origin, pin: Pin) -> NoReturn:
    status = response.status_code
    why = response.headers.get("X-Error-Message")
    answer = f"{origin.host} answered {status}{f' ({why})' if why else ''} for {pin.file} of {pin.repo}"
    if status in (401, 403):
        raise DownloadError(
            f"{answer}: it wants to know who asks. Set HF_TOKEN, or log in with `hf auth login`; if there is a token,"
            " it may have run out"
        )
    if status in (404, 410):
        raise DownloadError(
            f"{answer} at revision {pin.revision}: it does not have the file."
            f" {origins.advice_on(origin)}Try the other --source, or update q3e-local"
        )
    raise DownloadError(f"{answer}; try the other --source")


def _reason(error: httpx2.TransportError, origin: Origin) -> str:
    reason = str(error) or type(error).__name__
    host = error.request.url.netloc.decode("ascii")  # without a password
    return reason if host == origin.host else f"it sends us to {host}: {reason}"


def _other_size(origin: Origin, pin: Pin, n_bytes: str) -> str:
    return (
        f"{origin.host} has {pin.file} with {n_bytes} bytes, the card says {pin.size_bytes:,}; nothing of it was"
        " kept. Update q3e-local, or try the other --source"
    )
