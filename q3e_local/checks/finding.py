"""What a look of `doctor` found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What a look found, and what to do where it is not well."""

    what: str
    text: str
    ok: bool = True
    advice: str = ""
