"""Where embeddings go: stdout, a file that lands whole, or one that grows record by record and can be resumed.

Knows files and what is in one already; leaves the bytes of a record to formats.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from q3e_local.cli import resume
from q3e_local.cli.formats import BINARY, FORMATS, RESUMABLE, SUFFIXES, About, Record, Writer
from q3e_local.errors import OptionError, OutputError


class Output:
    """An open output. `done` holds index and id of the texts that a resumed file has already."""

    def __init__(self, writer: Writer, done: dict[int, str] | None = None) -> None:
        self._writer = writer
        self.done = done or {}
        self.n_written = 0

    def write(self, record: Record) -> None:
        """Write one record whole, Ctrl-C or not."""
        with uninterrupted():
            self._writer.write(record)
            self.n_written += 1

    def finish(self) -> None:
        """Complete the output with what was written."""
        with uninterrupted():
            self._writer.finish()


def choose_format(asked: str | None, path: Path | None) -> str:
    """The format asked for, else by the file's suffix, else a table on a terminal and JSON Lines in a pipe.

    Raises OptionError for a suffix that says nothing, and for binary formats on a terminal.
    """
    to_terminal = path is None and sys.stdout is not None and sys.stdout.isatty()
    if asked is not None:
        if asked in BINARY and to_terminal:
            raise OptionError(f"{asked} is binary and would spoil the terminal; write it with -o FILE, or pipe it")
        return asked
    if path is None:
        return "table" if to_terminal else "jsonl"
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"{path} does not say its format: end it in {', '.join(SUFFIXES)}, or give --format")
    return SUFFIXES[path.suffix.lower()]


def check_target(path: Path | None, form: str, resuming: bool, force: bool) -> None:
    """Refuse what cannot work before the model is loaded. Raises OptionError or OutputError."""
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
        taken = path.exists() or (form == "npy" and resume.rows_file(path).exists())
    except OSError as error:  # a name too long, a folder that is closed to us
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    if is_folder:
        raise OutputError(f"{path} is a folder; name a file in it")
    if not has_folder:
        raise OutputError(f"there is no folder {path.parent} to write {path.name} into")
    if taken and not resuming and not force:
        way = (
            "continue it with --resume, or replace it with --force"
            if form in RESUMABLE
            else "replace it with --force"
        )
        raise OutputError(f"{path} exists; {way}")


@contextmanager
def open_output(path: Path | None, form: str, about: About, resuming: bool) -> Iterator[Output]:
    """The output for one run. Complete when the block ends well.

    When it does not, a resumable file keeps its whole records, any other file is as if nothing had been
    written, and stdout has whole records. Raises OutputError when it cannot be written, or not be continued.
    """
    try:
        if path is None:
            with _to_stdout(form, about) as output:
                yield output
        elif form in RESUMABLE:
            with _growing(path, form, about, resuming) as output:
                yield output
        else:
            with _whole(path, form, about) as output:
                yield output
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path or 'to stdout'}: {error.strerror or error}") from None


@contextmanager
def _to_stdout(form: str, about: About) -> Iterator[Output]:
    stdout = sys.stdout.buffer
    if form not in BINARY:
        output = Output(FORMATS[form](stdout, about))
        yield output
        output.finish()
        return
    # Binary formats go back to their header, which a pipe cannot.
    with tempfile.TemporaryFile() as stream:
        with _finished(FORMATS[form](stream, about)) as output:
            yield output
        stream.seek(0)
        shutil.copyfileobj(stream, stdout)
        stdout.flush()


@contextmanager
def _whole(path: Path, form: str, about: About) -> Iterator[Output]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as stream, _finished(FORMATS[form](stream, about)) as output:
            yield output
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _growing(path: Path, form: str, about: About, resuming: bool) -> Iterator[Output]:
    opened = resume.open_npy if form == "npy" else resume.open_jsonl
    with opened(path, about, resuming) as (writer, done), _finished(writer, done) as output:
        yield output


@contextmanager
def _finished(writer: Writer, done: dict[int, str] | None = None) -> Iterator[Output]:
    """An output that is finished while its stream is still open, whatever happens: Parquet's would do so later."""
    output = Output(writer, done)
    try:
        yield output
    finally:
        output.finish()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done; a second one comes through at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            raise KeyboardInterrupt
        held.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt
