"""The line on stderr that says how far a long job is. Shown on terminals only; stdout is never touched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Meter(Protocol):
    """Told what is done in all: bytes of input, texts, tokens."""

    def __call__(self, n_bytes: int, n_texts: int, n_tokens: int) -> None: ...


@contextmanager
def meter(n_bytes: int | None, quiet: bool) -> Iterator[Meter]:
    """A meter for `n_bytes` of input, or of unknown length: texts, tokens per second, time left."""
    if quiet or not sys.stderr.isatty():
        yield lambda n_bytes, n_texts, n_tokens: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[texts]:,} texts, {task.fields[rate]:,.0f} tokens/s"),
        BarColumn(bar_width=30),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("embed", total=n_bytes, texts=0, rate=0.0)

        def update(n_bytes: int, n_texts: int, n_tokens: int) -> None:
            seconds = progress.tasks[task].elapsed or 0
            progress.update(task, completed=n_bytes, texts=n_texts, rate=n_tokens / seconds if seconds else 0)

        yield update
