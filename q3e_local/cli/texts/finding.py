"""Find the files that the names on the command line mean: files, folders, patterns, stdin."""

from __future__ import annotations

import glob as patterns
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from q3e_local.cli.texts.layout import STDIN, Layout
from q3e_local.cli.texts.source import Source, table_of
from q3e_local.errors import InputError, OptionError
from q3e_local.files import rows_file
from q3e_local.reading.globs import pattern


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
            raise InputError(f"there is no file or folder {what}; to take the words themselves, give --text")
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
            raise OptionError("nothing to read: name files or folders, give --text, or pipe text in")
        paths.append(None)
    _check_used(layout, paths)
    return Source(paths, texts, layout)


def _check_used(layout: Layout, paths: Sequence[Path | None]) -> None:
    """Raise OptionError for an option that none of the inputs has a use for."""
    kinds = {table_of(path) for path in paths} if layout.column is not None else {"text"}
    if layout.sheet is not None and "workbook" not in kinds:
        raise OptionError("--sheet is for Excel workbooks, there is none among the inputs")
    for option, value in {"--delimiter": layout.delimiter, "--encoding": layout.encoding}.items():
        if value is not None and "text" not in kinds:
            raise OptionError(f"{option} is for tables of text, there is none among the inputs")


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
    found: list[Path] = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += (Path(where, name) for name in files if not name.startswith("."))
    found = sorted(
        path
        for path in found
        if (wanted is None or wanted.fullmatch(path.relative_to(folder).as_posix()))
        and path.is_file()
        and path.resolve() not in ours
    )
    if not found:
        raise InputError(f"the folder {folder} has no files" + (f" that match {glob!r}" if glob else ""))
    return found
