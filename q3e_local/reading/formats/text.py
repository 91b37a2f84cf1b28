"""Plain text: paragraphs between blank lines.

Knows nothing of headings.
"""

from __future__ import annotations

from q3e_local.reading.document import Document
from q3e_local.reading.encodings import decode
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import document_of


def read(data: bytes, limits: Limits) -> Document:
    decoded = decode(data, limits)
    return document_of(decoded.text, [], "text", decoded.encoding)
