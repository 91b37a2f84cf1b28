"""Plain text: paragraphs between blank lines.

Knows nothing of headings.
"""

from __future__ import annotations

from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import document_of


def read(text: str, limits: Limits) -> Document:
    return document_of(text, [])
