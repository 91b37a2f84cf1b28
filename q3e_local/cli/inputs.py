"""Read texts from where people keep them: files, lines, JSONL, CSV, folders, arguments, stdin.

Knows files and encodings, nothing of models or vectors. Reads as it goes: no file is held whole but one that is
a text. UTF-8 only, with or without a byte order mark; anything else is an error that says where.
"""

from __future__ import annotations

import codecs
import csv
import glob as patterns
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from q3e_local.cli.resume import rows_file
from q3e_local.errors import InputError, OptionError
from q3e_local.reading.globs import pattern

STDIN = "-"
_CSV_FIELD_LIMIT = 2**31 - 1  # csv's own limit of 128 KiB is less than a long document
_COUNTED_BYTES, _COUNTED_CSV_BYTES = 64 << 20, 4 << 20  # less than a second
_DOCUMENTS = {".pdf", ".docx", ".pptx", ".epub"}  # no plain text in them
_UTF16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")  # as bytes that are not UTF-8 pass


@dataclass(frozen=True)
class Item:
    """One text to embed, or with `problem` the reason why there is none. `n_bytes` were read to get it.

    `source` is the file it is of, `line` the one it begins in; None where a file is one text.
    """

    id: str
    text: str
    n_bytes: int
    problem: str | None = None
    line: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Layout:
    """How texts lie in a file: at most one of `lines`, `jsonl` and `csv`; none means the file is one text."""

    lines: bool = False
    jsonl: str | None = None  # the field that holds the text
    csv: str | None = None  # the column that holds the text
    id_field: str | None = None

    def __post_init__(self) -> None:
        if sum((self.lines, self.jsonl is not None, self.csv is not None)) > 1:
            raise OptionError("--lines, --jsonl and --csv exclude each other")
        if self.id_field is not None and self.jsonl is None and self.csv is None:
            raise OptionError("--id needs --jsonl or --csv")


@dataclass(frozen=True)
class Source:
    """The files and texts of one command, in order. Check it once, read it once."""

    paths: Sequence[Path | None]  # None: stdin
    texts: Sequence[str]
    layout: Layout

    def n_bytes(self) -> int | None:
        """Bytes there are to read in all, or None when stdin hides it, or a file that `read` will complain of."""
        if None in self.paths:
            return None
        try:
            n_bytes = sum(path.stat().st_size for path in self.paths if path is not None)
        except OSError:
            return None
        return n_bytes + sum(len(text.encode("utf-8", "replace")) for text in self.texts)

    def n_texts(self) -> int | None:
        """About how many texts there are in all, where that is known at once or quickly counted: for progress."""
        n_bytes = self.n_bytes()
        if n_bytes is None:
            return None
        if self.layout == Layout():
            return len(self.paths) + len(self.texts)
        if n_bytes > (_COUNTED_BYTES if self.layout.csv is None else _COUNTED_CSV_BYTES):
            return None
        if self.layout.csv is not None:
            return sum(1 for _ in self.read())
        n_texts = len(self.texts)
        for path in filter(None, self.paths):
            try:
                with path.open("rb") as file:
                    n_texts += sum(1 for line in file if line.strip())
            except OSError:  # reading it says why
                n_texts += 1
        return n_texts

    def read(self) -> Iterator[Item]:
        """All texts in order. One that cannot be read, or is empty, is an Item with a problem in its place."""
        for item in self._items():
            if item.problem is None and not item.text.strip():
                item = replace(item, problem="has no text in it")
            yield item

    def _items(self) -> Iterator[Item]:
        for number, text in enumerate(self.texts, 1):
            yield Item(f"text:{number}", text, len(text.encode("utf-8", "replace")))
        for path in self.paths:
            # A file's name need not be UTF-8, an id must.
            name = "stdin" if path is None else path.as_posix().encode("utf-8", "replace").decode("utf-8")
            for item in self._of_file(path, name):
                yield replace(item, source=name)

    def _of_file(self, path: Path | None, name: str) -> Iterator[Item]:
        if path is not None and path.suffix.lower() in _DOCUMENTS:
            yield Item(
                name, "", 0,
                f"is {path.suffix[1:].upper()}, which only q3e-local index reads; the jobs take an index, "
                "by its .q3e or --index NAME",
            )  # fmt: skip
            return
        try:
            if path is None:
                yield from _read(name, sys.stdin.buffer, self.layout)
            else:
                with path.open("rb") as file:
                    yield from _read(name, file, self.layout)
        except OSError as error:
            yield Item(name, "", 0, f"cannot be read: {error.strerror or error}")


def find(
    names: Sequence[str], texts: Sequence[str], glob: str | None, layout: Layout, leave_out: Path | None = None
) -> Source:
    """Work out what to read: folders are walked in sorted order, without hidden files and our own output.

    Raises InputError for a name that does not exist, a pattern that matches nothing, or a folder without files,
    OptionError for nothing to read or an input that is our output.
    """
    ours = set() if leave_out is None else {leave_out.resolve(), rows_file(leave_out).resolve()}
    paths: list[Path | None] = []
    has_folder = False
    for name in _expanded(names):
        path = Path(name)
        if name == STDIN:
            if None in paths:
                raise OptionError("stdin (-) can be read only once")
            if sys.stdin is None:
                raise InputError("stdin is closed")
            paths.append(None)
            continue
        try:
            is_there, is_folder = path.exists(), path.is_dir()
        except OSError as error:  # a name too long, as of a text without --text; a folder that is closed to us
            raise InputError(f"{name} cannot be read: {error.strerror}") from None
        if not is_there:
            what = name if {"*", "?"}.isdisjoint(name) else f"{name}, and none matches it"
            raise InputError(f"there is no file or folder {what}; to embed the words themselves, give --text")
        if is_folder:
            has_folder = True
            paths += _walk(path, glob, ours)
        elif path.resolve() in ours:
            raise OptionError(f"{name} is the output too; write to another file")
        else:
            paths.append(path)
    if glob is not None and not has_folder:
        raise OptionError("--glob needs a folder among the inputs")
    if not paths and not texts:
        if sys.stdin is None or sys.stdin.isatty():
            raise OptionError("nothing to embed: name files or folders, give --text, or pipe text in")
        paths.append(None)
    return Source(paths, texts, layout)


def _expanded(names: Sequence[str]) -> Iterator[str]:
    """The names, and for a pattern what matches it: where no shell has done so, as on Windows, or it was quoted."""
    for name in names:
        is_pattern = not {"*", "?"}.isdisjoint(name) and not os.path.exists(name)  # noqa: PTH110 - never raises
        # glob.glob leaves hidden files out, as a shell does; Path.glob does not.
        found = sorted(patterns.glob(name, recursive=True)) if is_pattern else []  # noqa: PTH207
        yield from found or [name]


def _walk(folder: Path, glob: str | None, ours: set[Path]) -> list[Path]:
    if glob is not None and glob.startswith("/"):
        raise OptionError(f"--glob {glob!r} is no pattern: it is for paths below a folder, such as '*.md'")
    wanted = None if glob is None else pattern(glob, any_case=True)
    found = sorted(
        path
        for path in _visible(folder)
        if (wanted is None or wanted.fullmatch(path.relative_to(folder).as_posix()))
        and path.is_file()
        and path.resolve() not in ours
    )
    if not found:
        raise InputError(f"the folder {folder} has no files" + (f" that match {glob!r}" if glob else ""))
    return found


def _visible(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(where, name) for name in files if not name.startswith("."))


def _read(name: str, file: BinaryIO, layout: Layout) -> Iterator[Item]:
    if layout.lines:
        return _lines(name, file)
    if layout.jsonl is not None:
        return _jsonl(name, file, layout.jsonl, layout.id_field)
    if layout.csv is not None:
        return _csv(name, file, layout.csv, layout.id_field)
    return _whole(name, file)


def _whole(name: str, file: BinaryIO) -> Iterator[Item]:
    raw = file.read()
    yield _decoded(name, _without_newline(raw), len(raw))


def _lines(name: str, file: BinaryIO) -> Iterator[Item]:
    for number, raw in enumerate(file, 1):
        item = replace(_decoded(f"{name}:{number}", _without_newline(raw), len(raw)), line=number)
        if item.problem is not None or item.text.strip():
            yield item


def _jsonl(name: str, file: BinaryIO, field: str, id_field: str | None) -> Iterator[Item]:
    for number, raw in enumerate(file, 1):
        if not raw.strip():
            continue
        where = f"{name}:{number}"
        try:
            record = orjson.loads(raw.removeprefix(codecs.BOM_UTF8))
        except orjson.JSONDecodeError as error:
            yield Item(where, "", len(raw), f"is not JSON: {error}")
            continue
        if not isinstance(record, dict):
            yield Item(where, "", len(raw), f"is not a JSON object but {type(record).__name__}")
            continue
        yield replace(_from_record(where, record, field, id_field, len(raw)), line=number)


def _csv(name: str, file: BinaryIO, column: str, id_column: str | None) -> Iterator[Item]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    # Bad bytes pass as surrogates, so that they spoil their own record alone.
    stream = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        rows = csv.reader(stream, strict=True)
        where = f"{name}:1"
        try:
            header = next(filter(None, rows), [])
            problem = no_header(header, column, id_column)
            if problem is not None:
                yield Item(name, "", 0, problem)
                return
            while True:
                line = rows.line_num + 1
                where = f"{name}:{line}"
                row = next(rows, None)
                if row is None:
                    return
                if row:
                    n_bytes = sum(len(cell.encode("utf-8", "replace")) + 1 for cell in row)
                    # A short row lacks its last columns; cells beyond the header belong to none.
                    record = dict(zip(header, row, strict=False))
                    yield replace(_from_record(where, record, column, id_column, n_bytes), line=line)
        except csv.Error as error:
            yield Item(where, "", 0, f"is not CSV: {error}")  # where the next record begins is anyone's guess
    finally:
        stream.detach()


def no_header(header: Sequence[str], *wanted: str | None) -> str | None:
    """Why a CSV's first line is not the header of these columns."""
    if header and header[0].startswith(_UTF16_MARKS):
        return "is UTF-16, not UTF-8; convert it first, as with iconv -f UTF-16 -t UTF-8"
    if not is_utf8("".join(header)):
        return "is not UTF-8 in its first line; convert it first, as with iconv -f GBK -t UTF-8"
    for column in wanted:
        if column is not None and column not in header:
            return f"has no column {column!r}; its columns are {', '.join(header) or 'none'}"
    return None


def _from_record(where: str, record: dict[str, Any], field: str, id_field: str | None, n_bytes: int) -> Item:
    if id_field is not None and not isinstance(record.get(id_field), str | int):
        return Item(where, "", n_bytes, f"has no {id_field!r} to take as its id")
    name = where if id_field is None else str(record[id_field])
    if not is_utf8(name):
        return Item(where, "", n_bytes, f"field {id_field!r} is not UTF-8")
    place = "" if name == where else f" ({where})"
    text = record.get(field)
    if text is None:
        return Item(name, "", n_bytes, f"has no field {field!r}{place}")
    if not isinstance(text, str):
        return Item(name, "", n_bytes, f"field {field!r} is no text but {type(text).__name__}{place}")
    if not is_utf8(text):
        return Item(name, "", n_bytes, f"field {field!r} is not UTF-8{place}")
    if not text.strip():
        return Item(name, "", n_bytes, f"has no text in it{place}")
    return Item(name, text, n_bytes)


def is_utf8(text: str) -> bool:
    """False where bytes that are not UTF-8 passed as surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _decoded(name: str, raw: bytes, n_bytes: int) -> Item:
    for mark, encoding in ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16")):
        if raw.startswith(mark):
            return Item(name, "", n_bytes, f"is {encoding}, not UTF-8; convert it first")
    if b"\0" in raw:
        return Item(name, "", n_bytes, f"is a binary file (NUL at byte {raw.index(0)})")
    try:
        return Item(name, raw.removeprefix(codecs.BOM_UTF8).decode("utf-8"), n_bytes)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        where = f"in line {line} (at byte {error.start})" if b"\n" in raw else f"at byte {error.start}"
        reason = (
            f"is not UTF-8: byte 0x{raw[error.start]:02x} {where}; convert it first, as with iconv -f GBK -t UTF-8"
        )
        return Item(name, "", n_bytes, reason)


def _without_newline(raw: bytes) -> bytes:
    """The newline that ends a file or a line is the format's, not the text's."""
    return raw.removesuffix(b"\n").removesuffix(b"\r")
