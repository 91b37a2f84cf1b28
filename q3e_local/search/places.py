"""Where index files are, and a lock for the run that writes one.

Knows names and paths; nothing of what is in an index.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from q3e_local import files
from q3e_local.errors import IndexFileError, OptionError, OutputError
from q3e_local.files import data_folder
from q3e_local.wording.spelling import either, nearest

DEFAULT_NAME = "default"
SUFFIX = ".q3e"
_NAMED_AT_MOST = 3  # indexes, in the error about a missing index
_NAME = re.compile(r"[^\W_][\w.+-]{0,99}")


def indexes_folder() -> Path:
    """The folder of the indexes that have names."""
    return data_folder() / "indexes"


def locate(db: Path | None = None, name: str | None = None) -> Path:
    """The file of an index: `db`, or the file of a name, or of the default index. It need not exist.

    Raises OptionError for a file and a name at once, and for a name that cannot be.
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


def existing(db: Path | None = None, name: str | None = None, *, may_be_new: bool = True) -> Path:
    """The file of an index that is there. Raises IndexFileError, which says which there are.

    With `may_be_new` it also says how to make this one.
    """
    path = locate(db, name)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise IndexFileError(f"{path} cannot be read: {error.strerror or error}") from None
    else:
        return path
    what = f"there is no index {path}" if db is not None else f"there is no index named {name or DEFAULT_NAME}"
    option = f" --db {quoted(db)}" if db is not None else f" --name {name}" if name is not None else ""
    advice = f"; make it with: q3e-local index FOLDER{option}" if may_be_new else ""
    raise IndexFileError(f"{what}{advice}{_alternatives(name)}")


def _alternatives(name: str | None) -> str:
    """The end of an error about a missing index: which indexes may have been meant, or which there are."""
    found = names()
    near = nearest(name, found) if name is not None else []
    if near:
        return f"; did you mean {either(near)}?"
    if len(found) > _NAMED_AT_MOST:
        return f"; there are {len(found)}: q3e-local index list"
    return f"; there are: {', '.join(found)}" if found else ""


def names() -> list[str]:
    """The indexes that have names."""
    return sorted(path.stem for path in _index_files() if _NAME.fullmatch(path.stem))


def strays() -> list[Path]:
    """Files among the named indexes that cannot be named: copies, and files that file managers leave."""
    return sorted(path for path in _index_files() if not _NAME.fullmatch(path.stem))


def _index_files() -> Iterator[Path]:
    return indexes_folder().glob(f"*{SUFFIX}")


def option_of(path: Path) -> str:
    """The option that names this index: ` --name work`, ` --db 'my notes.q3e'`; empty for the default index."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links are not resolved
    if path.parent != indexes_folder().absolute() or path.suffix != SUFFIX or not _NAME.fullmatch(path.stem):
        return f" --db {quoted(path)}"
    return "" if path.stem == DEFAULT_NAME else f" --name {path.stem}"


def quoted(argument: str | Path) -> str:
    """The argument, quoted for the command line of this system."""
    text = str(argument)
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)


def files_of(path: Path) -> list[Path]:
    """The files of an index: itself, and the files beside it of SQLite and of the lock."""
    return [path, *(Path(f"{path.resolve()}{end}") for end in ("", "-wal", "-shm", "-journal", ".lock"))]


@contextmanager
def alone(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other runs from changing this index during the block. Calls `on_wait` before it waits for another run.

    Searches need no lock. Raises OutputError where the folder cannot be written.
    """
    file = Path(f"{path.resolve()}.lock")  # one for all names it has by links
    is_index = True
    with ExitStack() as stack:
        try:
            if path.parent == indexes_folder():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else need know what is indexed
            elif not path.parent.is_dir():  # the lock would make it
                raise OutputError(f"there is no folder {path.parent} to keep {path.name} in")
            had_lock = file.exists()
            stack.enter_context(files.alone(file, on_wait, mode=0o600))
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another with --db") from None
        try:
            yield
        except IndexFileError:  # a lock that was here before may be one that others wait for
            is_index = had_lock
            raise
        finally:
            with suppress(OSError):  # Windows keeps what is open
                if not (is_index and path.exists()):  # no index came of it, or it was deleted
                    file.unlink(missing_ok=True)
