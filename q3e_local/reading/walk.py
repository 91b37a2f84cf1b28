"""Find the files below folders: in order, each once, without what nobody wants searched.

Knows names, folders and links; of a file it reads the first bytes, and only where its name says nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from q3e_local.errors import InputError
from q3e_local.reading import extras
from q3e_local.reading.encodings import is_text, is_utf8
from q3e_local.reading.globs import pattern
from q3e_local.reading.kinds import N_SNIFFED, kind_by_name, left_out, without_reader
from q3e_local.reading.office import CONVERTED, program, without_program

# Programs keep their parts in them. Environments of Python and conda are known by a file of theirs.
_LEFT_OUT_FOLDERS = {"node_modules", "__pycache__", "site-packages", "__macosx", "$recycle.bin"}
_MARKS_OF_ENVIRONMENTS = {"pyvenv.cfg", "conda-meta"}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be read, as far as its name and first bytes tell."""

    path: Path
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder passed over. `reason` is short and the same for all of its sort: it can be counted by."""

    path: Path
    reason: str
    is_expected: bool = False  # a picture, an archive, a program: nobody expected it to be read


def walk(
    folders: Sequence[Path], globs: Sequence[str] = (), leave_out: Sequence[Path] = ()
) -> Iterator[FoundFile | Skipped]:
    """Every file below folders once, sorted, those of a folder before those of its folders; links come last.

    `folders` may be files too: these are taken though they are hidden or match no glob. Links are followed within
    what is named; a link that leads out of it is skipped. A file has to match one of the globs, in any case of its
    letters. Hidden files, folders in which programs keep their parts, and `leave_out` are passed over in silence.
    Raises InputError at once for a name that does not exist, OptionError for a glob that is none.
    """
    for path in folders:
        if not os.path.lexists(path):
            raise InputError(f"there is no file or folder {path}")
    return _Walk(globs, leave_out).over(folders)


class _Walk:
    """What has been seen, so that each real folder and file comes once and links end."""

    def __init__(self, globs: Sequence[str], leave_out: Sequence[Path]) -> None:
        self._globs = [pattern(glob, any_case=True) for glob in globs]
        rooted = [glob for glob in globs if glob.startswith(("/", "\\")) or glob[1:2] == ":"]
        self._from_root = [pattern(glob, any_case=True) for glob in rooted]
        self._can_convert = program() is not None
        # Looked up once: a search of sys.path for each file would take longer than the walk.
        self._without_package = {kind: str(error) for kind in extras.KINDS if (error := extras.missing(kind))}
        self._seen: set[tuple[int, int]] = set()
        self._links: list[tuple[Path, Path]] = []  # each with the folder that was walked
        self._roots: list[Path] = []  # what was named, as it really lies
        for path in leave_out:
            with suppress(OSError):
                self._is_new(path.stat())

    def over(self, paths: Sequence[Path]) -> Iterator[FoundFile | Skipped]:
        self._roots = [Path(os.path.realpath(path)) for path in paths]
        for path in paths:
            yield from self._path(path, path, is_named=True)
        # Links last: a file that was walked itself is then known by its own path.
        while self._links:
            yield from self._link(*self._links.pop(0))

    def _link(self, path: Path, base: Path) -> Iterator[FoundFile | Skipped]:
        """What a link leads to, if that lies in what was named.

        An archive from a stranger may hold a link to a home folder, which nobody meant to be searched.
        """
        target = Path(os.path.realpath(path))
        is_inside = any(target.is_relative_to(root) for root in self._roots)
        if is_inside or not os.path.exists(target):  # noqa: PTH110 (never raises)
            yield from self._path(path, base)
        elif target.is_dir() or (self._matches(path, base) and left_out(path.name) is None):
            yield Skipped(path, "link out of the folder; name its target too, if it is to be read")

    def _path(self, path: Path, base: Path, is_named: bool = False) -> Iterator[FoundFile | Skipped]:
        """A file or folder by its path, wherever that leads."""
        try:
            status = path.stat()
        except OSError as error:
            yield Skipped(path, "link to nothing" if path.is_symlink() else _reason(error))
            return
        if not stat.S_ISDIR(status.st_mode):
            if is_named or self._matches(path, base):
                yield from self._file(path, status, is_named)
        elif self._is_new(status):
            yield from self._below(path, base)

    def _below(self, folder: Path, base: Path) -> Iterator[FoundFile | Skipped]:
        waiting = [folder]  # on a list, not on Python's stack: folders may be deep
        while waiting:
            path = waiting.pop()
            try:
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                yield Skipped(path, _reason(error))
                continue
            if path != base and any(entry.name in _MARKS_OF_ENVIRONMENTS for entry in entries):
                continue
            inside: list[Path] = []
            for entry in entries:
                try:
                    yield from self._entry(entry, base, inside)
                except OSError as error:
                    yield Skipped(Path(entry.path), _reason(error))
            waiting += reversed(inside)

    def _entry(self, entry: os.DirEntry[str], base: Path, inside: list[Path]) -> Iterator[FoundFile | Skipped]:
        if _is_hidden(entry):
            return
        path = Path(entry.path)
        if entry.is_symlink():
            self._links.append((path, base))
        elif entry.is_dir():
            if entry.name.lower() not in _LEFT_OUT_FOLDERS and self._is_new(_status(entry)):
                inside.append(path)
        elif self._matches(path, base):
            yield from self._file(path, _status(entry))

    def _file(self, path: Path, status: os.stat_result, is_named: bool = False) -> Iterator[FoundFile | Skipped]:
        if not self._is_new(status):
            return
        what = left_out(path.name)
        suffix = without_reader(path.name)
        kind = kind_by_name(path.name)
        form = CONVERTED.get(kind or "", kind)
        if not stat.S_ISREG(status.st_mode):
            yield Skipped(path, "no regular file", is_expected=not is_named)
        elif not is_utf8(str(path)):
            yield Skipped(path, "its name is not UTF-8; rename it")
        elif what is not None:
            yield Skipped(path, what, is_expected=not is_named)
        elif suffix is not None:
            yield Skipped(path, f"no reader for {suffix}")
        elif kind in CONVERTED and not self._can_convert:
            yield Skipped(path, without_program(path.suffix.lower(), kind))
        elif form in self._without_package:
            yield Skipped(path, self._without_package[form])
        elif kind is None and not _begins_as_text(path):
            yield Skipped(path, "not text", is_expected=not is_named)
        else:
            yield FoundFile(path, status.st_size, status.st_mtime_ns)

    def _matches(self, path: Path, base: Path) -> bool:
        if not self._globs:
            return True
        below = path.relative_to(base).as_posix()
        if any(expression.fullmatch(below) for expression in self._globs):
            return True
        # A slash at the beginning is the folder that was named, as in .gitignore, or the root of the disk.
        names = (f"/{below}", path.absolute().as_posix()) if self._from_root else ()
        return any(expression.fullmatch(name) for expression in self._from_root for name in names)

    def _is_new(self, status: os.stat_result) -> bool:
        key = status.st_dev, status.st_ino
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new


def _begins_as_text(path: Path) -> bool:
    with path.open("rb") as file:
        return is_text(file.read(N_SNIFFED))


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    """By its dot, by its attribute on Windows, or the file by which Word locks a document."""
    if entry.name.startswith((".", "~$")):
        return True
    attributes: int = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0) if os.name == "nt" else 0
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    status = entry.stat()
    # On Windows a listing does not say which file it is.
    return status if status.st_ino else os.stat(entry.path)  # noqa: PTH116


def _reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"
