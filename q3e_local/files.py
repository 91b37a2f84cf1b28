"""The SHA-256 of a file, with a word on how far it is: gigabytes take seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path


def sha256(path: Path, on_bytes: Callable[[int], None] = lambda n_bytes: None) -> str:
    """The file's SHA-256 in hex; `on_bytes` is told how many bytes were read after each piece."""
    digest, n_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(4 << 20):
            digest.update(piece)
            n_bytes += len(piece)
            on_bytes(n_bytes)
    return digest.hexdigest()
