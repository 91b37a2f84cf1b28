"""What was checked on this machine and need not be checked again: an empty file for each proof that went well.

The name of the file is made of all facts that the proof depends on: another fact is another name. Knows the state
folder only. A file without content cannot be damaged.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from q3e_local.files import state_folder

logger = logging.getLogger(__name__)


def is_known(*facts: object) -> bool:
    """Whether the proof went well with these very facts."""
    try:
        return _mark(facts).exists()
    except OSError:
        return False


def remember(*facts: object) -> None:
    """Note that the proof went well. Where the note cannot be written, the proof is made again the next time."""
    mark = _mark(facts)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        logger.info("cannot write %s: %s", mark, error)


def _mark(facts: tuple[object, ...]) -> Path:
    return state_folder() / "proved" / hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
