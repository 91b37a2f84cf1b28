"""Where the program keeps its files, how a file lands whole, locks, SHA-256, and notes of what was checked before.

Knows paths and bytes; nothing of what is in the files. The folders are the platform's, or all below `Q3E_HOME`; a
function that names a folder does not create it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs

_APP = "q3e-local"

logger = logging.getLogger(__name__)


def data_folder() -> Path:
    """Models made or downloaded here, and where imported ones lie."""
    return _below_home("data") or platformdirs.user_data_path(_APP, appauthor=False)


def config_folder() -> Path:
    """What the user writes: model cards, names (`config.toml`), a service's keys (`serve.env`)."""
    return _below_home("config") or platformdirs.user_config_path(_APP, appauthor=False)


def state_folder() -> Path:
    """Results that can be had again (files that were checked, settings that were tuned), and locks."""
    return _below_home("state") or platformdirs.user_state_path(_APP, appauthor=False)


def cache_folder() -> Path:
    """Vectors that were computed before. It may be deleted at any time."""
    return _below_home("cache") or platformdirs.user_cache_path(_APP, appauthor=False)


def _below_home(name: str) -> Path | None:
    home = os.environ.get("Q3E_HOME")
    return Path(home).expanduser() / name if home else None


@contextmanager
def landing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes are under the path once the block ends well; otherwise nothing has changed.

    Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # or a power cut may leave the name with nothing under it
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """See that a file's content is on the disk. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def has_size(path: Path, size_bytes: int) -> bool:
    """Whether there is a file of this size."""
    try:
        return path.is_file() and path.stat().st_size == size_bytes
    except OSError:
        return False


def identity(path: Path) -> tuple[int, int] | None:
    """Device and number, which differ where another file has this path now; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def land(path: Path, text: str) -> None:
    """Write a small file whole, as UTF-8, and make its folder where that is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with landing(path) as stream:
        stream.write(text.encode("utf-8"))


@contextmanager
def alone(
    lock: Path, on_wait: Callable[[], None] = lambda: None, *, wait_s: float = -1, mode: int = 0o644
) -> Iterator[None]:
    """Hold a lock against other processes until the block ends. The folder of the lock file is made if missing.

    Where another process holds the lock, calls `on_wait`, which may raise, and waits: for ever, or `wait_s` seconds.
    Raises OSError, and of that TimeoutError when the wait is over.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock, mode=mode)
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.acquire(timeout=0)
    except Timeout:
        on_wait()
        held.acquire(timeout=wait_s)
    try:
        yield
    finally:
        held.release()


@contextmanager
def sole_writer(name: bytes, refuse: Callable[[], None]) -> Iterator[None]:
    """Let one process of this machine write to the output of this name until the block ends.

    Calls `refuse`, which raises, where another one does. The lock is kept with the state of this program, so that
    nothing lies by the output.
    """
    key = hashlib.sha256(name).hexdigest()[:32]
    with ExitStack() as stack:
        with suppress(OSError):  # a home that cannot be written is no reason to refuse an output elsewhere
            stack.enter_context(alone(state_folder() / "outputs" / f"{key}.lock", refuse))
        yield


def rows_file(path: Path) -> Path:
    """The file with a line for each row of a `.npy`: `NAME.npy.rows.jsonl` beside it."""
    return path.with_name(f"{path.name}.rows.jsonl")


def sha256(
    path: Path, on_bytes: Callable[[int], None] = lambda n_bytes: None, copy_to: BinaryIO | None = None
) -> str:
    """The file's SHA-256 in hex. Calls `on_bytes` with the number of bytes that were read, after each piece.

    A copy is written to `copy_to` in the same reading.
    """
    digest, n_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(4 << 20):
            digest.update(piece)
            if copy_to is not None:
                copy_to.write(piece)
            n_bytes += len(piece)
            on_bytes(n_bytes)
    return digest.hexdigest()


def is_proved(*facts: object) -> bool:
    """Whether a check on this machine went well with these very facts, of which another fact makes another check."""
    try:
        return _proof(facts).exists()
    except OSError:
        return False


def note_proved(*facts: object) -> None:
    """Note that a check went well: an empty file, which cannot be damaged. Without room nothing is noted."""
    proof = _proof(facts)
    try:
        proof.parent.mkdir(parents=True, exist_ok=True)
        proof.touch()
    except OSError as error:
        logger.info("cannot write %s: %s", proof, error)


def _proof(facts: tuple[object, ...]) -> Path:
    return state_folder() / "proved" / hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
