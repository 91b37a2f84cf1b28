"""What became of the files of some folders since they were indexed.

Compares sizes and times with records; reads no file and changes no index.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from q3e_local.reading.walk import Found, Skipped, walk
from q3e_local.search.database.places import files_of, option_of, quoted
from q3e_local.search.database.records import FileRecord


@dataclass(frozen=True)
class Changes:
    """The files of a run. Paths are absolute, with forward slashes, as the index has them."""

    to_read: tuple[Found, ...]  # new, or of another size or time than its record
    n_unchanged: int
    gone: tuple[str, ...]
    n_left_out: int  # known and still there, and yet no files of this run
    skipped: tuple[Skipped, ...]
    has_looked: bool  # at any folder
    missing: tuple[str, ...]  # why a folder could not be looked at, one for each such


def changes(
    index: Path, folders: Sequence[Path], globs: Sequence[str], records: Mapping[str, FileRecord], recipe: str
) -> Changes:
    """Look at these folders, or single files. A record whose digest is not of this `recipe` is out of date.

    The index's own files are left out. Only what lies below a folder can be gone. Folders that are missing or, while
    the index has files of them, empty are passed over, and told: their disk may not be mounted.
    """
    known, missing = {}, []
    ordered = sorted(records)
    for folder in dict.fromkeys(Path(os.path.abspath(folder)) for folder in folders):  # noqa: PTH100 - links stay
        paths = below(folder, ordered)
        problem = _problem(folder, index, len(paths))
        if problem:
            missing.append(problem)
        else:
            known[folder] = paths
    found: dict[str, Found] = {}
    skipped: list[Skipped] = []
    for one in walk(list(known), globs, files_of(index)):
        if isinstance(one, Found):
            found[one.path.as_posix()] = one
        else:
            skipped.append(one)
    passed_over = {one.path.as_posix() for one in skipped if one.is_expected}
    not_found = {path for paths in known.values() for path in paths if path not in found}
    gone = {path for path in not_found if path in passed_over}
    gone |= _gone(not_found - gone, _other_spellings(found, records), found)
    to_read, n_unchanged = [], 0
    for path, one in found.items():
        record = records.get(path)
        if not _is_same(one, record, recipe):
            to_read.append(one)
        elif record is not None and record.problem:
            skipped.append(Skipped(one.path, record.problem))
        else:
            n_unchanged += 1
    n_left_out = sum(not records[path].problem for path in not_found - gone)
    return Changes(
        tuple(to_read), n_unchanged, tuple(sorted(gone)), n_left_out, tuple(skipped), bool(known), tuple(missing)
    )


def _is_same(found: Found, record: FileRecord | None, recipe: str) -> bool:
    if record is None or not record.digest.startswith(recipe):
        return False
    return (record.size_bytes, record.mtime_ns) == (found.size_bytes, found.mtime_ns)


def below(folder: Path, ordered: Sequence[str]) -> list[str]:
    """Of an index's paths, which are sorted, those that are this folder's, or this file."""
    name = Path(os.path.abspath(folder)).as_posix().rstrip("/")  # noqa: PTH100
    place = bisect_left(ordered, name)
    itself = [name] if place < len(ordered) and ordered[place] == name else []
    after_slash = chr(ord("/") + 1)
    return [*itself, *ordered[bisect_left(ordered, f"{name}/") : bisect_left(ordered, name + after_slash)]]


def _gone(not_found: Collection[str], spellings: Collection[str], found: Mapping[str, Found]) -> set[str]:
    """Those that are there no more, that are no files any more, or that were found by another path.

    What another pattern, or a folder that is closed to us, left out is none of these.
    """
    status = {path: _status(path) for path in {*not_found, *spellings}}
    gone = {path for path in not_found if status[path] is None}
    there = {path: _inode(one) for path, one in status.items() if one is not None and _inode(one)}
    if there:
        inodes = {_inode(one) for one in map(_status, found) if one is not None}
        gone |= {path for path, inode in there.items() if inode in inodes}
    gone |= {path for path in not_found if (one := status[path]) and one.st_mode and not stat.S_ISREG(one.st_mode)}
    return gone


def _other_spellings(found: Mapping[str, Found], records: Mapping[str, FileRecord]) -> set[str]:
    """Known paths that are those of found files but for case, which many disks do not tell apart."""
    folded = {path.casefold() for path in found}
    return {path for path in records if path not in found and path.casefold() in folded}


def _status(path: str) -> os.stat_result | None:
    """None for what is there no more; zeros for what nobody lets us look at."""
    try:
        return os.stat(path)  # noqa: PTH116 - a text as it came from the index
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return os.stat_result([0] * 10)


def _inode(status: os.stat_result) -> tuple[int, int] | None:
    return (status.st_dev, status.st_ino) if status.st_ino else None


def _problem(folder: Path, index: Path, n_known: int) -> str:
    """Why there is nothing to be seen of a folder or file, and what to do; empty if there is."""
    what = ""
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        what = f"there is no folder or file {folder}"
        if not n_known:
            return what
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror}"
    else:
        try:
            if not is_folder or not n_known or any(folder.iterdir()):
                return ""
        except OSError:  # closed to us: the walk says so
            return ""
        what = f"{folder} is empty"
    files = "1 file" if n_known == 1 else f"{n_known:,} files"
    return (
        f"{what}, and the index has {files} of it; if its disk is not mounted, mount it; to forget them: "
        f"q3e-local index rm{option_of(index)} --below {quoted(folder)}"
    )
