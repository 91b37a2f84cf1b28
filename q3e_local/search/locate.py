"""Where index files are, and who may write one.

Knows names, paths and a lock; nothing of what is in an index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from q3e_local.errors import IndexFileError, OptionError, OutputError
from q3e_local.folders import data_folder

DEFAULT_NAME = "default"
SUFFIX = ".q3e"
_NAME = re.compile(r"[^\W_][\w.+-]{0,99}")


def indexes_folder() -> Path:
    """Where the indexes are that have names."""
    return data_folder() / "indexes"


def locate(db: Path | None = None, name: str | None = None) -> Path:
    """The file of an index: `db` itself, or that of a name; of the default one without either. It need not exist.

    Raises OptionError for both at once, and for what cannot be a name.
    """
    if db is not None:
        if name is not None:
            raise OptionError(f"give a file ({db}) or a name ({name}), not both")
        return db
    name = DEFAULT_NAME if name is None else name
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"an index's name is letters, digits and - _ . +, got {name!r}; for a file anywhere give --db"
        )
    return indexes_folder() / f"{name}{SUFFIX}"


def existing(db: Path | None = None, name: str | None = None) -> Path:
    """The file of an index that is there. Raises IndexFileError, which says how to make one and which there are."""
    path = locate(db, name)
    if path.exists():
        return path
    what = f"there is no index {path}" if db is not None else f"there is no index named {name or DEFAULT_NAME}"
    option = f" --db {db}" if db is not None else f" --name {name}" if name is not None else ""
    others = ", ".join(names())
    raise IndexFileError(
        f"{what}; make it with: q3e-local index FOLDER{option}" + (f"; there are: {others}" if others else "")
    )


def names() -> list[str]:
    """The indexes that have names."""
    return sorted(path.stem for path in indexes_folder().glob(f"*{SUFFIX}"))


def files_of(path: Path) -> list[Path]:
    """The files of an index: itself, and those that SQLite and the lock keep beside it."""
    return [path, *(Path(f"{path.resolve()}{end}") for end in ("", "-wal", "-shm", "-journal", ".lock"))]


@contextmanager
def alone(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Nobody else changes this index meanwhile. Calls `on_wait` where another does, and waits until it is done.

    Searching needs no lock. Raises OutputError where the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path.resolve()}.lock", mode=0o600)  # one for all names it has by links
    try:
        if path.parent == indexes_folder():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # no one else need know what is indexed
        elif not path.parent.is_dir():  # the lock would make it
            raise OutputError(f"there is no folder {path.parent} to keep {path.name} in")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
    except NotImplementedError:
        raise OutputError(f"the disk of {path} has no locks; keep the index on another with --db") from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another with --db") from None
    try:
        yield
    finally:
        lock.release()
