"""Files to text with structure: `read` one, `walk` the folders they are in.

Knows nothing of models, vectors or indexes. Each kind has a module of its own, loaded when the first file of it
comes; each foreign parser has one owner among them. Most of these parsers come with the extra `documents`.
"""

from __future__ import annotations

import importlib
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from q3e_local.errors import InputError
from q3e_local.reading import extras, workbooks
from q3e_local.reading.document import Document, Section
from q3e_local.reading.encodings import decode
from q3e_local.reading.failures import parsing
from q3e_local.reading.kinds import N_SNIFFED, kind_of
from q3e_local.reading.limits import Limits
from q3e_local.reading.office import CONVERTED, convert
from q3e_local.reading.walk import FoundFile, Skipped, walk

__all__ = ["Document", "FoundFile", "Limits", "Section", "Skipped", "read", "read_bytes", "walk"]

# Kind: the module whose `read` takes a file's text, and what an error calls the file.
_TEXT_READERS = {
    "text": ("text", "text"),
    "markdown": ("markdown", "Markdown"),
    "rst": ("rst", "reStructuredText"),
    "html": ("html", "HTML"),
    "notebook": ("notebook", "Jupyter notebook"),
    "csv": ("csv", "CSV"),
    "jsonl": ("json_lines", "JSON Lines"),
    "code": ("code", "code"),
}
# Kind: the module whose `read` takes a file's bytes, and what an error calls the file.
_READERS = {
    "pdf": ("pdf", "PDF"),
    "docx": ("word", "Word document"),
    "pptx": ("slides", "PowerPoint presentation"),
    "xlsx": ("workbook", workbooks.WHAT),
    "odt": ("opendocument", "OpenDocument text"),
    "rtf": ("rich_text", "Rich Text Format"),
    "eml": ("mail", "mail"),
    "epub": ("epub", "EPUB"),
}


def read(path: Path, limits: Limits = Limits(), encoding: str | None = None) -> Document:  # noqa: B008 (frozen)
    """A file's text and sections; of an empty text none. Never stops at half of a file.

    `encoding` is that of a file of text, where somebody knows better than its bytes say.

    Raises InputError, whatever is wrong: encrypted, scanned, broken, not text, above a limit. Its text is the reason
    alone, without the file's name. Raises MissingPackageError where the extra `documents` has to be installed first.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError("is no regular file")
        limits.check_size(status.st_size)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from None
    return read_bytes(path.name, data, limits, encoding)


def read_bytes(
    name: str,
    data: bytes,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    encoding: str | None = None,
) -> Document:
    """As `read`, of a file's name and bytes."""
    limits.check_size(len(data))
    kind = kind_of(name, data[:N_SNIFFED])
    if kind is None:
        raise InputError("is not text")
    form = CONVERTED.get(kind, kind)
    extras.need(form)
    if form != kind:
        data = convert(name, data, kind, limits)
    name_of_module, what = _READERS.get(form) or _TEXT_READERS[form]
    with parsing(what):
        module = importlib.import_module(f"q3e_local.reading.formats.{name_of_module}")
        if form in _READERS:
            document: Document = module.read(data, limits)
            return replace(document, kind=kind)
        decoded = decode(data, limits, module.declared(data) if form == "html" else None, encoding)
        document = module.read(decoded.text, limits)
    problems = tuple(_damage(document, data, decoded.encoding))
    return replace(document, kind=kind, encoding=decoded.encoding, problems=problems)


def _damage(document: Document, data: bytes, encoding: str) -> Iterator[str]:
    """Where bytes of a text's file are not of its encoding."""
    if "\ufffd" in document.text:
        try:
            data.decode(encoding)
        except UnicodeDecodeError as error:
            yield (
                f"bytes that are not {encoding}, shown as U+FFFD: {document.text.count(chr(0xFFFD)):,}, the first is "
                f"byte {error.start + 1:,}; save it as UTF-8"
            )
