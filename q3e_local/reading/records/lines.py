"""Texts that are lines of a file, or a whole file."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from q3e_local.reading.encodings import may_be_utf16
from q3e_local.reading.records.item import Cause, Item, failed
from q3e_local.reading.records.transcoding import OpenText


def read(name: str, text: OpenText, keep_blank: bool = False) -> Iterator[Item]:
    """Each line that is not blank; with `keep_blank` each of the others too, as an item without a text."""
    for number, raw in enumerate(text.stream, 1):
        item = _item(name, number, raw, text)
        if item.problem is None and not item.text.strip():
            if not keep_blank:
                continue
            item = failed(name, "has no text in it", "blank", len(raw), number)
        yield item


def read_whole(name: str, text: OpenText) -> Iterator[Item]:
    """The file as one text, without the newline that ends it."""
    yield _item(name, None, text.stream.read(), text)


def _item(name: str, number: int | None, raw: bytes, text: OpenText) -> Item:
    cause: Cause
    n_bytes = len(raw)
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")  # they are the format's, not the text's
    if b"\0" in raw:
        cause = "encoding" if may_be_utf16(text.head) else "record"
        return failed(name, f"is a binary file (NUL at byte {raw.index(0)})", cause, n_bytes, number)
    try:
        decoded = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        has_lines = b"\n" in raw
        line = raw.count(b"\n", 0, error.start) + 1
        if text.encoding != "utf-8":  # bytes are not at the places they have in the file
            where = f" in line {line}" if has_lines else ""
            cause = "record" if text.is_marked else "encoding"
            return failed(name, f"is not {text.shown}{where}", cause, n_bytes, number)
        where = f"in line {line} (at byte {error.start})" if has_lines else f"at byte {error.start}"
        return failed(name, f"is not UTF-8: byte 0x{raw[error.start]:02x} {where}", "encoding", n_bytes, number)
    return Item(name if number is None else f"{name}:{number}", decoded, n_bytes, line=number, source=name)
