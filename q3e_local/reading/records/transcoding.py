"""A file of text in whatever encoding, as a stream of UTF-8, so that each format is read from UTF-8 alone.

Knows bytes and encodings, nothing of formats. Bytes that are not of the encoding arrive as bytes that are not UTF-8,
and so spoil only the record they are in.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from q3e_local.reading.encodings import BEFORE, MARK_BYTES, SAMPLE, guess, is_strictly, marked_encoding, shown

_PIECE = 1 << 20
_WRONG = b"\xff"  # a byte that no UTF-8 has


class OpenText:
    """An open file of text, from where it stands. `stream` gives it as UTF-8.

    `encoding` is the file's. Without one that is given the bytes show it; a byte order mark does so in any case.
    A pipe is judged by the bytes outside ASCII when they come, and until then is UTF-8. `head` is how the text
    begins, in UTF-8, and all of it where `is_whole`. `is_marked`: it has a byte order mark.
    """

    def __init__(self, file: BinaryIO, encoding: str | None = None) -> None:
        can_seek = file.seekable()
        raw_head = file.read(SAMPLE) if can_seek else _first_line(file)
        self.is_whole = can_seek and len(raw_head) < SAMPLE
        marked, is_undecided = marked_encoding(raw_head), False
        self.is_marked = marked is not None
        encoding = marked or encoding
        if encoding is not None:
            self.encoding = encoding
        elif can_seek:
            is_ascii = raw_head.isascii() and not self.is_whole
            self.encoding = guess(_first_beyond_ascii(file, raw_head) if is_ascii else raw_head, self.is_whole)
        else:
            raw_head = _until_clear(raw_head, file)
            self.encoding, is_undecided = guess(raw_head, is_whole=False), raw_head.isascii()
        # Without a character that is cut at its end.
        decoder = _decoder(self.encoding)
        self.head = raw_head if decoder is None else decoder.decode(raw_head).encode("utf-8", _HANDLER)
        # Bytes of the file for each byte of the stream, about.
        self.ratio = len(raw_head) / max(1, len(self.head))
        self.stream = io.BufferedReader(_Pieces(self._in_utf8(raw_head, file, is_undecided)), SAMPLE)

    @property
    def shown(self) -> str:
        """The encoding's name for people."""
        return shown(self.encoding)

    def _in_utf8(self, head: bytes, file: BinaryIO, is_undecided: bool) -> Iterator[bytes]:
        """The file piece by piece. Where it `is_undecided`, the first bytes outside ASCII settle the encoding."""
        data, decoder = head, None if is_undecided else _decoder(self.encoding)
        while data:
            if is_undecided and not data.isascii():
                is_undecided = False
                data = _until_clear(data, file)
                self.encoding = guess(data, is_whole=False)
                decoder = _decoder(self.encoding)
            yield data if decoder is None else decoder.decode(data).encode("utf-8", _HANDLER)
            data = _some(file, SAMPLE)
        if decoder is not None:
            yield decoder.decode(b"", True).encode("utf-8", _HANDLER)


def _first_line(file: BinaryIO) -> bytes:
    """At least a line of a pipe, and no more than there is: its writer may wait for the answer to that line."""
    head = b""
    while (b"\n" not in head or len(head) < MARK_BYTES) and len(head) < SAMPLE and (part := _some(file, SAMPLE)):
        head += part
    return head


def _until_clear(data: bytes, pipe: BinaryIO) -> bytes:
    """The data with as much of what follows in a pipe as shows its encoding; nothing more where it is UTF-8.

    What is not UTF-8, and not yet anything else, is an error unless more of it shows what it is: so waiting for more
    of a pipe costs nothing.
    """
    while (
        len(data) < SAMPLE
        and not is_strictly(data, "utf-8", is_whole=False)
        and guess(data, is_whole=False) == "utf-8"
        and (part := _some(pipe, SAMPLE))
    ):
        data += part
    return data


def _first_beyond_ascii(file: BinaryIO, head: bytes) -> bytes:
    """The part of a file, behind its `head`, where it first leaves ASCII, which alone says something."""
    back = file.tell()
    try:
        while piece := file.read(_PIECE):
            if not piece.isascii():
                first = next(place for place, byte in enumerate(piece) if byte > 0x7F)
                file.seek(max(back, file.tell() - len(piece) + first - BEFORE))
                return file.read(SAMPLE)
    finally:
        file.seek(back)
    return head


def _decoder(encoding: str) -> codecs.IncrementalDecoder | None:
    return None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)(_HANDLER)


def _handle(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    if isinstance(error, UnicodeEncodeError):
        return _WRONG * (error.end - error.start), error.end
    raise error


_HANDLER = "q3e_local.wrong_bytes"
codecs.register_error(_HANDLER, _handle)


class _Pieces(io.RawIOBase):
    """A stream of what an iterator gives."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        data = self._rest[: len(buffer)]
        self._rest = self._rest[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def _some(file: BinaryIO, n_bytes: int) -> bytes:
    """What there is of a pipe, without waiting for more."""
    read1 = getattr(file, "read1", file.read)
    return cast(bytes, read1(n_bytes))
