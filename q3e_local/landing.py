"""A file that is there whole or not at all.

Knows a path and its folder; nothing of what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def landing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes are under the path once the block ends well; else all is as it was before.

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
