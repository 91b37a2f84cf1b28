"""Which files were checked before, and at what size.

Knows nothing of where files come from.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from q3e_local.files import land, state_folder
from q3e_local.models.download.origins import Pin

_log = logging.getLogger(__name__)


def has_size(path: Path, size_bytes: int) -> bool:
    """Whether there is a file of this size."""
    try:
        return path.is_file() and path.stat().st_size == size_bytes
    except OSError:
        return False


def is_known(path: Path, pin: Pin) -> bool:
    """Whether this very file was checked before and did not change since."""
    try:
        known: object = json.loads(_note(pin).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return known == _identity(path)


def remember(path: Path, pin: Pin) -> None:
    """Note that this file was checked. Where that cannot be written, it is checked again the next time."""
    note = _note(pin)
    try:
        land(note, json.dumps(_identity(path)))
    except OSError as error:
        _log.info("cannot write %s: %s", note, error)


def _note(pin: Pin) -> Path:
    return state_folder() / "verified" / f"{pin.sha256}.json"


def _identity(path: Path) -> dict[str, str | int]:
    real = path.resolve()
    facts = real.stat()
    return {"path": str(real), "size_bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}
