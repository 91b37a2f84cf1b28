"""What was proved on this machine, the tap of a model file or a variant of our kernels: an empty file for each.

The name of a file is made of all that the proof depends on. Knows the state folder only. A file that has no content
cannot be damaged.
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
    """Note that it did. Where that cannot be written, it is proved again the next time."""
    mark = _mark(facts)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        logger.info("cannot write %s: %s", mark, error)


def _mark(facts: tuple[object, ...]) -> Path:
    return state_folder() / "proved" / hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
