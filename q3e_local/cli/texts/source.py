"""`Source`: the files and texts of one command, and the reader of each file by its layout and kind."""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from q3e_local import reading
from q3e_local.cli.texts.layout import Layout
from q3e_local.errors import InputError, MissingPackageError
from q3e_local.reading.encodings import MARK_BYTES, likely, marked_encoding, shown
from q3e_local.reading.kinds import kind_of
from q3e_local.reading.records import Item, Wanted, delimited, json_lines, lines, parquet, workbook
from q3e_local.reading.records.item import failed
from q3e_local.reading.records.transcoding import OpenText

Tell = Callable[[str], None]
"""Called with a line about how a file is read, where somebody may have expected otherwise."""

Table = Literal["text", "parquet", "workbook"]
_TABLES: dict[str, Table] = {".parquet": "parquet", ".pq": "parquet", ".xlsx": "workbook", ".xlsm": "workbook"}
_SHOWN = {"parquet": "Parquet", "workbook": "an Excel workbook"}
# Kinds of files whose bytes are their text. A file of another kind has the text that reading finds in it.
_PLAIN = {"text", "markdown", "rst", "code", "csv", "jsonl"}
# Of the others, those that have no lines or records.
_BINARY = {"pdf", "docx", "pptx", "epub", "odt", "rtf", "eml", "doc", "ppt"}
_TABS = {".tsv", ".tab"}
_NAMED_AT_MOST = 5
# How files begin that are no text: stdin, and files with the suffix of text.
_MAGIC = {
    b"%PDF-": "is a PDF; name a file that ends in .pdf",
    b"{\\rtf": "is RTF; name a file that ends in .rtf",
    b"PAR1": "is Parquet; name a file that ends in .parquet",
    b"PK\x03\x04": "is a zip file, as Excel workbooks and Word files are; name a file with its kind's suffix",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook of 2003 or before; save it as .xlsx",
}


def table_of(path: Path | None) -> Table:
    """What a file is as a table; stdin is text."""
    return "text" if path is None else _TABLES.get(path.suffix.lower(), "text")


def has_lines(path: Path) -> bool:
    """Whether a file is lines of text, as a PDF, a mail or a workbook is not."""
    return table_of(path) == "text" and kind_of(path.name) not in _BINARY


def implied_delimiter(path: Path | None) -> str | None:
    """The delimiter that the suffix of a file says: tabs of a .tsv."""
    return "\t" if path is not None and path.suffix.lower() in _TABS else None


def not_text(head: bytes) -> str | None:
    """Why bytes that begin so are no text, where they are of a kind that another suffix would have shown."""
    return next((problem for magic, problem in _MAGIC.items() if head.startswith(magic)), None)


@dataclass(frozen=True)
class Source:
    """The files and texts of one command, in order. A file that is not stdin can be read more than once."""

    paths: Sequence[Path | None]  # None: stdin
    texts: Sequence[str]
    layout: Layout
    _told: set[str] = field(default_factory=set, compare=False, repr=False)

    def n_bytes(self) -> int | None:
        """Bytes there are to read in all, or None when stdin hides it, or a file that `read` will complain of."""
        if None in self.paths:
            return None
        try:
            n_bytes = sum(path.stat().st_size for path in self.paths if path is not None)
        except OSError:
            return None
        return n_bytes + sum(len(text.encode("utf-8", "replace")) for text in self.texts)

    @property
    def can_be_read_twice(self) -> bool:
        """Whether all inputs are regular files, or texts of the command line."""
        try:
            return all(path is not None and stat.S_ISREG(path.stat().st_mode) for path in self.paths)
        except OSError:
            return False

    def kept_types(self) -> dict[str, Any]:
        """The pyarrow type of each kept column; None, for text, unless all inputs are Parquet and agree in it."""
        found: dict[str, list[Any]] = {name: [] for name in self.layout.keep}
        if not self.texts and all(table_of(path) == "parquet" for path in self.paths):
            for path in filter(None, self.paths):
                # A file that cannot be read has no records either, and reading says why.
                with suppress(OSError, InputError), path.open("rb") as file:
                    for name, kind in parquet.column_types(file, self.layout.keep).items():
                        found[name].append(kind)
        return {
            name: kinds[0] if kinds and kinds.count(kinds[0]) == len(kinds) else None for name, kinds in found.items()
        }

    def read(self, tell: Tell = lambda line: None) -> Iterator[Item]:
        """All texts in order. One that cannot be read, or is blank, is an Item with a problem in its place.

        `tell` is called once, however often a file is read, with what is not read as UTF-8 or only in part. Raises
        MissingPackageError where a table needs a package that is not installed.
        """
        for item in self._items(tell):
            if item.problem is None and not item.text.strip():
                item = replace(item, problem="has no text in it", cause="blank")
            yield item

    def _items(self, tell: Tell) -> Iterator[Item]:
        for number, text in enumerate(self.texts, 1):
            yield Item(f"text:{number}", text, len(text.encode("utf-8", "replace")))
        for path in self.paths:
            # A file's name need not be UTF-8, an id must.
            name = "stdin" if path is None else path.as_posix().encode("utf-8", "replace").decode("utf-8")
            try:
                yield from self._read_file(path, name, partial(self._tell_once, tell, name))
            except OSError as error:
                yield failed(name, f"cannot be read: {error.strerror or error}", "file")
            except InputError as error:
                yield failed(name, str(error), "file")

    def _tell_once(self, tell: Tell, name: str, line: str) -> None:
        line = f"{name}: {line}"
        if line in self._told:
            return
        self._told.add(line)
        if len(self._told) <= _NAMED_AT_MOST:
            tell(line)
        elif len(self._told) == _NAMED_AT_MOST + 1:
            tell("more files like these are not named")

    def _read_file(self, path: Path | None, name: str, tell: Tell) -> Iterator[Item]:
        layout, table = self.layout, table_of(path)
        if path is None:
            yield from self._read_text(None, name, sys.stdin.buffer, tell)
            return
        if layout.is_whole and table != "parquet" and kind_of(path.name) not in _PLAIN:
            yield self._read_document(path, name, tell)
            return
        if table != "text" and layout.column is None:
            raise InputError(f"is {_SHOWN[table]}; for its rows give --csv COLUMN")
        if table == "text" and not has_lines(path):
            raise InputError(
                f"is {path.suffix[1:].upper()}, which is one text without lines or records; for its parts index it: "
                "jobs take an index by its .q3e or --index NAME"
            )
        with path.open("rb") as file:
            if table == "text" or layout.wanted is None:
                yield from self._read_text(path, name, file, tell)
            elif table == "parquet":
                yield from parquet.read(name, file, layout.wanted, path.stat().st_size)
            else:
                yield from workbook.read(
                    name, file, layout.wanted, path.stat().st_size, layout.sheet,
                    lambda line: tell(f"{line}; --sheet names another"),
                )  # fmt: skip

    def _read_document(self, path: Path, name: str, tell: Tell) -> Item:
        given = self.layout.encoding
        try:
            document = reading.read(path, encoding=given)
        except MissingPackageError as error:  # other files may need none
            raise InputError(f"cannot be read: {error}") from None
        if document.encoding not in (None, given or "utf-8"):
            with path.open("rb") as file:
                is_marked = marked_encoding(file.read(MARK_BYTES)) is not None
            _tell_encoding(tell, document.encoding, given, is_marked)
        for problem in document.problems:
            tell(problem)
        return Item(name, document.text, path.stat().st_size, source=name)

    def _read_text(self, path: Path | None, name: str, file: BinaryIO, tell: Tell) -> Iterator[Item]:
        given, is_told = self.layout.encoding, False
        if self.layout.is_whole:
            data = file.read()
            text = OpenText(io.BytesIO(data), given or likely(data))
        else:
            text = OpenText(file, given)
        for item in self._texts(path, name, text, self.layout.wanted):
            if not is_told and text.encoding != (given or "utf-8"):  # a pipe may show it late
                is_told = True
                _tell_encoding(tell, text.encoding, given, text.is_marked)
            yield item if text.ratio == 1 else replace(item, n_bytes=round(item.n_bytes * text.ratio))

    def _texts(self, path: Path | None, name: str, text: OpenText, wanted: Wanted | None) -> Iterator[Item]:
        problem = not_text(text.head)
        if problem is not None:
            return iter([failed(name, problem, "file")])
        if self.layout.lines:
            return lines.read(name, text, self.layout.blank_lines)
        if wanted is None:
            return lines.read_whole(name, text)
        if self.layout.jsonl is not None:
            return json_lines.read(name, text, wanted)
        return delimited.read(name, text, wanted, self.layout.delimiter or implied_delimiter(path))


def _tell_encoding(tell: Tell, encoding: str, given: str | None, is_marked: bool) -> None:
    """Tell that a text is not in the encoding that was expected, unless a byte order mark leaves nothing to say."""
    if given is not None:
        tell(f"read as {shown(encoding)}, as its byte order mark says, not as {shown(given)}")
    elif not is_marked:
        tell(f"read as {shown(encoding)}, not UTF-8; if that is wrong, give --encoding")
