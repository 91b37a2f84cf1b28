"""JSON Lines: each record a section of the strings in it, `field: text`, on its own line.

Numbers and flags are left out, nobody searches them by meaning. A line that is no JSON is taken as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from q3e_local.reading.assembling import Piece, assemble
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits


def read(text: str, limits: Limits) -> Document:
    return assemble(_pieces(text), limits)


def _pieces(text: str) -> Iterator[Piece]:
    for number, line in enumerate(text.split("\n"), 1):
        try:
            record = json.loads(line)
        except ValueError:
            yield Piece(line, line=number)
            continue
        yield Piece("\n".join(f"{name}: {value}" if name else value for name, value in _strings(record)), line=number)


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a record that is more than white space, with the names that lead to it."""
    if isinstance(value, str) and value.strip():
        yield name, value.strip()
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, name)
