"""What became of the files of some folders since they were indexed.

Compares sizes and times with records; reads no file and changes no index.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from q3e_local.errors import InputError
from q3e_local.reading.walk import FoundFile, Skipped, walk
from q3e_local.search.database.records import FileRecord
from q3e_local.search.indexing.tally import Tally
from q3e_local.search.places import files_of, option_of, quoted
from q3e_local.wording.counts import counted


def changes(
    index: Path,
    folders: Sequence[Path],
    globs: Sequence[str],
    records: Mapping[str, FileRecord],
    recipe: str,
    tally: Tally,
) -> tuple[list[FoundFile], list[str]]:
    """Look at these folders, or single files: the files to read, and the paths in the index that are gone.

    To read are files that are new, or of another size, time or recipe than their record; what else was found is in
    the tally. The files of the index itself are left out. Only a file below one of the folders can be gone. A folder
    that is missing, or is empty although the index has files of it, is passed over and named, because its disk may
    not be mounted. Raises InputError where no folder can be looked at.
    """
    known = {}
    ordered = sorted(records)
    for folder in dict.fromkeys(Path(os.path.abspath(folder)) for folder in folders):  # noqa: PTH100 - links stay
        paths = below(folder, ordered)
        problem = _problem(folder, index, len(paths))
        if problem:
            tally.missing.append(problem)
        else:
            known[folder] = paths
    if tally.missing and not known:
        raise InputError("\n".join(tally.missing))
    found: dict[str, FoundFile] = {}
    no_text = set()
    for file in walk(list(known), globs, files_of(index)):
        if isinstance(file, FoundFile):
            found[file.path.as_posix()] = file
        else:
            tally.skipped.append(file)
            if file.is_expected:
                no_text.add(file.path.as_posix())
    not_found = {path for paths in known.values() for path in paths if path not in found}
    gone = not_found & no_text
    gone |= _gone(not_found - gone, _other_spellings(found, records), found)
    to_read = []
    for path, file in found.items():
        record, current = records.get(path), (recipe, file.size_bytes, file.mtime_ns)
        if record is None or (record.recipe, record.size_bytes, record.mtime_ns) != current:
            to_read.append(file)
        elif record.problem:
            tally.skipped.append(Skipped(file.path, record.problem))
        else:
            tally.n_unchanged += 1
    tally.n_left_out += sum(not records[path].problem for path in not_found - gone)
    return to_read, sorted(gone)


def below(folder: Path, ordered: Sequence[str]) -> list[str]:
    """The paths below this folder, or of this file, among the sorted paths of an index."""
    name = Path(os.path.abspath(folder)).as_posix().rstrip("/")  # noqa: PTH100
    place = bisect_left(ordered, name)
    itself = [name] if place < len(ordered) and ordered[place] == name else []
    after_slash = chr(ord("/") + 1)
    return [*itself, *ordered[bisect_left(ordered, f"{name}/") : bisect_left(ordered, name + after_slash)]]


def _gone(not_found: Collection[str], spellings: Collection[str], found: Mapping[str, FoundFile]) -> set[str]:
    """The paths at which there is no file any more, or a file that was found by another path.

    A path stays that another pattern left out, or that lies in a folder we may not read.
    """
    status = {path: _status(path) for path in {*not_found, *spellings}}
    gone = {path for path in not_found if _is_no_file(status[path])}
    there = {path: _inode(state) for path, state in status.items() if state is not None and _inode(state)}
    if there:
        inodes = {_inode(state) for state in map(_status, found) if state is not None}
        gone |= {path for path, inode in there.items() if inode in inodes}
    return gone


def _other_spellings(found: Mapping[str, FoundFile], records: Mapping[str, FileRecord]) -> set[str]:
    """The known paths that differ from found files by case alone, which many disks do not tell apart."""
    folded = {path.casefold() for path in found}
    return {path for path in records if path not in found and path.casefold() in folded}


def _status(path: str) -> os.stat_result | None:
    """None for a path where nothing is any more; zeros for a path that we may not look at."""
    try:
        return os.stat(path)  # noqa: PTH116 - the path is a str in the index
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return os.stat_result([0] * 10)


def _is_no_file(status: os.stat_result | None) -> bool:
    return status is None or bool(status.st_mode and not stat.S_ISREG(status.st_mode))


def _inode(status: os.stat_result) -> tuple[int, int] | None:
    return (status.st_dev, status.st_ino) if status.st_ino else None


def _problem(folder: Path, index: Path, n_known: int) -> str:
    """Why a folder or file cannot be looked at, and what to do; empty if it can."""
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
        except OSError:  # we may not read it, which the walk reports
            return ""
        what = f"{folder} is empty"
    return (
        f"{what}, and the index has {counted(n_known, 'file')} of it; if its disk is not mounted, mount it; "
        f"to forget them: q3e-local index rm{option_of(index)} --below {quoted(folder)}"
    )
