"""Wait until something changes below folders.

The one place that imports watchfiles; says that something changed, not what: comparing is the business of changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

# Editors write a file in several steps, and several files at once.
_CALM_MS = 300
_DEBOUNCE_MS = 2000
_LISTENING_MS = 500


def watched(folders: Sequence[Path], leave_out: Sequence[Path]) -> Iterator[None]:
    """One item as soon as nothing can be missed any more, then one each time that something changed.

    Hidden files do not count, nor do those to `leave_out`. Ends never; Ctrl-C is a KeyboardInterrupt.
    """
    from watchfiles import Change, watch

    # As the system names them, links being followed.
    ours = {os.path.realpath(path) for path in leave_out}
    roots = [os.path.realpath(folder) for folder in folders]

    def counts(change: Change, path: str) -> bool:
        if path in ours:
            return False
        inside = next((path[len(root) :] for root in roots if path.startswith(root)), path)
        return not any(part.startswith(".") for part in Path(inside).parts)

    is_listening = False
    for found in watch(
        *roots, watch_filter=counts, step=_CALM_MS, debounce=_DEBOUNCE_MS, rust_timeout=_LISTENING_MS,
        yield_on_timeout=True, raise_interrupt=True,
    ):  # fmt: skip
        if found or not is_listening:
            is_listening = True
            yield
