"""Where embeddings go: stdout, a file that lands whole, or one that grows record by record and can be resumed.

Knows files and what a resumed file holds; leaves the bytes of a record to formats.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from q3e_local.cli.stopping import uninterrupted
from q3e_local.cli.writing.formats import BINARY, FORMATS, RESUMABLE, SUFFIXES, Writer
from q3e_local.cli.writing.record import About, Record, text_digest
from q3e_local.cli.writing.resume import Done, open_resumable
from q3e_local.errors import OptionError, OutputError
from q3e_local.files import landing, rows_file, sole_writer
from q3e_local.reading.records import Item


class Target(Protocol):
    """What a run of `embed` writes to: a file, stdout, or a vector store."""

    done: Done  # what a resumed file has already, by the index of the texts
    n_written: int

    @property
    def keeps_parts(self) -> bool:
        """Whether what was written stays, and can be continued, when a run ends before its time."""

    @property
    def summary(self) -> Sequence[str]:
        """Lines for the end of a run that went well."""

    def has(self, index: int, item: Item) -> bool:
        """Whether an earlier run wrote this text, which is then passed over."""

    def write(self, record: Record) -> None:
        """Write one record whole, Ctrl-C or not. Raises OutputError."""


class Output:
    """An open file, or stdout."""

    summary: Sequence[str] = ()

    def __init__(self, writer: Writer, name: str, done: Done, keeps_parts: bool) -> None:
        self._writer, self._name, self.done = writer, name, done
        self.n_written, self.keeps_parts = 0, keeps_parts

    def has(self, index: int, item: Item) -> bool:
        """Whether the file has this text. Raises OutputError where it has another one in its place."""
        if index not in self.done:
            return False
        _check_same(index, item, *self.done[index])
        return True

    def write(self, record: Record) -> None:
        """Write one record whole, Ctrl-C or not. Raises OutputError."""
        try:
            with uninterrupted():
                self._writer.write(record)
                self.n_written += 1
        except OSError as error:
            raise cannot_write(self._name, error) from None


def _check_same(index: int, item: Item, name: str, digest: str) -> None:
    """Compare an item with the id and the digest that the output has at its index. Raises OutputError."""
    if item.id != name:
        raise OutputError(
            f"the inputs are not those of the output: text {index} is {item.id}, it was {name}; write to a new file"
        )
    if (item.problem is None or item.is_blank) and text_digest(item.text) != digest:
        raise OutputError(
            f"{item.id} is not the text it was when the output was begun (edited, or another field or column); "
            "write to a new file"
        )


def choose_format(form: str | None, path: Path | None, suffixes: Mapping[str, str] = SUFFIXES) -> str:
    """The format of --format, else by the file's suffix, else a table on a terminal and JSON Lines in a pipe.

    Of a link its own suffix counts. Raises OptionError for a suffix that says nothing, and for binary formats on a
    terminal.
    """
    path = None if path == Path("-") else path
    to_terminal = path is None and sys.stdout is not None and sys.stdout.isatty()
    if form is not None:
        if form in BINARY and to_terminal:
            raise OptionError(f"{form} is binary and would spoil the terminal; write it with -o FILE, or pipe it")
        return form
    if path is None:
        return "table" if to_terminal else "jsonl"
    if path.suffix.lower() not in suffixes:
        raise OptionError(f"{path} does not say its format: end it in {', '.join(suffixes)}, or give --format")
    return suffixes[path.suffix.lower()]


def settle(path: Path | None) -> Path | None:
    """The file to write, None for stdout (`-`): where a link points, so that the link stays. Raises OutputError."""
    if path is None or path == Path("-"):
        return None
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OutputError(f"{path} is no regular file; pipe the output there instead")
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:  # a name too long, a folder without permission, links in a circle
        raise cannot_write(str(path), error) from None


def check_target(path: Path | None, form: str, resuming: bool, force: bool, has_resume: bool = True) -> None:
    """Refuse what cannot work before the model is loaded. Raises OptionError or OutputError.

    `has_resume` says whether the command has --resume, which an error then speaks of.
    """
    if resuming and force:
        raise OptionError("--resume keeps what is there, --force replaces it: give one of them")
    if resuming and (path is None or form not in RESUMABLE):
        raise OptionError(f"--resume needs -o with a {' or '.join('.' + name for name in RESUMABLE)} file")
    if path is None:
        if sys.stdout is None:
            raise OutputError("stdout is closed; write to a file with -o FILE")
        return
    try:
        is_folder, has_folder = path.is_dir(), path.absolute().parent.is_dir()
        taken = path.exists() or (form == "npy" and rows_file(path).exists())
    except OSError as error:
        raise cannot_write(str(path), error) from None
    if is_folder:
        raise OutputError(f"{path} is a folder; name a file in it")
    if not has_folder:
        raise OutputError(f"there is no folder {path.parent} to write {path.name} into")
    if taken and not resuming and not force:
        way = (
            "continue it with --resume, or replace it with --force"
            if has_resume and form in RESUMABLE
            else "replace it with --force"
        )
        raise OutputError(f"{path if path.exists() else rows_file(path)} exists; {way}")


@contextmanager
def open_output(path: Path | None, form: str, about: About, resuming: bool) -> Iterator[Output]:
    """The output for one run. Complete when the block ends well.

    When it does not, a resumable file keeps its whole records, any other file is as if nothing had been
    written, and stdout has whole records. Raises OutputError when it cannot be written, or not be continued.
    """
    name = "to stdout" if path is None else str(path)
    of_block: OSError | None = None
    try:
        with _opened(path, form, about, resuming) as (writer, done):
            try:
                yield Output(writer, name, done, path is not None and form in RESUMABLE)
            except OSError as error:
                of_block = error
                raise
    except OSError as error:
        if error is of_block:  # an error of the block itself has a sentence elsewhere
            raise
        raise cannot_write(name, error) from None


@contextmanager
def stream_to(path: Path | None) -> Iterator[BinaryIO]:
    """stdout, or a file that lands whole. Raises OutputError."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with landing(path) as stream:
            yield stream
    except OSError as error:
        raise cannot_write(str(path), error) from None


def cannot_write(name: str, error: Exception) -> OutputError:
    """The error to raise where writing failed."""
    return OutputError(f"cannot write {name}: {getattr(error, 'strerror', None) or error}")


@contextmanager
def _opened(path: Path | None, form: str, about: About, resuming: bool) -> Iterator[tuple[Writer, Done]]:
    if path is None and form not in BINARY:
        writer = FORMATS[form](cast(BinaryIO, _Stdout()), about)
        yield writer, {}
        with uninterrupted():
            writer.finish()
    elif path is not None and form in RESUMABLE:
        with _alone(path), open_resumable(path, form, about, resuming) as (writer, done), _finished(writer):
            yield writer, done
    else:
        with _binary_stdout() if path is None else landing(path) as stream:
            writer = FORMATS[form](stream, about)
            with _finished(writer):
                yield writer, {}


@contextmanager
def _binary_stdout() -> Iterator[BinaryIO]:
    # Binary formats go back to their header, which a pipe cannot.
    with tempfile.TemporaryFile() as stream:
        yield stream
        stream.seek(0)
        shutil.copyfileobj(stream, sys.stdout.buffer)
        sys.stdout.buffer.flush()


class _Stdout:
    """stdout as it is at each write: a stream that first takes the live line away, while there is a live line."""

    def write(self, data: bytes) -> int:
        return sys.stdout.buffer.write(data)

    def flush(self) -> None:
        sys.stdout.buffer.flush()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Refuse a second writer."""

    def refuse() -> None:
        raise OutputError(f"{path} is being written by another process; wait for it, or write to a new file")

    with sole_writer(os.fsencode(path.resolve()), refuse):
        yield


@contextmanager
def _finished(writer: Writer) -> Iterator[None]:
    """Complete the output with what was written before its stream closes, also after an error.

    pyarrow's writer would otherwise write its footer in `__del__`, when the stream is gone.
    """
    try:
        yield
    finally:
        with uninterrupted():
            writer.finish()
