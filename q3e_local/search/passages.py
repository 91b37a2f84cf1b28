"""A part of an indexed file, to be read after a search: lines of it, or some of its passages.

Nothing comes out of here that is not in the index: lines are taken from the disk only while the file has the very
bytes that were indexed. Knows the database and how files are read; nothing of models or of how a search is done.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from q3e_local.errors import InputError, OptionError
from q3e_local.reading import Limits, read_bytes
from q3e_local.search.database import Database
from q3e_local.search.database.records import Entry, FileRecord

# Bounds of one answer: some 5,000 tokens, which a reader of any kind takes in at once.
CHARACTERS_MAX = 20_000
LINES_MAX, PASSAGES_MAX = 400, 50


@dataclass(frozen=True)
class Piece:
    """A stretch of text in one go. `id` is that of a passage; None for lines from the disk."""

    text: str
    id: str | None = None
    line: int | None = None  # first and last line in the file, from 1; None where a file has no lines
    last_line: int | None = None
    page: int | None = None
    headings: tuple[str, ...] = ()
    cut: bool = False  # whether its end is left out, because it alone is longer than an answer may be


@dataclass(frozen=True)
class Part:
    """What was asked for. `next_line` or `next_id` is where to go on, if the file goes on."""

    file: str | None  # None for a text that a program added
    pieces: tuple[Piece, ...]
    is_from_disk: bool = False
    next_line: int | None = None
    next_id: str | None = None


@dataclass(frozen=True)
class HeldFile:
    """What an index holds of a file."""

    record: FileRecord
    passages: tuple[Entry, ...]  # in the order of the text


def held_file(database: Database, path: str) -> HeldFile:
    """What the index holds of the file that was indexed under exactly this path. Raises OptionError for any other."""
    with database.snapshot() as state:
        record = state.file(path)
        entries = state.passages(path)
    if record is None:
        raise OptionError(f"file {_shown(path)} is not in this index; take a file that search names", "file")
    if record.problem:
        raise OptionError(f"file {_shown(path)} has no text in this index: it {record.problem}", "file")
    return HeldFile(record, entries)


def from_id(database: Database, name: str, n_passages: int = 1) -> Part:
    """The passage of this id, and of a file's passages those that follow, `n_passages` in all.

    Raises OptionError for an id that the index does not have.
    """
    with database.snapshot() as state:
        entry = next(iter(state.named([name])), None)
        if entry is None:
            raise OptionError(f"id {_shown(name)} is not in this index; take an id that search names", "id")
        of_file = (entry,) if entry.file is None else state.passages(entry.file)
    return _part(entry.file, [each for each in of_file if each.row >= entry.row], n_passages)


def from_line(held: HeldFile, first: int, last: int) -> Part:
    """The lines `first` to `last` of a file, counted from 1, or as many of them as an answer has room for.

    If the file has changed since it was indexed, they are given as it was indexed: the passages that have any of
    these lines. Raises OptionError for a file without lines, and for lines behind its end.
    """
    path, last = held.record.path, min(last, first + LINES_MAX - 1)
    if all(entry.chunk.last_line is None for entry in held.passages):
        start = f"; its first passage has the id {held.passages[0].id!r}" if held.passages else ""
        raise OptionError(f"file {_shown(path)} has no lines to count{start}", "first_line")
    lines = _lines_on_disk(held.record)
    if lines is None:
        with_lines = [entry for entry in held.passages if (entry.chunk.last_line or 0) >= first]
        if not with_lines:
            raise _behind(path, first, max(entry.chunk.last_line or 0 for entry in held.passages))
        n = sum((entry.chunk.line or 0) <= last for entry in with_lines)
        return _part(path, with_lines, max(n, 1))
    if first > len(lines):
        raise _behind(path, first, len(lines))
    wanted = _with_room(lines[first - 1 : last])
    end = first + len(wanted) - 1
    text = "\n".join(wanted)
    piece = Piece(text[:CHARACTERS_MAX], None, first, end, cut=len(text) > CHARACTERS_MAX)
    return Part(path, (piece,), is_from_disk=True, next_line=end + 1 if end < len(lines) else None)


def _part(file: str | None, entries: Sequence[Entry], n_passages: int) -> Part:
    """The first of these passages, as many as were asked for and as an answer has room for."""
    chosen = entries[:n_passages]
    chosen = chosen[: len(_with_room(entry.chunk.text for entry in chosen))]
    pieces = (
        Piece(
            text=entry.chunk.text[:CHARACTERS_MAX],
            id=entry.id,
            line=entry.chunk.line,
            last_line=entry.chunk.last_line,
            page=entry.chunk.page,
            headings=entry.chunk.headings,
            cut=len(entry.chunk.text) > CHARACTERS_MAX,
        )
        for entry in chosen
    )
    more = entries[len(chosen) :]
    return Part(file, tuple(pieces), next_id=more[0].id if more else None)


def _with_room(texts: Iterable[str]) -> list[str]:
    """The first of the texts, while an answer has room for them; the first one in any case."""
    texts = list(texts)
    ends = accumulate(len(text) + 1 for text in texts)
    return texts[: max(1, sum(end <= CHARACTERS_MAX for end in ends))]


def _lines_on_disk(record: FileRecord) -> list[str] | None:
    """The lines of a file that has the bytes which were indexed; None for any other."""
    data = _bytes_on_disk(record)
    if data is None:
        return None
    try:
        document = read_bytes(os.path.basename(record.path), data)  # noqa: PTH119 - the path is a text of the index
    except InputError:  # it was read when it was indexed, perhaps by another version of this program
        return None
    return document.text.split("\n") if document.has_lines else None


def _bytes_on_disk(record: FileRecord) -> bytes | None:
    """The bytes of a file if they are those that were indexed, wherever its path leads by now; else None."""
    limit = Limits().size_bytes
    try:
        # A pipe in the place of the file must not be waited for.
        handle = os.open(record.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as stream:  # noqa: PTH123 - it is open already
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                return None
            data = stream.read(limit + 1)
    except (OSError, ValueError):
        return None
    return data if hashlib.sha256(data).hexdigest() == record.digest else None


def _behind(path: str, first: int, n_lines: int) -> OptionError:
    return OptionError(f"first_line is {first}, and file {_shown(path)} has {n_lines} lines", "first_line")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:197]}...")
