"""How many of a thing, as people write it: for reprs, captions and messages.

Knows English nouns that take an s.
"""

from __future__ import annotations


def counted(n: int, what: str) -> str:
    """`1 text`, `1,204 texts`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
