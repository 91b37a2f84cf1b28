"""Bring a card's pinned file to this machine, whole and verified. The only code that downloads.

Knows which source is asked in what order, and what is checked when; nothing of HTTP, cards or models.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from q3e_local.errors import ChecksumError, DownloadError, HubUnreachableError, ModelNotHereError, NotEnoughDiskError
from q3e_local.files import alone, has_size, is_proved, note_proved, sha256
from q3e_local.models.card import ModelFile
from q3e_local.models.download import origins
from q3e_local.models.download.origins import NoAnswerError, Origin, Pin, Source

_SPARE_BYTES = 64 << 20  # a disk filled to the last byte breaks other programs

_log = logging.getLogger(__name__)


OnTransfer = Callable[[str, int, bool], None]
"""Called with what happens, how many bytes of the file are here, and whether the download waits."""


def fetch(
    file: ModelFile,
    *,
    source: Source = "auto",
    offline: bool = False,
    progress: OnTransfer = lambda what, n_bytes, is_waiting: None,
) -> Path:
    """The file's path, after its size and SHA-256 were held to the card; downloads what is missing of it.

    A call that is interrupted at any byte is continued by the next. `progress` is called from another thread while
    nothing comes, but never by two threads at once. Raises ModelNotHereError when offline, HubUnreachableError,
    ChecksumError after deleting what is wrong, NotEnoughDiskError, or DownloadError when a source refuses.
    """
    pin = origins.pin(file)
    here = find(file)
    if here is not None:
        return _verified(here, pin, progress)
    if offline or origins.is_offline():
        raise ModelNotHereError(
            f"{pin.file} is not on this machine and must not be downloaded (--offline or HF_HUB_OFFLINE=1);"
            " pull it once with a network, or take a file you have: q3e-local import PATH"
        )
    sources = origins.origins(pin, source)
    failures = []
    for number, origin in enumerate(sources, start=1):
        next_host = sources[number].host if number < len(sources) else ""
        try:
            return _bring(origin, pin, progress, next_host)
        except NoAnswerError as failure:
            failures.append(f"{origin.host} ({failure})")
            if next_host:
                _log.warning("cannot reach %s (%s); trying %s", origin.host, failure, next_host)
    raise HubUnreachableError(_ways_out(pin, failures, source))


def find(file: ModelFile) -> Path | None:
    """Where the file is already, at its full size: the hub cache at the pinned revision, or our own folder."""
    if file.repo is None or file.sha256 is None:
        return None
    pin = origins.pin(file)
    return next((path for path in origins.places(pin) if has_size(path, pin.size_bytes)), None)


def turn(lock: Path, what: str) -> AbstractContextManager[None]:
    """A lock against processes that do the same work; logs that another process is `what`, where it has the lock."""
    return alone(lock, lambda: _log.warning("another process is %s; waiting for it", what), mode=0o664)


def _bring(origin: Origin, pin: Pin, progress: OnTransfer, next_host: str) -> Path:
    try:
        origin.blob.parent.mkdir(parents=True, exist_ok=True)
        # For the hub it is the cache's own lock, so that other programs keep out too.
        with turn(origin.lock, f"downloading {pin.file}"):
            return _bring_alone(origin, pin, progress, next_host)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughDiskError(f"the disk of {origin.blob.parent} is full: {error.strerror}") from None
        raise DownloadError(
            f"cannot write {pin.file} to {origin.blob.parent}: {error}; choose another folder with"
            " HF_HOME (the hub cache) or Q3E_HOME"
        ) from error


def _bring_alone(origin: Origin, pin: Pin, progress: OnTransfer, next_host: str) -> Path:
    if has_size(origin.path, pin.size_bytes):  # another process brought it while we waited
        return _verified(origin.path, pin, progress)
    if has_size(origin.blob, pin.size_bytes):  # the same file came with another revision
        _verified(origin.blob, pin, progress)
        return origins.link(origin)
    _check_disk(origin, pin)
    try:
        _download_and_verify(origin, pin, progress, next_host)
    except ChecksumError:
        origin.partial.unlink(missing_ok=True)
        raise
    origin.partial.replace(origin.blob)
    path = origins.link(origin)
    note_proved(*_facts(path, pin))
    return path


def _download_and_verify(origin: Origin, pin: Pin, progress: OnTransfer, next_host: str) -> None:
    from q3e_local.models.download.http import download  # its HTTP library costs start-up time

    n_have, in_turn = 0, threading.Lock()  # a wait is reported by another thread

    def on_bytes(n_bytes: int) -> None:
        nonlocal n_have
        n_have = n_bytes
        with in_turn:
            progress(f"downloading from {origin.host} {pin.file}", n_bytes, False)

    def on_wait(why: str, at_most_s: float, is_asked_again: bool) -> None:
        then = origin.host if is_asked_again else next_host
        what = f"waiting for {origin.host}: {why}, at most {at_most_s:.0f} s"
        if then:
            what += f"; then {then} is asked{' again' if then == origin.host else ''}"
        with in_turn:
            progress(what, n_have, True)

    download(origin, pin, on_bytes, on_wait)
    # Read back from the disk: that is what will be loaded, and most of it may be from an earlier call.
    got = sha256(origin.partial, lambda n_bytes: progress(f"checking {pin.file}", n_bytes, False))
    if got != pin.sha256:
        raise ChecksumError(
            f"{origin.host} sent {pin.file} with SHA-256 {got}, the card says {pin.sha256}; it was deleted."
            " Pull it again, or with the other --source; if both fail, the card is out of date: update q3e-local"
        )


def _verified(path: Path, pin: Pin, progress: OnTransfer) -> Path:
    try:
        facts = _facts(path, pin)
        if is_proved(*facts):
            return path
        got = sha256(path, lambda n_bytes: progress(f"checking {pin.file}", n_bytes, False))
        if got != pin.sha256:
            origins.delete(path, even_if_shared=True)
    except OSError as error:
        raise DownloadError(f"cannot check {path}: {error}; make it readable, or delete it") from error
    if got != pin.sha256:
        raise ChecksumError(
            f"{path} had SHA-256 {got}, the card says {pin.sha256}; it was damaged and is deleted. Pull it again"
        )
    note_proved(*facts)
    return path


def _facts(path: Path, pin: Pin) -> tuple[str | int, ...]:
    """What a checked file is known by: when one of the facts changes, the file is checked again."""
    real = path.resolve()
    stat = real.stat()
    return pin.sha256, str(real), stat.st_size, stat.st_mtime_ns


def _check_disk(origin: Origin, pin: Pin) -> None:
    folder = origin.partial.parent
    needed = max(0, pin.size_bytes - origin.n_partial) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NotEnoughDiskError(
            f"{pin.file} needs {needed / 1e9:.2f} GB more in {folder}, which has {free / 1e9:.2f} GB free;"
            " make room, or choose another folder with HF_HOME (the hub cache) or Q3E_HOME"
        )


def _ways_out(pin: Pin, failures: list[str], source: Source) -> str:
    ways = {
        "auto": [origins.mirror_advice()],
        "hub": [origins.mirror_advice(), "try --source modelscope"],
        "modelscope": ["try --source hub"],
    }[source]
    ways += [
        "on another machine q3e-local pull NAME --to FOLDER, and here q3e-local import FOLDER",
        "take a file that you have: q3e-local import PATH",
        "what comes with this program can be tried: demo makes vectors, demo-reranker ranks",
    ]
    return f"{pin.file} cannot be downloaded; cannot reach {' nor '.join(failures)}. Ways out: {'; '.join(ways)}"
