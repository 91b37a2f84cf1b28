"""What became of the files of some folders since they were indexed.

Compares sizes and times with records; reads no file and changes no index.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from q3e_local.errors import InputError
from q3e_local.reading.walk import Found, Skipped, walk
from q3e_local.search.database.records import FileRecord


@dataclass(frozen=True)
class Changes:
    """The files of a run. Paths are absolute, with forward slashes, as the index has them."""

    to_read: tuple[Found, ...]  # new, or of another size or time than its record
    n_unchanged: int
    gone: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def changes(
    folders: Sequence[Path],
    globs: Sequence[str],
    records: Mapping[str, FileRecord],
    recipe: str,
    leave_out: Sequence[Path] = (),
) -> Changes:
    """Look at these folders, or single files. A record whose digest is not of this `recipe` is out of date.

    `leave_out` are the index's own files. Only what lies below a folder can be gone.

    Raises InputError for a folder that is missing or, while the index has files of it, empty: its disk may not be
    mounted.
    """
    folders = [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100 - links stay as they are named
    known = {folder: below(folder, records) for folder in folders}
    for folder in folders:
        _check_is_there(folder, len(known[folder]))
    found: dict[str, Found] = {}
    skipped: list[Skipped] = []
    for one in walk(folders, globs, leave_out):
        if isinstance(one, Found):
            found[one.path.as_posix()] = one
        else:
            skipped.append(one)
    for folder in folders:
        if known[folder] and folder.is_dir() and not any(folder.iterdir()):
            raise InputError(
                f"{folder} is empty, and the index has {_files(len(known[folder]))} of it; if its disk is not "
                f"mounted, mount it; to forget them: q3e-local index rm --below {folder}"
            )
    missing = {path for paths in known.values() for path in paths if path not in found}
    passed_over = {one.path.as_posix() for one in skipped if one.is_expected}
    to_read = tuple(one for path, one in found.items() if not _is_same(one, records.get(path), recipe))
    return Changes(
        to_read,
        len(found) - len(to_read),
        tuple(sorted(path for path in missing if path in passed_over or _is_deleted(path))),
        tuple(skipped),
    )


def _is_same(found: Found, record: FileRecord | None, recipe: str) -> bool:
    if record is None or not record.digest.startswith(recipe):
        return False
    return (record.size_bytes, record.mtime_ns) == (found.size_bytes, found.mtime_ns)


def below(folder: Path, records: Mapping[str, FileRecord]) -> list[str]:
    """The paths of an index that are this folder's, or this file."""
    name = Path(os.path.abspath(folder)).as_posix()  # noqa: PTH100
    within = name if name.endswith("/") else f"{name}/"
    return [path for path in records if path == name or path.startswith(within)]


def _is_deleted(path: str) -> bool:
    """Whether it is there no more: not if another pattern, or a folder that is closed to us, left it out."""
    try:
        os.stat(path)  # noqa: PTH116 - a text as it came from the index
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _check_is_there(folder: Path, n_known: int) -> None:
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        what = f"there is no folder or file {folder}"
        if n_known:
            what += (
                f", and the index has {_files(n_known)} of it; if its disk is not mounted, mount it; to forget them: "
                f"q3e-local index rm --below {folder}"
            )
        raise InputError(what) from None
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None


def _files(n_files: int) -> str:
    return "1 file" if n_files == 1 else f"{n_files:,} files"
