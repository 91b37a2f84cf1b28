"""Rich Text Format (.rtf): paragraphs, and the rows of tables with bars between their cells.

Knows that striprtf gives each paragraph as a line, without a word on headings. The only module that imports it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from striprtf.striprtf import rtf_to_text

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Piece, assemble, table_row
from q3e_local.reading.document import Document
from q3e_local.reading.limits import Limits

# What stands before an item of a list: a sign of the fonts Symbol and Wingdings, or a bullet.
_BULLET = re.compile(r"^\s*[\uf000-\uf0ff\u2022\u25cf\u25aa\u00b7]\s*")
# Pictures and objects are most of a large file, and hold no text: hexadecimal digits, which take long to walk over.
_HEX = re.compile(rb"[0-9a-fA-F\r\n]{512,}")


def read(data: bytes, limits: Limits) -> Document:
    if not data.lstrip().startswith(b"{\\rtf"):
        raise InputError("is no Rich Text Format: it does not begin with {\\rtf")
    # Bytes of a code page stand as \'xx, and as themselves where a program was careless; the file names the page.
    escaped = re.sub(rb"[\x80-\xff]", lambda found: b"\\'%02x" % found[0][0], _HEX.sub(b"", data))
    return assemble(_pieces(rtf_to_text(escaped.decode("ascii"), errors="replace")), limits)


def _pieces(text: str) -> Iterator[Piece]:
    in_table = False
    for line in text.split("\n"):
        is_row = line.endswith("|")
        yield Piece(table_row(line.split("|")) if is_row else _BULLET.sub("- ", line), joins=is_row and in_table)
        in_table = is_row
