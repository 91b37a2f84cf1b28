"""Wait until something changes below folders.

The only place that imports watchfiles. Says that something changed, not what: changes.py compares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from watchfiles import watch

# Editors write a file in several steps, and several files at once.
_CALM_MS = 300
_DEBOUNCE_MS = 2000
_LISTENING_MS = 500


def watched(paths: Sequence[Path], leave_out: Sequence[Path]) -> Iterator[None]:
    """Yield when every change from now on is seen, and then after each change.

    Hidden files below folders do not count, nor do the files to `leave_out`. Ends only where none of the paths is
    there. Raises KeyboardInterrupt at Ctrl-C.
    """
    # The system names files by their real paths, links being followed.
    ours = {os.path.realpath(path) for path in leave_out}
    real = [os.path.realpath(path) for path in paths if path.exists()]
    folders = [path for path in real if Path(path).is_dir()]
    files = {path for path in real if path not in folders}

    def is_below(path: str) -> bool:
        inside = next((path[len(root) :] for root in folders if path.startswith(root)), path)
        return path not in ours and not any(part.startswith(".") for part in Path(inside).parts)

    ears = []
    if folders:
        ears.append(_heard(folders, is_below, is_deep=True))
    if files:  # their folders are watched, because an editor that saves a file may put a new file in its place
        parents = {str(Path(path).parent) for path in files}
        ears.append(_heard(sorted(parents), files.__contains__, is_deep=False))
    for ear in ears:
        next(ear)
    yield
    while ears:  # in turn: an ear keeps what it hears while another is asked
        if sum(next(ear) for ear in ears):
            yield


def _heard(folders: Sequence[str], counts: Callable[[str], bool], *, is_deep: bool) -> Iterator[bool]:
    """Whether anything changed, again and again; the first answer comes when it has begun to listen."""
    for found in watch(
        *folders, watch_filter=lambda change, path: counts(path), step=_CALM_MS, debounce=_DEBOUNCE_MS,
        rust_timeout=_LISTENING_MS, yield_on_timeout=True, raise_interrupt=True, recursive=is_deep,
    ):  # fmt: skip
        yield bool(found)
